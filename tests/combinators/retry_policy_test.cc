// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (numbers, the rest is retry_test)

// Pauses, jitter, predicates and budgets of retry, exact in virtual time; and retries that are
// cancelled at any moment.

#include <magpie/retry.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/gather.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;
using std::chrono::nanoseconds;

class RetryPolicyTest : public OnMachine {};

/// The pauses between the attempts of a retry that never succeeds: as it was told, and as it took.
struct Pauses {
  std::vector<nanoseconds> told;
  std::vector<nanoseconds> taken;
};
Task<Pauses> pauses_of(RetryPolicy policy) {
  Pauses pauses;
  std::vector<Deadline> starts;
  auto factory = [&]() -> Task<> {
    starts.push_back(co_await this_task::now());
    throw std::runtime_error("again");
  };
  policy.on_retry([&](const RetryEvent& event) { pauses.told.push_back(event.delay); });
  Result<void> r = co_await as_result(retry(factory, std::move(policy)));
  EXPECT_EQ(what_of(r.error()), "again");
  for (std::size_t i = 1; i < starts.size(); ++i) pauses.taken.push_back(starts[i] - starts[i - 1]);
  EXPECT_EQ(pauses.told, pauses.taken);
  co_return pauses;
}
std::vector<nanoseconds> taken(Machine& machine, std::size_t attempts, const Backoff& backoff) {
  return machine.executor.run(pauses_of(RetryPolicy().max_attempts(attempts).backoff(backoff)))
      .taken;
}
using Expected = std::vector<nanoseconds>;

// --- pauses --------------------------------------------------------------------------------------

