// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// gather_limited: what the contract says of it. That the rest is gather's is asked of each case
// again.

#include <magpie/limited.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

/// How many are running, and were at most.
class Gauge {
 public:
  void enter() {
    const int now = running_.fetch_add(1) + 1;
    int most = most_.load();
    while (now > most && !most_.compare_exchange_weak(most, now)) {
    }
    started_.fetch_add(1);
  }
  void leave() { running_.fetch_sub(1); }
  int most() const { return most_.load(); }
  int running() const { return running_.load(); }
  int started() const { return started_.load(); }

 private:
  std::atomic<int> running_{0};
  std::atomic<int> most_{0};
  std::atomic<int> started_{0};
};
struct Entered {
  explicit Entered(Gauge& gauge) : gauge_(gauge) { gauge_.enter(); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  ~Entered() { gauge_.leave(); }
  Gauge& gauge_;
};

Task<int> gauged(Gauge& gauge, Duration pause, int value) {
  const Entered here(gauge);
  co_await sleep_for(pause);
  co_return value;
}
Task<int> gauged_failure(Gauge& gauge, Duration pause, std::string what) {
  const Entered here(gauge);
  co_await sleep_for(pause);
  throw std::runtime_error(what);
}

class GatherLimited : public OnMachine {
 protected:
  Gauge gauge;
};

TEST_ON_THREADS(GatherLimited, NoMoreThanTheLimitRunAndResultsAreInInputOrder) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 20; ++i) tasks.push_back(gauged(gauge, 1s, i));
    const std::vector<int> values = co_await gather_limited(4, std::move(tasks));
    EXPECT_EQ(values.size(), 20u);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], i);
  });
  EXPECT_EQ(gauge.most(), 4);
  EXPECT_EQ(machine.elapsed(), 5s);
}

TEST_ON_THREADS(GatherLimited, TheNextOneStartsAsSoonAsOneEnds) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (const auto pause : {5s, 1s, 1s, 1s, 1s}) tasks.push_back(gauged(gauge, pause, 0));
    co_await gather_limited(2, std::move(tasks));
  });
  EXPECT_EQ(machine.elapsed(), 5s);
  EXPECT_EQ(gauge.most(), 2);
}

TEST_ON_THREADS(GatherLimited, ALimitOfOneRunsThemInTurnInInputOrder) {
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    auto note = [&](int i) -> Task<> {
      order.push_back(i);
      co_await sleep_for(1s);
      order.push_back(i);
    };
    std::vector<Task<>> tasks;
    for (int i = 0; i < 4; ++i) tasks.push_back(note(i));
    co_await gather_limited(1, std::move(tasks));
  });
  EXPECT_EQ(order, (std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3}));
  EXPECT_EQ(machine.elapsed(), 4s);
}

TEST_ON_THREADS(GatherLimited, ALimitAboveTheNumberOfTasksIsNone) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 7; ++i) tasks.push_back(gauged(gauge, 1s, i));
    co_await gather_limited(std::numeric_limits<std::size_t>::max(), std::move(tasks));
  });
  EXPECT_EQ(gauge.most(), 7);
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(GatherLimited, ALimitOfZeroIsAnError) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(gauged(gauge, 1s, 1));
    const auto result = co_await as_result(gather_limited(0, std::move(tasks)));
    EXPECT_TRUE(is<std::invalid_argument>(result.error()));
    EXPECT_FALSE(what_of(result.error()).empty());
    const auto pack = co_await as_result(gather_limited(return_exceptions, 0, give(1)));
    EXPECT_TRUE(is<std::invalid_argument>(pack.error()));
    std::vector<Task<int>> none;
    const auto empty = co_await as_result(gather_limited(0, std::move(none)));
    EXPECT_TRUE(is<std::invalid_argument>(empty.error()));
  });
  EXPECT_EQ(gauge.started(), 0);
}

