// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the attempts are those of hedge_test)
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// staggered_race: what the contract says of it.

#include <magpie/race.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/tbb_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;
using Factories = std::vector<TaskFactory<int>>;

class StaggeredRace : public OnMachine {
 protected:
  std::vector<std::chrono::nanoseconds>
      starts;  // factories are called one after the other: no lock

  /// A factory that notes when it is called.
  template <class F>
  TaskFactory<int> noted(F make) {
    return [this, make] {
      starts.push_back(machine.elapsed());
      return make();
    };
  }
  TaskFactory<int> gives(Duration pause, int value) {
    return noted([=] { return give_after(pause, value); });
  }
  TaskFactory<int> fails(Duration pause, std::string what) {
    return noted([=] { return fail_after(pause, what); });
  }
  template <class... F>
  static Factories list(F... factory) {
    Factories all;
    (all.push_back(factory), ...);
    return all;
  }
};

using Times = std::vector<std::chrono::nanoseconds>;

TEST_ON_THREADS(StaggeredRace, TheFirstAloneIfItIsQuick) {  // B140
  machine.run([&]() -> Task<> {
    const Indexed<int> first = co_await staggered_race(list(gives(1s, 5), gives(1s, 6)), 2s);
    EXPECT_EQ(first.index, 0u);
    EXPECT_EQ(first.value, 5);
  });
  EXPECT_EQ(starts, (Times{0s}));
  EXPECT_EQ(machine.elapsed(), 1s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(StaggeredRace, TheNextStartsAfterTheDelay) {  // B140
  machine.run([&]() -> Task<> {
    const auto first =
        co_await staggered_race(list(gives(10s, 0), gives(10s, 1), gives(1s, 2), gives(1s, 3)), 3s);
    EXPECT_EQ(first.index, 2u);
    EXPECT_EQ(first.value, 2);
  });
  EXPECT_EQ(starts, (Times{0s, 3s, 6s}));
  EXPECT_EQ(machine.elapsed(), 7s);
}

TEST_ON_THREADS(StaggeredRace, TheNextStartsAtOnceWhenOneFailsAndTheDelayCountsFromThere) {  // B140
  machine.run([&]() -> Task<> {
    const auto first = co_await staggered_race(
        list(fails(1s, "a"), gives(20s, 1), fails(500ms, "c"), gives(1s, 3)), 3s);
    EXPECT_EQ(first.index, 3u);
  });
  EXPECT_EQ(starts, (Times{0s, 1s, 4s, 4500ms}));
  EXPECT_EQ(machine.elapsed(), 5500ms);
}

TEST_ON_THREADS(StaggeredRace, AnyFailureStartsOneNotOnlyTheLatest) {
  machine.run([&]() -> Task<> {
    // The first one fails at 4 s, when the second has run for a second.
    const auto first = co_await staggered_race(
        list(fails(4s, "a"), gives(20s, 1), gives(1s, 2), gives(1s, 3)), 3s);
    EXPECT_EQ(first.index, 2u);
  });
  EXPECT_EQ(starts, (Times{0s, 3s, 4s}));
  EXPECT_EQ(machine.elapsed(), 5s);
}

TEST_ON_THREADS(StaggeredRace, NoDelayStartsAllAtOnceNeverOnlyAfterFailures) {
  machine.run([&]() -> Task<> {
    const auto first = co_await staggered_race(list(gives(3s, 0), gives(2s, 1), gives(1s, 2)), 0s);
    EXPECT_EQ(first.index, 2u);
    EXPECT_EQ(starts, Times(3, 0s));
    starts.clear();
    const auto second = co_await staggered_race(list(fails(1s, "a"), gives(100h, 1), gives(1s, 2)),
                                                Duration::never());
    EXPECT_EQ(second.index, 1u);
    EXPECT_EQ(starts, (Times{1s, 2s}));
    starts.clear();
    const auto third = co_await staggered_race(list(gives(3s, 0), gives(2s, 1)), -1s);
    EXPECT_EQ(third.index, 1u);
  });
}

TEST_ON_THREADS(StaggeredRace, AllFailuresAreAGroupInTheOrderOfTheAttempts) {  // B141
  machine.run([&]() -> Task<> {
    const auto result = co_await as_result(
        staggered_race(list(fails(9s, "a"), fails(1s, "b"), fails(3s, "c")), 2s));
    const ExceptionGroup group = group_of(result.error());
    EXPECT_EQ(group.exceptions().size(), 3u);
    EXPECT_EQ(what_of(group.exceptions()[0]), "a");
    EXPECT_EQ(what_of(group.exceptions()[1]), "b");
    EXPECT_EQ(what_of(group.exceptions()[2]), "c");
    const auto one = co_await as_result(staggered_race(list(fails(1s, "alone")), 2s));
    EXPECT_EQ(group_of(one.error()).exceptions().size(), 1u);
  });
  EXPECT_EQ(starts, (Times{0s, 2s, 3s, 9s}));
}

TEST_ON_THREADS(StaggeredRace, OfNothingIsAnError) {  // B141
  machine.run([&]() -> Task<> {
    Factories none;
    const auto result = co_await as_result(staggered_race(none, 1s));
    EXPECT_TRUE(is<std::invalid_argument>(result.error()));
    EXPECT_NE(what_of(result.error()).find("staggered_race"), std::string::npos);
  });
}

TEST_ON_THREADS(StaggeredRace, LosersAreCancelledAndAwaited) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto watch = [&] { return watched(ended, why); };
    auto mind = [] { return stubborn(9s, 1); };
    const auto first = co_await staggered_race(list(noted(watch), noted(mind), gives(1s, 2)), 1s);
    EXPECT_EQ(first.index, 2u);
    EXPECT_TRUE(ended);
    EXPECT_EQ(why, CancelKind::lost_race);
    co_await this_task::checkpoint();
  });
  EXPECT_EQ(machine.elapsed(), 10s);
}