TEST_ON_THREADS(RetryPolicyTest, PausesAreExact) {  // B180
  EXPECT_EQ(taken(machine, 4, Backoff::none()), (Expected{0ns, 0ns, 0ns}));
  EXPECT_EQ(taken(machine, 4, Backoff()), (Expected{0ns, 0ns, 0ns}));
  EXPECT_EQ(taken(machine, 4, Backoff::constant(70ms)), (Expected{70ms, 70ms, 70ms}));
  EXPECT_EQ(taken(machine, 5, Backoff::linear(1s)), (Expected{1s, 2s, 3s, 4s}));
  EXPECT_EQ(taken(machine, 7, Backoff::exponential(100ms, 2, 1s)),
            (Expected{100ms, 200ms, 400ms, 800ms, 1s, 1s}));
  EXPECT_EQ(taken(machine, 5, Backoff::exponential(100ms, 1.1, 1s)),
            (Expected{100ms, 110ms, 121ms, 133'100us}));
  EXPECT_EQ(taken(machine, 4, Backoff::exponential(3s, 10, 2s)), (Expected{2s, 2s, 2s}));
  EXPECT_EQ(taken(machine, 4, Backoff::exponential(1s)), (Expected{1s, 2s, 4s}));
}

TEST(Backoff, PausesDoNotOverflow) {
  constexpr std::size_t many = std::numeric_limits<std::size_t>::max();
  EXPECT_EQ(Backoff::exponential(1s, 2, 1h).pause_after(many), Duration(1h));
  EXPECT_EQ(Backoff::exponential(1s, 1e300, 1h).pause_after(2), Duration(1h));
  EXPECT_TRUE(Backoff::exponential(1s, 2).pause_after(many).is_never());
  EXPECT_EQ(Backoff::exponential(1s, 1).pause_after(many), Duration(1s));
  EXPECT_EQ(Backoff::exponential(0s, 2).pause_after(many), Duration());
  EXPECT_TRUE(Backoff::linear(1s).pause_after(many).is_never());
  EXPECT_EQ(Backoff::linear(1s).pause_after(1'000'000), Duration(1'000'000s));
  EXPECT_TRUE(Backoff::constant(Duration::never()).pause_after(3).is_never());
  EXPECT_EQ(Backoff::constant(-5s).pause_after(3), Duration());
  EXPECT_EQ(Backoff::exponential(1ns, 2).pause_after(62),
            Duration(nanoseconds(std::int64_t{1} << 61)));
}

TEST(Backoff, FactorsThatMakeNoSense) {
  for (const double factor : {0.5, 0.0, -2.0, std::numeric_limits<double>::infinity(),
                              std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW((void)Backoff::exponential(1s, factor, 1h), std::invalid_argument) << factor;
  }
}

TEST(Backoff, DecorrelatedJitterNeedsABaseAndAMaximum) {
  EXPECT_THROW(Backoff::constant(1s).jitter(Jitter::decorrelated), std::invalid_argument);
  EXPECT_THROW(Backoff::linear(1s).jitter(Jitter::decorrelated), std::invalid_argument);
  EXPECT_THROW(Backoff::none().jitter(Jitter::decorrelated), std::invalid_argument);
  EXPECT_NO_THROW(Backoff::exponential(1s, 2, 1h).jitter(Jitter::decorrelated));
}

// --- jitter --------------------------------------------------------------------------------------

// Within the bounds, and reaching close to both of them.
void expect_fills(const std::vector<nanoseconds>& values, nanoseconds least, nanoseconds most) {
  ASSERT_FALSE(values.empty());
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  EXPECT_GE(*low, least);
  EXPECT_LE(*high, most);
  const nanoseconds tenth = (most - least) / 10;
  EXPECT_LE(*low, least + tenth);
  EXPECT_GE(*high, most - tenth);
}

TEST_ON_THREADS(RetryPolicyTest, FullAndEqualJitterStayWithinTheirBounds) {  // B180
  expect_fills(taken(machine, 200, Backoff::constant(1s).jitter(Jitter::full)), 0s, 1s);
  expect_fills(taken(machine, 200, Backoff::constant(1s).jitter(Jitter::equal)), 500ms, 1s);
  const auto growing = taken(machine, 5, Backoff::exponential(1s, 2, 1h).jitter(Jitter::equal));
  for (std::size_t i = 0; i < growing.size(); ++i) {
    EXPECT_GE(growing[i], 500ms * (1 << i));
    EXPECT_LE(growing[i], 1s * (1 << i));
  }
  EXPECT_EQ(taken(machine, 3, Backoff::none().jitter(Jitter::full)), (Expected{0ns, 0ns}));
  EXPECT_EQ(taken(machine, 3, Backoff::constant(1ns).jitter(Jitter::equal)), (Expected{1ns, 1ns}));
}

TEST_ON_THREADS(RetryPolicyTest, DecorrelatedJitterDrawsFromThePauseBefore) {
  std::vector<nanoseconds> first;
  for (int round = 0; round < 100; ++round) {
    const auto pauses =
        taken(machine, 12, Backoff::exponential(100ms, 2, 5s).jitter(Jitter::decorrelated));
    nanoseconds before = 100ms;
    for (const nanoseconds pause : pauses) {
      EXPECT_GE(pause, 100ms);
      EXPECT_LE(pause, std::min<nanoseconds>(5s, 3 * before));
      before = pause;
    }
    first.push_back(pauses.front());
  }
  expect_fills(first, 100ms, 300ms);
  EXPECT_EQ(taken(machine, 3, Backoff::exponential(3s, 2, 2s).jitter(Jitter::decorrelated)),
            (Expected{2s, 2s}));
  // Without a maximum it goes on for as long as the clock can count.
  const auto long_ones =
      taken(machine, 30, Backoff::exponential(1ns, 2).jitter(Jitter::decorrelated));
  EXPECT_EQ(long_ones.size(), 29u);
}

TEST_ON_THREADS(RetryPolicyTest, JitterIsDrawnAnewForEachCall) {
  RetryPolicy policy;
  policy.max_attempts(2).backoff(Backoff::constant(1h).jitter(Jitter::full));
  std::set<nanoseconds> different;
  for (int i = 0; i < 20; ++i) different.insert(executor.run(pauses_of(policy)).taken.front());
  EXPECT_EQ(different.size(), 20u);
}

TEST_ON_THREADS(RetryPolicyTest, SeedMakesTheJitterTheSame) {
  RetryPolicy policy;
  policy.max_attempts(6).backoff(Backoff::constant(1h).jitter(Jitter::full)).seed(42);
  const auto once = executor.run(pauses_of(policy)).taken;
  EXPECT_EQ(executor.run(pauses_of(policy)).taken, once);
  EXPECT_NE(executor.run(pauses_of(policy.seed(43))).taken, once);
}

TEST(RetryInASimulation, JitterFollowsFromTheSeed) {
  const auto pauses = [](std::uint64_t seed) {
    testing::SimulatedExecutor executor(seed);
    RetryPolicy policy;
    policy.max_attempts(6).backoff(Backoff::constant(1h).jitter(Jitter::full));
    return executor.run(pauses_of(policy)).taken;
  };
  EXPECT_EQ(pauses(1), pauses(1));
  EXPECT_NE(pauses(1), pauses(2));
}

// --- predicates and events -----------------------------------------------------------------------

TEST_ON_THREADS(RetryPolicyTest, RetryIfDecidesAndSeesTheError) {  // B178
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto factory = [&]() -> Task<int> {
      ++calls;
      if (calls == 3) throw std::logic_error("fatal");
      throw std::runtime_error("passing");
    };
    std::vector<std::string> asked;
    RetryPolicy policy;
    policy.max_attempts(10).retry_if([&](const std::exception_ptr& error) {
      asked.push_back(what_of(error));
      return is<std::runtime_error>(error);
    });
    Result<int> r = co_await as_result(retry(factory, policy));
    EXPECT_EQ(what_of(r.error()), "fatal");
    EXPECT_EQ(calls, 3);
    EXPECT_EQ(asked, (std::vector<std::string>{"passing", "passing", "fatal"}));
    asked.clear();
    Result<int> one = co_await as_result(retry(factory, policy.max_attempts(1)));
    EXPECT_EQ(what_of(one.error()), "passing");
    EXPECT_TRUE(asked.empty());  // there was nothing to decide
  });
}

TEST_ON_THREADS(RetryPolicyTest, OnRetryIsToldOfEachRetryBeforeItsPause) {
  machine.run([&]() -> Task<> {
    const Deadline start = co_await this_task::now();
    int calls = 0;
    auto factory = [&]() -> Task<int> {
      co_await sleep_for(10ms);
      throw std::runtime_error("attempt " + std::to_string(++calls));
    };
    std::vector<std::string> events;
    std::vector<nanoseconds> at;
    RetryPolicy policy;
    policy.max_attempts(3).backoff(Backoff::linear(1s)).on_retry([&](const RetryEvent& e) {
      events.push_back(std::to_string(e.attempt) + ": " + what_of(e.error) + ", " +
                       std::to_string(e.delay.count()));
      at.push_back(machine.clock.now() - start);
    });
    Result<int> r = co_await as_result(retry(factory, policy));
    EXPECT_EQ(what_of(r.error()), "attempt 3");
    EXPECT_EQ(events,
              (std::vector<std::string>{"1: attempt 1, 1000000000", "2: attempt 2, 2000000000"}));
    EXPECT_EQ(at, (Expected{10ms, 1020ms}));
  });
}

TEST_ON_THREADS(RetryPolicyTest, WhatCallbacksThrowEndsTheRetry) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto factory = [&]() -> Task<int> {
      ++calls;
      return fail("of the task");
    };
    RetryPolicy asks;
    asks.retry_if([](const std::exception_ptr&) -> bool { throw std::logic_error("of retry_if"); });
    Result<int> a = co_await as_result(retry(factory, asks));
    EXPECT_EQ(what_of(a.error()), "of retry_if");
    RetryPolicy tells;
    tells.on_retry([](const RetryEvent&) { throw std::logic_error("of on_retry"); });
    Result<int> b = co_await as_result(retry(factory, tells));
    EXPECT_EQ(what_of(b.error()), "of on_retry");
    EXPECT_EQ(calls, 2);
  });
}