TEST_ON_THREADS(GatherLimited, PacksGiveTuplesOfAllTypes) {
  int object = 0;
  machine.run([&]() -> Task<> {
    auto refer = [&]() -> Task<int&> { co_return object; };
    auto unique = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(3); };
    auto no_default = []() -> Task<NoDefault> { co_return NoDefault(5); };
    auto all = co_await gather_limited(2, give_after(2s, 1), give_text("text"), nothing_after(1s),
                                       refer(), unique(), no_default());
    static_assert(std::is_same_v<decltype(all), std::tuple<int, std::string, std::monostate, int&,
                                                           std::unique_ptr<int>, NoDefault>>);
    EXPECT_EQ(std::get<0>(all), 1);
    EXPECT_EQ(std::get<1>(all), "text");
    EXPECT_EQ(&std::get<3>(all), &object);
    EXPECT_EQ(*std::get<4>(all), 3);
    EXPECT_EQ(std::get<5>(all).value, 5);
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(GatherLimited, VectorsOfAwkwardValues) {
  int object = 0;
  machine.run([&]() -> Task<> {
    auto move_only = [](int v) -> Task<MoveOnly> { co_return MoveOnly(v); };
    std::vector<Task<MoveOnly>> movers;
    for (int i = 0; i < 5; ++i) movers.push_back(move_only(i));
    const std::vector<MoveOnly> moved = co_await gather_limited(2, std::move(movers));
    EXPECT_EQ(moved[4].value(), 4);

    auto refer = [&]() -> Task<int&> { co_return object; };
    std::vector<Task<int&>> references;
    references.push_back(refer());
    auto got = co_await gather_limited(1, std::move(references));
    static_assert(std::is_same_v<decltype(got), std::vector<std::reference_wrapper<int>>>);
    EXPECT_EQ(&got[0].get(), &object);

    std::vector<Task<>> voids;
    for (int i = 0; i < 3; ++i) voids.push_back(nothing_after(1s));
    auto pending = gather_limited(3, std::move(voids));
    static_assert(std::is_void_v<decltype(pending)::value_type>);
    co_await std::move(pending);
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(GatherLimited, OfNothingGivesNothingAlsoInACancelledScope) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      std::vector<Task<int>> none;
      const std::vector<int> empty = co_await gather_limited(3, std::move(none));
      EXPECT_TRUE(empty.empty());
      const std::tuple<> nothing_at_all = co_await gather_limited(3);
      (void)nothing_at_all;
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
}

TEST_ON_THREADS(GatherLimited, OneAlone) {
  machine.run([&]() -> Task<> {
    auto [value] = co_await gather_limited(1, give_after(1s, 4));
    EXPECT_EQ(value, 4);
    auto failed = co_await as_result(gather_limited(5, fail("alone")));
    EXPECT_EQ(what_of(failed.error()), "alone");
  });
}

TEST_ON_THREADS(GatherLimited, TakesHandlesCallablesOperationsAndOtherRanges) {
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<int>> handles{executor.spawn(give_after(1s, 1)),
                                         executor.spawn(give_after(2s, 2))};
    const std::vector<int> values = co_await gather_limited(1, handles);
    EXPECT_EQ(values, (std::vector<int>{1, 2}));
    EXPECT_EQ(machine.elapsed(), 2s);

    auto plain = [] { return 5; };
    auto made = [&] { return gauged(gauge, 1s, 6); };
    auto mixed = co_await gather_limited(2, plain, made, sleep_for(1s), handles[0]);
    static_assert(std::is_same_v<decltype(mixed), std::tuple<int, int, std::monostate, int>>);
    EXPECT_EQ(std::get<0>(mixed) + std::get<1>(mixed), 11);

    std::list<Task<int>> list;
    for (int i = 0; i < 5; ++i) list.push_back(give(i));
    const std::vector<int> from_list = co_await gather_limited(2, std::move(list));
    EXPECT_EQ(from_list.back(), 4);
    auto view = std::views::iota(0, 5) | std::views::transform(give);
    const std::vector<int> from_view = co_await gather_limited(2, view);
    EXPECT_EQ(from_view.size(), 5u);
    std::vector<std::function<Task<int>()>> callables(3, made);
    const std::vector<int> called = co_await gather_limited(2, callables);
    EXPECT_EQ(called, (std::vector<int>{6, 6, 6}));
    EXPECT_LE(gauge.most(), 2);
  });
}

TEST_ON_THREADS(GatherLimited, CanBeKeptOnTheHeap) {
  machine.run([&]() -> Task<> {
    auto of_vector = [] {
      std::vector<Task<int>> tasks;
      tasks.push_back(give(1));
      return gather_limited(1, std::move(tasks));
    };
    const auto vector = std::make_unique<decltype(of_vector())>(of_vector());
    const std::vector<int> values = co_await std::move(*vector);
    EXPECT_EQ(values, std::vector<int>{1});
    auto of_pack = [] { return gather_limited(1, give(2), give(3)); };
    const auto pack = std::make_unique<decltype(of_pack())>(of_pack());
    const auto pair = co_await std::move(*pack);
    EXPECT_EQ(std::get<1>(pair), 3);
  });
}

TEST_ON_THREADS(GatherLimited, MovedFromTaskIsAnError) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks(2);
    EXPECT_THROW((void)gather_limited(1, std::move(tasks)), std::logic_error);
    co_return;
  });
}