TEST_ON_THREADS(StaggeredRace, AFactoryThatThrowsIsAFailedAttempt) {
  machine.run([&]() -> Task<> {
    auto bad = []() -> Task<int> { throw std::runtime_error("factory"); };
    auto empty = [] { return Task<int>(); };
    const auto first = co_await staggered_race(
        list(noted(bad), noted(empty), TaskFactory<int>(), gives(1s, 3)), 1h);
    EXPECT_EQ(first.index, 3u);
    EXPECT_EQ(starts, Times(3, 0s));
    const auto none = co_await as_result(staggered_race(list(noted(bad), noted(bad)), 1h));
    EXPECT_EQ(group_of(none.error()).exceptions().size(), 2u);
  });
}

TEST_ON_THREADS(StaggeredRace, OneThatEndsCancelledByItselfHasFailedButIsNoError) {
  machine.run([&]() -> Task<> {
    auto quits = [] { return cancel_itself("quit"); };
    const auto first = co_await staggered_race(list(noted(quits), gives(1s, 1)), 1h);
    EXPECT_EQ(first.index, 1u);
    const auto mixed =
        co_await as_result(staggered_race(list(noted(quits), fails(1s, "error")), 1h));
    EXPECT_EQ(group_of(mixed.error()).exceptions().size(), 1u);
    const auto all = co_await as_result(staggered_race(list(noted(quits), noted(quits)), 1h));
    EXPECT_EQ(reason_of(all.error()).message, "quit");
    co_await this_task::checkpoint();
  });
}

// --- values that lost ----------------------------------------------------------------------------

TEST_ON_THREADS(StaggeredRace, LosersValuesGoToOnDiscard) {  // B142
  machine.run([&]() -> Task<> {
    std::vector<std::pair<std::size_t, int>> discarded;
    auto discard = [&](std::size_t index, int&& value) { discarded.emplace_back(index, value); };
    auto forgives = [] { return forgiving(40); };
    auto mind = [] { return stubborn(9s, 41); };
    auto contest =
        staggered_race(list(noted(forgives), noted(mind), fails(500ms, "c"), gives(1s, 3)), 1s)
            .on_discard(discard);
    const auto first = co_await std::move(contest);
    EXPECT_EQ(first.index, 3u);
    EXPECT_EQ(discarded, (std::vector<std::pair<std::size_t, int>>{{0, 40}, {1, 41}}));
  });
}

TEST_ON_THREADS(StaggeredRace, AnOnDiscardThatThrowsReplacesTheResultAndStillGetsTheRest) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto discard = [&](std::size_t, int&&) {
      ++calls;
      throw std::runtime_error("discard");
    };
    auto forgives = [] { return forgiving(40); };
    auto contest = staggered_race(list(noted(forgives), noted(forgives), gives(1s, 3)), 1s)
                       .on_discard(discard);
    const auto result = co_await as_result(std::move(contest));
    EXPECT_EQ(what_of(result.error()), "discard");
    EXPECT_EQ(calls, 2);
  });
}