TEST_ON_THREADS(RetryPolicyTest, PolicyIsAValueThatCanBeUsedAgain) {
  int events = 0;
  const RetryPolicy policy =
      RetryPolicy().max_attempts(2).on_retry([&](const RetryEvent&) { ++events; });
  machine.run([&]() -> Task<> {
    auto factory = [] { return fail("e"); };
    for (int i = 0; i < 3; ++i) {
      Result<int> r = co_await as_result(retry(factory, policy));
      EXPECT_EQ(what_of(r.error()), "e");
    }
  });
  EXPECT_EQ(events, 3);
}

// --- budgets -------------------------------------------------------------------------------------

TEST(RetryBudgetTest, NumbersThatMakeNoSense) {
  for (const double ratio :
       {-0.1, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(RetryBudget(ratio, 1), std::invalid_argument) << ratio;
  }
  EXPECT_EQ(RetryBudget(0.1, 7).available(), 7u);
  EXPECT_EQ(RetryBudget(0, 0).available(), 0u);
  EXPECT_GE(RetryBudget(1e300, SIZE_MAX).available(), 9'000'000'000u);
}

TEST_ON_THREADS(RetryPolicyTest, WhatWasWithdrawnIsPutBackIfOnRetryThrows) {
  RetryBudget budget(0, 1);
  auto bad = [] { return fail("bad"); };
  auto on_retry = [](const RetryEvent&) { throw std::runtime_error("enough"); };
  machine.run([&]() -> Task<> {
    Result<int> result =
        co_await as_result(retry(bad, RetryPolicy().budget(budget).on_retry(on_retry)));
    EXPECT_EQ(what_of(result.error()), "enough");
    EXPECT_EQ(budget.available(), 1u);
  });
}

TEST_ON_THREADS(RetryPolicyTest, BudgetIsSpentThenEarnedByFirstAttempts) {
  RetryBudget budget(0.1, 2);
  int calls = 0;
  auto bad = [&]() -> Task<int> {
    ++calls;
    return fail("bad");
  };
  auto good = [] { return give(1); };
  machine.run([&]() -> Task<> {
    const RetryPolicy policy = RetryPolicy().max_attempts(10).budget(budget);
    Result<int> first = co_await as_result(retry(bad, policy));
    EXPECT_EQ(what_of(first.error()), "bad");
    EXPECT_EQ(calls, 3);  // it began full, so the deposit changed nothing: two retries
    EXPECT_EQ(budget.available(), 0u);
    calls = 0;
    for (int i = 0; i < 9; ++i) co_await retry(good, policy);
    EXPECT_EQ(budget.available(), 0u);
    Result<int> tenth = co_await as_result(retry(bad, policy));  // ten deposits of a tenth
    EXPECT_EQ(what_of(tenth.error()), "bad");
    EXPECT_EQ(calls, 2);
    for (int i = 0; i < 1000; ++i) co_await retry(good, policy);
    EXPECT_EQ(budget.available(), 2u);  // its cap
  });
}

TEST_ON_THREADS(RetryPolicyTest, BudgetPaysForRetriesThatAreMadeOnly) {
  RetryBudget budget(0, 5);
  auto bad = [] { return fail("bad"); };
  machine.run([&]() -> Task<> {
    RetryPolicy policy;
    policy.budget(budget);
    co_await as_result(retry(bad, policy.max_attempts(1)));
    EXPECT_EQ(budget.available(), 5u);
    co_await as_result(retry(bad, RetryPolicy(policy).max_attempts(9).retry_if(
                                      [](const std::exception_ptr&) { return false; })));
    EXPECT_EQ(budget.available(), 5u);
    co_await as_result(retry(
        bad, RetryPolicy(policy).max_attempts(9).total_timeout(1s).backoff(Backoff::constant(2s))));
    EXPECT_EQ(budget.available(), 5u);
    JoinHandle<int> handle = executor.spawn(
        retry(bad, RetryPolicy(policy).max_attempts(9).backoff(Backoff::constant(1h))));
    co_await sleep_for(1s);
    EXPECT_EQ(budget.available(), 4u);
    handle.cancel();
    co_await as_result(handle);
    EXPECT_EQ(budget.available(), 5u);
  });
}

TEST(RetryBudgetTest, ManyThreadsSpendExactlyWhatThereIs) {
  WorkStealingExecutor workers({.threads = 4});
  RetryBudget budget(0, 1000);
  std::atomic<int> calls{0};
  auto bad = [&]() -> Task<int> {
    calls.fetch_add(1, std::memory_order_relaxed);
    return fail("bad");
  };
  auto body = [&]() -> Task<> {
    for (int i = 0; i < 50; ++i) {
      co_await as_result(retry(bad, RetryPolicy().max_attempts(4).budget(budget)));
    }
  };
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 8; ++i) handles.push_back(workers.spawn(body()));
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  EXPECT_EQ(calls.load(), 8 * 50 + 1000);
  EXPECT_EQ(budget.available(), 0u);
}

// --- at any moment -------------------------------------------------------------------------------

// Whenever the cancellation comes: either the value had been there, or no attempt begins
// afterwards.
template <class E>
void cancel_somewhere(E& executor, int after_steps) {
  std::atomic<int> calls{0};
  std::atomic<bool> ended{false};
  bool begun_after_end = false;
  auto factory = [&]() -> Task<int> {
    if (ended.load()) begun_after_end = true;
    const int call = ++calls;
    co_await this_task::yield();
    if (call < 4) throw std::runtime_error("again");
    co_return call;
  };
  auto main = [&]() -> Task<> {
    JoinHandle<int> handle = spawn(retry(factory, RetryPolicy().max_attempts(5)));
    for (int i = 0; i < after_steps; ++i) co_await this_task::yield();
    handle.cancel("now");
    Result<int> r = co_await as_result(handle);
    ended = true;
    const int so_far = calls.load();
    if (r.has_value()) {
      EXPECT_EQ(r.value(), 4);
    } else if (!r.is_cancelled()) {
      EXPECT_EQ(what_of(r.error()), "again");  // an attempt that failed after the cancellation
      EXPECT_LT(so_far, 4);
    }
    for (int i = 0; i < 5; ++i) co_await this_task::yield();
    EXPECT_EQ(calls.load(), so_far);
  };
  executor.run(main());
  EXPECT_FALSE(begun_after_end);
}

TEST(RetryInASimulation, CancelledAtAnyStepItNeverTriesAgain) {  // B179
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    cancel_somewhere(executor, static_cast<int>(executor.seed() % 16));
    if (::testing::Test::HasFailure()) throw std::runtime_error("see above");
  });
}