// --- failures ------------------------------------------------------------------------------------

TEST_ON_THREADS(GatherLimited, TheFirstFailureCancelsWhatRunsAndStartsNothingMore) {  // B113
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(watched(ended, why));
    tasks.push_back(gauged_failure(gauge, 1s, "first"));
    for (int i = 0; i < 50; ++i) tasks.push_back(gauged(gauge, 1s, i));
    const auto result = co_await as_result(gather_limited(2, std::move(tasks)));
    EXPECT_EQ(what_of(result.error()), "first");
    EXPECT_TRUE(ended);
    EXPECT_EQ(why, CancelKind::sibling_failed);
    co_await this_task::checkpoint();
  });
  EXPECT_EQ(gauge.started(), 1);
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(GatherLimited, SiblingsAreToldWhoFailed) {
  std::string message;
  machine.run([&]() -> Task<> {
    auto asks = [&]() -> Task<int> {
      const auto slept = co_await as_result(sleep_for(1h));
      message = reason_of(slept.error()).message;
      slept.value();
      co_return 0;
    };
    co_await as_result(gather_limited(2, asks(), fail_after(1s, "oops")));
  });
  EXPECT_NE(message.find("item 1 of gather_limited"), std::string::npos) << message;
  EXPECT_NE(message.find("oops"), std::string::npos) << message;
  machine.run([&]() -> Task<> {
    auto asks = [&]() -> Task<int> {
      const auto slept = co_await as_result(sleep_for(1h));
      message = reason_of(slept.error()).message;
      slept.value();
      co_return 0;
    };
    co_await as_result(gather_limited(2, asks(), cancel_itself("mine")));
  });
  EXPECT_NE(message.find("mine"), std::string::npos) << message;
}

TEST_ON_THREADS(GatherLimited, AChildThatEndsCancelledByItselfCountsAsAFailure) {
  machine.run([&]() -> Task<> {
    const auto result =
        co_await as_result(gather_limited(2, never(), cancel_itself("mine"), gauged(gauge, 1s, 1)));
    EXPECT_EQ(reason_of(result.error()).message, "mine");
    co_await this_task::checkpoint();
  });
  EXPECT_EQ(gauge.started(), 0);
}