TEST_ON_THREADS(StaggeredRace, AwkwardValues) {
  Ledger ledger;
  int object = 0;
  machine.run([&]() -> Task<> {
    std::vector<TaskFactory<MoveOnly>> movers;
    movers.push_back([]() -> Task<MoveOnly> { co_return MoveOnly(3); });
    const auto moved = co_await staggered_race(std::move(movers), 1s);
    EXPECT_EQ(moved.value.value(), 3);

    std::vector<TaskFactory<NoDefault>> plain;
    plain.push_back([]() -> Task<NoDefault> { co_return NoDefault(4); });
    const auto no_default = co_await staggered_race(std::move(plain), 1s);
    EXPECT_EQ(no_default.value.value, 4);

    std::vector<TaskFactory<void>> voids(3, [] { return nothing_after(2s); });
    int discarded = 0;
    auto contest =
        staggered_race(std::move(voids), 1s).on_discard([&](std::size_t) { ++discarded; });
    const Indexed<void> done = co_await std::move(contest);
    EXPECT_EQ(done.index, 0u);

    std::vector<TaskFactory<int&>> references;
    references.push_back([&]() -> Task<int&> { co_return object; });
    auto reference = co_await staggered_race(std::move(references), 1s);
    static_assert(std::is_same_v<decltype(reference), Indexed<int&>>);
    EXPECT_EQ(&reference.value, &object);

    std::vector<TaskFactory<Tracked>> tracked(4, [&]() -> Task<Tracked> {
      const Result<void> slept = co_await as_result(sleep_for(1s));
      co_return Tracked(ledger);
    });
    (void)co_await staggered_race(std::move(tracked), 0s);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(StaggeredRace, InACancelledScopeItStartsNothing) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      const auto result = co_await as_result(staggered_race(list(gives(1s, 1)), 1s));
      EXPECT_EQ(reason_of(result.error()).message, "before");
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
  EXPECT_TRUE(starts.empty());
}

TEST_ON_THREADS(StaggeredRace, CancelledFromOutsideCancelsWhatRunsAndStartsNoMore) {
  machine.run([&]() -> Task<> {
    auto endless = [] { return never(); };
    const auto result =
        co_await try_timeout(staggered_race(Factories(9, noted(endless)), 1s), 2500ms);
    EXPECT_TRUE(result.is_timeout());
  });
  EXPECT_EQ(starts, (Times{0s, 1s, 2s}));
  EXPECT_EQ(machine.elapsed(), 2500ms);
}

TEST_ON_THREADS(StaggeredRace, WhatIsThereAllTheSameGoesBeforeACancellation) {
  machine.run([&]() -> Task<> {
    auto endless = [] { return never(); };
    auto mind = [] { return stubborn(2s, 7); };
    const auto value = co_await timeout(staggered_race(list(noted(mind), noted(endless)), 10s), 1s);
    EXPECT_EQ(value.value, 7);
    const auto failed = co_await try_timeout(
        staggered_race(list(fails(1s, "before"), noted(endless), noted(endless)), 10s), 2s);
    EXPECT_EQ(group_of(failed.error()).exceptions().size(), 1u);
    auto answers = [] { return bitter("answer"); };
    const auto bitterly =
        co_await try_timeout(staggered_race(list(noted(answers), noted(endless)), 10s), 1s);
    EXPECT_EQ(what_of(group_of(bitterly.error()).exceptions()[0]), "answer");
  });
}

TEST_ON_THREADS(StaggeredRace, CanBeKeptAndGivenToOthers) {
  machine.run([&]() -> Task<> {
    auto quick = [] { return give_after(1s, 3); };
    auto slow = [] { return give_after(2s, 1); };
    auto kept = staggered_race(list(slow, slow), 1s);
    auto moved = std::move(kept);
    auto both = co_await gather(std::move(moved), staggered_race(list(quick), 1s));
    EXPECT_EQ(std::get<0>(both).value + std::get<1>(both).value, 4);
    auto first = co_await race(staggered_race(list(slow), 1s), sleep_for(1s));
    EXPECT_EQ(first.index, 1u);
  });
}

TEST_ON_THREADS(StaggeredRace, ComesHomeAndCallsFactoriesAtHome) {
  WorkStealingExecutor other({.threads = 2});
  TaskLocal<int> local{0};
  machine.run([&]() -> Task<> {
    auto away = [&]() -> Task<int> {
      Executor& here = co_await this_task::executor();
      EXPECT_EQ(&here, &executor);
      co_await resume_on(other);
      throw std::runtime_error("away");
    };
    std::vector<JoinHandle<int>> spawned;
    auto read = [&]() -> Task<int> { co_return co_await local.get(); };
    auto spawns = [&] {
      spawned.push_back(spawn(read()));
      return away();
    };
    auto body = [&]() -> Task<> {
      const auto result = co_await as_result(staggered_race(Factories(20, spawns), 1ms));
      EXPECT_EQ(group_of(result.error()).exceptions().size(), 20u);
    };
    co_await local.with(7, body());
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
    for (auto& handle : spawned) {
      const int seen = co_await handle;
      EXPECT_EQ(seen, 7);
    }
  });
}

TEST_ON_THREADS(StaggeredRace, OneHundredThousandAttempts) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    Factories failing(n, [] { return fail("no"); });
    failing.push_back([] { return give(1); });
    const auto last = co_await staggered_race(std::move(failing), 1h);
    EXPECT_EQ(last.index, n);

    Factories endless(n, [] { return never(); });
    endless.push_back([] { return give(2); });
    const auto at_once = co_await staggered_race(std::move(endless), 0s);
    EXPECT_EQ(at_once.index, n);

    Factories slow(n / 10, [] { return never(); });
    slow.push_back([] { return give(3); });
    const auto one_by_one = co_await staggered_race(std::move(slow), 1ms);
    EXPECT_EQ(one_by_one.index, n / 10);
  });
}

TEST(StaggeredRaceOnTbb, Works) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  const Deadline start = clock.now();
  auto body = [&]() -> Task<> {
    Factories ways(3, [] { return never(); });
    ways.push_back([] { return give_after(1s, 3); });
    const auto first = co_await staggered_race(std::move(ways), 1s);
    EXPECT_EQ(first.index, 3u);
  };
  executor.run(body());
  EXPECT_EQ(clock.now() - start, 4s);
}

}  // namespace
}  // namespace magpie