TEST(RetryAcrossThreads, CancelledAtAnyTimeItNeverTriesAgain) {  // B179
  WorkStealingExecutor workers({.threads = 3});
  for (int i = 0; i < static_cast<int>(scaled(4000)); ++i) cancel_somewhere(workers, i % 12);
}

TEST(RetryAcrossThreads, TimeoutsOfAttemptsCrossTheirEnds) {
  WorkStealingExecutor workers({.threads = 3});
  std::atomic<int> running{0};
  auto factory = [&]() -> Task<int> {
    running.fetch_add(1);
    Result<void> slept = co_await as_result(sleep_for(std::chrono::microseconds(50)));
    running.fetch_sub(1);
    std::move(slept).value();
    co_return 1;
  };
  auto body = [&](int n) -> Task<int> {
    int values = 0;
    for (int i = 0; i < static_cast<int>(scaled(400)); ++i) {
      const auto limit = std::chrono::microseconds(20 + (i * 7 + n) % 200);
      Result<int> r = co_await as_result(retry(
          factory, RetryPolicy().max_attempts(2).attempt_timeout(limit).total_timeout(500us)));
      EXPECT_TRUE(r.has_value() || r.is_timeout());
      if (r.has_value()) ++values;
    }
    co_return values;
  };
  std::vector<JoinHandle<int>> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(workers.spawn(body(i)));
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  EXPECT_EQ(running.load(), 0);
}

