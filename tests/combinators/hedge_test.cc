// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// hedge: what the contract says of it; and the attempts behind it and staggered_race in every
// order. What they share is asked in staggered_race_test.cc.

#include <magpie/hedge.h>

#include <atomic>
#include <chrono>
#include <limits>
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
#include <magpie/event.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class Hedge : public OnMachine {
 protected:
  std::vector<std::chrono::nanoseconds> starts;

  void start() { starts.push_back(machine.elapsed()); }
};

using Times = std::vector<std::chrono::nanoseconds>;

TEST_ON_THREADS(Hedge, AQuickAnswerNeedsOneRequest) {
  machine.run([&]() -> Task<> {
    auto ask = [&] {
      start();
      return give_after(1s, 5);
    };
    const int value = co_await hedge(ask, HedgeOptions().delay(2s).max_attempts(3));
    EXPECT_EQ(value, 5);
  });
  EXPECT_EQ(starts, Times{0s});
  EXPECT_EQ(machine.elapsed(), 1s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Hedge, ASlowOneIsAskedAgainUpToTheLimit) {
  machine.run([&]() -> Task<> {
    auto ask = [&]() -> Task<int> {
      start();
      return starts.size() == 3 ? give_after(4s, 3) : give_after(100s, 0);
    };
    const int value = co_await hedge(ask, HedgeOptions().delay(2s).max_attempts(3));
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(starts, (Times{0s, 2s, 4s}));
  EXPECT_EQ(machine.elapsed(), 8s);
}

TEST_ON_THREADS(Hedge, AFailedOneIsAskedAgainAtOnce) {
  machine.run([&]() -> Task<> {
    auto ask = [&]() -> Task<int> {
      start();
      return starts.size() < 3 ? fail_after(1s, "no") : give_after(1s, 3);
    };
    const int value = co_await hedge(ask, HedgeOptions().delay(1h).max_attempts(3));
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(starts, (Times{0s, 1s, 2s}));
}

TEST_ON_THREADS(Hedge, AllFailedIsAGroupInTheOrderOfTheAttempts) {
  machine.run([&]() -> Task<> {
    int attempt = 0;
    auto ask = [&] {
      ++attempt;
      return fail_after(std::chrono::seconds(10 - attempt), std::to_string(attempt));
    };
    const auto result = co_await as_result(hedge(ask, HedgeOptions().delay(1s).max_attempts(3)));
    const ExceptionGroup group = group_of(result.error());
    EXPECT_EQ(group.exceptions().size(), 3u);
    for (std::size_t i = 0; i < 3; ++i)
      EXPECT_EQ(what_of(group.exceptions()[i]), std::to_string(i + 1));
    const auto once = co_await as_result(hedge(ask, HedgeOptions().max_attempts(1)));
    EXPECT_EQ(group_of(once.error()).exceptions().size(), 1u);
  });
}

TEST_ON_THREADS(Hedge, OptionsHaveDefaultsAndAreCheckedWhenItIsAwaited) {
  machine.run([&]() -> Task<> {
    auto ask = [&] {
      start();
      return never();
    };
    const auto unset = co_await try_timeout(hedge(ask), 1s);
    EXPECT_TRUE(unset.is_timeout());
    EXPECT_EQ(starts, (Times{0s, 100ms}));
    HedgeOptions none;
    none.max_attempts(0);
    const auto result = co_await as_result(hedge(ask, none));
    EXPECT_TRUE(is<std::invalid_argument>(result.error()));
    EXPECT_NE(what_of(result.error()).find("max_attempts"), std::string::npos);
    EXPECT_EQ(HedgeOptions().delay(3s).delay(), Duration(3s));
  });
}

TEST_ON_THREADS(Hedge, AnyNumberOfAttemptsCostsOnlyThoseThatAreMade) {
  machine.run([&]() -> Task<> {
    int attempts = 0;
    auto ask = [&]() -> Task<int> { return ++attempts == 1000 ? give(1000) : fail("no"); };
    const int value =
        co_await hedge(ask, HedgeOptions().max_attempts(std::numeric_limits<std::size_t>::max()));
    EXPECT_EQ(value, 1000);
  });
}

TEST_ON_THREADS(Hedge, LosersAreCancelledAndTheirValuesGoToOnDiscard) {
  machine.run([&]() -> Task<> {
    std::vector<std::pair<std::size_t, int>> discarded;
    auto ask = [&]() -> Task<int> {
      start();
      return starts.size() == 3 ? give_after(1s, 3) : forgiving(static_cast<int>(starts.size()));
    };
    auto keep = [&](std::size_t attempt, int&& value) { discarded.emplace_back(attempt, value); };
    const int value =
        co_await hedge(ask, HedgeOptions().delay(1s).max_attempts(3)).on_discard(keep);
    EXPECT_EQ(value, 3);
    EXPECT_EQ(discarded, (std::vector<std::pair<std::size_t, int>>{{0, 1}, {1, 2}}));
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Hedge, AwkwardValues) {
  int object = 0;
  machine.run([&]() -> Task<> {
    auto move_only = []() -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(3); };
    const std::unique_ptr<int> pointer = co_await hedge(move_only);
    EXPECT_EQ(*pointer, 3);
    auto text = [] { return give_text("text"); };
    const std::string answer = co_await hedge(text);
    EXPECT_EQ(answer, "text");
    auto no_default = []() -> Task<NoDefault> { co_return NoDefault(4); };
    const NoDefault value = co_await hedge(no_default);
    EXPECT_EQ(value.value, 4);
    auto void_task = [] { return nothing_after(1s); };
    auto pending = hedge(void_task, HedgeOptions().delay(10ms));
    static_assert(std::is_void_v<decltype(pending)::value_type>);
    co_await std::move(pending);
    auto refer = [&]() -> Task<int&> { co_return object; };
    int& same = co_await hedge(refer);
    EXPECT_EQ(&same, &object);
    auto operation = [] { return sleep_for(1s); };  // any awaitable will do
    co_await hedge(operation);
  });
}

TEST_ON_THREADS(Hedge, KeepsItsFactory) {
  machine.run([&]() -> Task<> {
    auto start_it = [](int value) {
      auto ask = [value, text = std::string(
                             40, 'x')]() -> Task<int> {  // the closure lives in the operation
        co_await sleep_for(1s);
        co_return value + static_cast<int>(text.size());
      };
      return hedge(std::move(ask), HedgeOptions().delay(10ms));
    };
    auto kept = start_it(2);
    const auto moved = std::make_unique<decltype(kept)>(std::move(kept));
    const int value = co_await std::move(*moved);
    EXPECT_EQ(value, 42);
  });
}

TEST_ON_THREADS(Hedge, CancelledBeforeItStartsNothingAndWhileItRunsNothingMore) {
  machine.run([&]() -> Task<> {
    auto ask = [&] {
      start();
      return never();
    };
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      const auto result = co_await as_result(hedge(ask));
      EXPECT_EQ(reason_of(result.error()).message, "before");
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
    EXPECT_TRUE(starts.empty());
    const auto timed =
        co_await try_timeout(hedge(ask, HedgeOptions().delay(1s).max_attempts(9)), 1500ms);
    EXPECT_TRUE(timed.is_timeout());
    EXPECT_EQ(starts.size(), 2u);
  });
  EXPECT_EQ(machine.elapsed(), 1500ms);
}

// --- in every order ------------------------------------------------------------------------------

void must(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

Task<Tracked> attempt(Ledger& ledger, int steps, bool fails, bool minds) {
  for (int i = 0; i < steps; ++i) {
    if (minds) {
      co_await this_task::yield();
    } else {
      co_await uncancellable(this_task::yield());
    }
  }
  if (fails) throw std::runtime_error("failed");
  co_return Tracked(ledger);
}

// Attempts that end at once or later, fail, ignore their cancellation, and a cancellation from
// outside: one wins, each value is either the result or discarded, none is started twice or after
// the end.
TEST(AttemptsInEveryOrder, EachValueIsTheResultOrDiscarded) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulator) {
    Ledger ledger;
    auto program = [&](int mode) -> Task<> {
      CancellationSource source;
      auto meddle = [&]() -> Task<> {
        for (int i = 0; i < 3; ++i) co_await this_task::yield();
        if (mode == 2) source.cancel("meddled");
      };
      JoinHandle<void> meddler = spawn(meddle());
      std::size_t called = 0;
      bool calling = false;
      auto make = [&] {
        must(!std::exchange(calling, true), "two factories are called at once");
        const int number = static_cast<int>(called++);
        calling = false;
        return attempt(ledger, number == 0 && mode == 3 ? 50 : number % 3,
                       mode == 1 || number % 2 == 0, number % 3 != 0);
      };
      std::vector<std::size_t> discarded;
      auto discard = [&](std::size_t index, Tracked&&) { discarded.push_back(index); };
      HedgeOptions options;
      options.delay(mode == 3 ? Duration(1ns) : Duration(0s)).max_attempts(6);
      {
        const auto result = co_await as_result(
            with_token(source.token(), hedge(make, options).on_discard(discard)));
        must(called <= 6, "there were too many attempts");
        if (mode == 0 || mode == 3) must(result.has_value(), "nobody won");
        if (mode == 1)
          must(group_of(result.error()).exceptions().size() == 6, "a failure is missing");
        if (mode == 2) must(result.has_value() || source.cancelled(), "it was cancelled by nobody");
        for (const std::size_t index : discarded) must(index < called, "a value came from nowhere");
      }
      co_await meddler;
    };
    for (const int mode : {0, 1, 2, 3}) simulator.run(program(mode));
    must(ledger.alive() == 0, "a value was lost");
  });
}

// Two fail at one moment, the second perhaps while the first one's successor is on its way to its
// call: two start, at that moment.
TEST(AttemptsInEveryOrder, TwoFailuresAtOnceStartTwo) {
  testing::explore(scaled(200), [](testing::SimulatedExecutor& simulator) {
    std::vector<std::chrono::nanoseconds> starts;
    auto program = [&]() -> Task<> {
      const Deadline begin = co_await this_task::now();
      auto make = [&]() -> Task<int> {
        starts.push_back(simulator.clock().now() - begin);
        const std::size_t number = starts.size();
        return number == 1   ? fail_after(1500ms, "a")
               : number == 2 ? fail_after(500ms, "b")
                             : give_after(800ms, 3);
      };
      HedgeOptions options;
      options.delay(1s).max_attempts(9);
      const int value = co_await hedge(make, options);
      must(value == 3, "the wrong one won");
    };
    simulator.run(program());
    must(starts == Times{0s, 1s, 1500ms, 1500ms}, "an attempt was started too late, or too early");
  });
}

TEST(AttemptsInEveryOrder, LeaveNothingBehindInADeadlock) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Event never_set;
    Ledger ledger;
    testing::SimulatedExecutor simulator(seed);
    int calls = 0;
    auto stuck = [&]() -> Task<Tracked> {
      ++calls;
      const Tracked local(ledger);
      if (calls > 1) co_await uncancellable(never_set.wait());
      throw std::runtime_error("first");
    };
    auto program = [&]() -> Task<> {
      const Tracked local(ledger);
      HedgeOptions options;
      options.delay(Duration::never()).max_attempts(9);
      (void)co_await uncancellable(hedge(stuck, options));
    };
    EXPECT_THROW(simulator.run(program()), testing::DeadlockError);
    EXPECT_EQ(ledger.alive(), 0);
    EXPECT_EQ(calls, 2);
  }
}

// On real threads: the timer, failures and ends come at about the same moment.
TEST(AttemptsAcrossThreads, TimersFailuresAndEndsMeet) {
  WorkStealingExecutor executor({.threads = 4});
  Ledger ledger;
  auto program = [&]() -> Task<> {
    for (std::size_t round = 0; round < scaled(4000); ++round) {
      std::atomic<bool> calling{false};
      int called = 0;  // no atomic: calls do not overlap
      auto make = [&] {
        EXPECT_FALSE(calling.exchange(true));
        const int number = called++;
        calling.store(false);
        return attempt(ledger, (number + static_cast<int>(round)) % 5,
                       number < static_cast<int>(round % 6), number % 2 == 0);
      };
      HedgeOptions options;
      options.delay(std::chrono::microseconds(1 + round % 7)).max_attempts(5);
      const auto limit = std::chrono::microseconds(round % 4 == 3 ? 1 + round % 20 : 1'000'000);
      const auto result = co_await as_result(timeout(hedge(make, options), limit));
      EXPECT_LE(called, 5);
      const bool as_it_should =
          result.has_value() || result.is_timeout() || is<ExceptionGroup>(result.error());
      EXPECT_TRUE(as_it_should);
    }
  };
  executor.run(program());
  EXPECT_EQ(ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