TEST_ON_THREADS(GatherLimited, ARealErrorGoesBeforeACancellation) {
  machine.run([&]() -> Task<> {
    const auto result = co_await as_result(gather_limited(2, bitter("real", 1s), cancel_itself()));
    EXPECT_EQ(what_of(result.error()), "real");
    const auto outer = co_await try_timeout(gather_limited(2, bitter("real"), never()), 1s);
    EXPECT_EQ(what_of(outer.error()), "real");
  });
}

TEST_ON_THREADS(GatherLimited, AllMayFail) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 10; ++i)
      tasks.push_back(gauged_failure(gauge, std::chrono::seconds(1 + i), std::to_string(i)));
    const auto result = co_await as_result(gather_limited(keep_going, 3, std::move(tasks)));
    EXPECT_EQ(what_of(result.error()), "0");
  });
  EXPECT_EQ(gauge.started(), 10);
  EXPECT_LE(gauge.most(), 3);
}

TEST_ON_THREADS(GatherLimited, KeepGoingRunsTheOthersThenThrowsTheFirst) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 6; ++i)
      tasks.push_back(i == 1 ? gauged_failure(gauge, 1s, "one") : gauged(gauge, 1s, i));
    const auto result = co_await as_result(gather_limited(keep_going, 2, std::move(tasks)));
    EXPECT_EQ(what_of(result.error()), "one");
    const auto cancelled =
        co_await as_result(gather_limited(keep_going, 2, cancel_itself("c"), give_after(1s, 1)));
    EXPECT_EQ(reason_of(cancelled.error()).message, "c");
  });
  EXPECT_EQ(gauge.started(), 6);
  EXPECT_EQ(machine.elapsed(), 4s);
}

TEST_ON_THREADS(GatherLimited, ReturnExceptionsGivesAResultForEach) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(give(1));
    tasks.push_back(fail("two"));
    tasks.push_back(cancel_itself());
    tasks.push_back(give_after(1s, 4));
    const std::vector<Result<int>> results =
        co_await gather_limited(return_exceptions, 2, std::move(tasks));
    EXPECT_EQ(results[0].value(), 1);
    EXPECT_EQ(what_of(results[1].error()), "two");
    EXPECT_TRUE(results[2].is_cancelled());
    EXPECT_EQ(results[3].value(), 4);
    auto pack = co_await gather_limited(return_exceptions, 1, nothing(), fail("x"));
    static_assert(std::is_same_v<decltype(pack), std::tuple<Result<void>, Result<int>>>);
    EXPECT_TRUE(std::get<0>(pack).has_value());
    EXPECT_TRUE(std::get<1>(pack).is_error());
  });
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(GatherLimited, InACancelledScopeItStartsNothing) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      std::vector<Task<int>> tasks;
      tasks.push_back(gauged(gauge, 1s, 1));
      const auto result = co_await as_result(gather_limited(3, std::move(tasks)));
      EXPECT_EQ(reason_of(result.error()).message, "before");
      const auto collected =
          co_await as_result(gather_limited(return_exceptions, 3, gauged(gauge, 1s, 1)));
      EXPECT_TRUE(collected.is_cancelled());
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
  EXPECT_EQ(gauge.started(), 0);
}

TEST_ON_THREADS(GatherLimited, CancelledFromOutsideCancelsWhatRunsAndStartsNothingMore) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 20; ++i) tasks.push_back(gauged(gauge, 1s, i));
    const auto result = co_await try_timeout(gather_limited(4, std::move(tasks)), 1500ms);
    EXPECT_TRUE(result.is_timeout());
  });
  EXPECT_EQ(gauge.started(), 8);
  EXPECT_EQ(gauge.running(), 0);
  EXPECT_EQ(machine.elapsed(), 1500ms);
}