// --- what the factory is: the loop does not know its type ----------------------------------------

int g_function_calls = 0;
Task<int> fails_once() {
  if (++g_function_calls == 1) throw std::runtime_error("first");
  co_return g_function_calls;
}

TEST_ON_THREADS(RetryPolicyTest, FactoryIsAFunctionOrAPointerToOne) {
  machine.run([&]() -> Task<> {
    g_function_calls = 0;
    const int by_name = co_await retry(fails_once);
    EXPECT_EQ(by_name, 2);
    g_function_calls = 0;
    const int by_pointer = co_await retry(&fails_once);
    EXPECT_EQ(by_pointer, 2);
    g_function_calls = 0;
    const auto pointer = &fails_once;
    const int by_kept_pointer = co_await retry(pointer);
    EXPECT_EQ(by_kept_pointer, 2);
  });
}

TEST_ON_THREADS(RetryPolicyTest, SmallFactoryThatIsMovedInKeepsItsStateWhereverTheRetryIsMoved) {
  machine.run([&]() -> Task<> {
    auto factory = [calls = 0]() mutable -> Task<int> {
      ++calls;
      co_await sleep_for(1ms);  // the closure is used after a suspension
      if (calls < 3) throw std::runtime_error("again");
      co_return calls;
    };
    Task<int> retries = retry(std::move(factory));
    Task<int> moved = std::move(retries);
    const int value = co_await std::move(moved);
    EXPECT_EQ(value, 3);
  });
}

TEST_ON_THREADS(RetryPolicyTest, LargeFactoryThatCannotBeCopiedIsMovedInAndFreedOnce) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&] {
      auto factory = [kept = Tracked(ledger), own = std::make_unique<int>(0),
                      room = std::array<char, 200>()]() -> Task<int> {
        kept.touch();
        if (++*own < 3) throw std::runtime_error("again");
        co_return *own + room[199];
      };
      return retry(std::move(factory));
    };
    const int value = co_await make();
    EXPECT_EQ(value, 3);
    {
      auto never_awaited = make();
    }
    EXPECT_EQ(ledger.alive(), 0);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(RetryPolicyTest, FactoryMayBeConst) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    const auto factory = [&]() -> Task<int> {
      if (++calls == 1) throw std::runtime_error("first");
      co_return calls;
    };
    const int value = co_await retry(factory);
    EXPECT_EQ(value, 2);
    auto again = retry(std::move(factory));  // a const rvalue
    const int more = co_await std::move(again);
    EXPECT_EQ(more, 3);
    const auto owner = [&calls, text = std::string("four")]() -> Task<std::size_t> {
      ++calls;
      co_return text.size();
    };
    auto owned = retry(std::move(owner));  // one that is kept elsewhere, as it is no plain bytes
    const std::size_t size = co_await std::move(owned);
    EXPECT_EQ(size, 4U);
  });
}

}  // namespace
}  // namespace magpie