TEST_ON_THREADS(GatherLimited, ValuesAreReturnedInSpiteOfACancellationIfAllAreThere) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(give(1));
    tasks.push_back(stubborn(2s, 2));
    tasks.push_back(forgiving(3));
    const std::vector<int> values = co_await timeout(gather_limited(2, std::move(tasks)), 1s);
    EXPECT_EQ(values, (std::vector<int>{1, 2, 3}));
    // Not if one could not start any more.
    std::vector<Task<int>> more;
    more.push_back(stubborn(2s, 1));
    more.push_back(give(2));
    const auto result = co_await as_result(timeout(gather_limited(1, std::move(more)), 1s));
    EXPECT_TRUE(result.is_timeout());
  });
}

TEST_ON_THREADS(GatherLimited, ReturnExceptionsReturnsAlsoWhenItIsCancelled) {
  machine.run([&]() -> Task<> {
    CancellationSource source;
    auto cancel_later = [&]() -> Task<> {
      co_await sleep_for(1s);
      source.cancel("enough");
    };
    JoinHandle<void> canceller = executor.spawn(cancel_later());
    auto body = [&]() -> Task<> {
      std::vector<Task<int>> tasks;
      tasks.push_back(give(1));
      tasks.push_back(stubborn(2s, 2));
      for (int i = 0; i < 5; ++i) tasks.push_back(never());
      const std::vector<Result<int>> results =
          co_await gather_limited(return_exceptions, 2, std::move(tasks));
      EXPECT_EQ(results.size(), 7u);
      EXPECT_EQ(results[1].value(), 2);
      for (std::size_t i = 2; i < 7; ++i)
        EXPECT_EQ(reason_of(results[i].error()).message, "enough");
      co_await this_task::checkpoint();
    };
    const auto ended = co_await as_result(with_token(source.token(), body()));
    EXPECT_TRUE(ended.is_cancelled());
    co_await canceller;
  });
}

TEST_ON_THREADS(GatherLimited, ComesHomeFromOtherExecutorsAndGoesOnAtHome) {
  WorkStealingExecutor other({.threads = 2});
  machine.run([&]() -> Task<> {
    std::atomic<int> elsewhere{0};
    auto away = [&](int v) -> Task<int> {
      Executor& here = co_await this_task::executor();
      if (&here != &executor) ++elsewhere;
      co_await resume_on(other);
      co_return v;
    };
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 20; ++i) tasks.push_back(away(1));
    const std::vector<int> values = co_await gather_limited(3, std::move(tasks));
    EXPECT_EQ(values, std::vector<int>(20, 1));
    EXPECT_EQ(elsewhere.load(), 0);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(GatherLimited, OneHundredThousandTasks) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.reserve(n);
    for (std::size_t i = 0; i < n; ++i) tasks.push_back(i % 3 == 0 ? give_after(1us, 1) : give(1));
    const std::vector<int> values = co_await gather_limited(100, std::move(tasks));
    EXPECT_EQ(std::count(values.begin(), values.end(), 1), static_cast<std::ptrdiff_t>(n));

    std::vector<Task<int>> failing;
    failing.push_back(fail("early"));
    for (std::size_t i = 0; i < n; ++i) failing.push_back(give(1));
    const auto failed = co_await as_result(gather_limited(1, std::move(failing)));
    EXPECT_EQ(what_of(failed.error()), "early");

    std::vector<Task<int>> endless;
    for (std::size_t i = 0; i < n; ++i) endless.push_back(never());
    const auto timed = co_await try_timeout(gather_limited(n / 2, std::move(endless)), 1s);
    EXPECT_TRUE(timed.is_timeout());
  });
}

TEST(GatherLimitedOnTbb, Works) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  Gauge gauge;
  auto body = [&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 40; ++i) tasks.push_back(i % 2 == 0 ? gauged(gauge, 1s, 1) : give(1));
    const std::vector<int> values = co_await gather_limited(5, std::move(tasks));
    EXPECT_EQ(values, std::vector<int>(40, 1));
  };
  executor.run(body());
  EXPECT_LE(gauge.most(), 5);
}

}  // namespace
}  // namespace magpie
