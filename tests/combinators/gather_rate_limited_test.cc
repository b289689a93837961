// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (when children begin, the rest is gather_limited_test)

// gather_rate_limited: a gather whose children begin at a rate.

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/rate_limiter.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;
using std::chrono::nanoseconds;

class GatherRateLimited : public OnMachine {};

Task<nanoseconds> start_time(Machine& machine, Duration work = {}) {
  const nanoseconds started = machine.elapsed();
  if (work != Duration()) co_await sleep_for(work);
  co_return started;
}

TEST_ON_THREADS(GatherRateLimited, ChildrenBeginInTheirOrderAtTheRate) {
  RateLimiter limiter(10, 3);
  machine.run([&]() -> Task<> {
    std::vector<Task<nanoseconds>> tasks;
    for (int i = 0; i < 23; ++i) tasks.push_back(start_time(machine, 5s));
    const std::vector<nanoseconds> starts = co_await gather_rate_limited(limiter, std::move(tasks));
    EXPECT_EQ(starts.size(), 23u);
    for (int i = 0; i < 23; ++i) {
      EXPECT_EQ(starts[static_cast<std::size_t>(i)], i < 3 ? 0ms : (i - 2) * 100ms) << i;
    }
  });
  // It limits starts, not what runs at the same time.
  EXPECT_EQ(machine.elapsed(), 2s + 5s);
}

TEST_ON_THREADS(GatherRateLimited, WhatWasDroppedUnstartedIsNotAwaitedAgain) {
  machine.run([&]() -> Task<> {
    RateLimiter limiter(0.001, 1);
    EXPECT_TRUE(limiter.try_acquire());
    Event event;
    auto both = gather_rate_limited(limiter, event.wait(), start_time(machine));
    auto await_it = [&]() -> Task<> { (void)co_await both; };
    auto result = co_await as_result(timeout(await_it(), 5ms));
    EXPECT_TRUE(result.is_timeout());
    result = co_await as_result(await_it());
    EXPECT_THROW(result.value(), std::logic_error);
  });
}

TEST_ON_THREADS(GatherRateLimited, LimiterIsSharedWithOthers) {
  RateLimiter limiter(10, 1);
  machine.run([&]() -> Task<> {
    auto some = [&](int n) -> Task<> {
      std::vector<Task<int>> tasks;
      for (int i = 0; i < n; ++i) tasks.push_back(give(i));
      std::vector<int> values = co_await gather_rate_limited(limiter, std::move(tasks));
      EXPECT_EQ(values.size(), static_cast<std::size_t>(n));
    };
    co_await gather(some(5), some(6));
    EXPECT_EQ(machine.elapsed(), 1s);  // eleven, the first at once
  });
}

TEST_ON_THREADS(GatherRateLimited, EmptyInputTakesNoToken) {
  RateLimiter limiter(1, 1);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> none;
    std::vector<int> values = co_await gather_rate_limited(limiter, std::move(none));
    EXPECT_TRUE(values.empty());
    std::tuple<> nothing = co_await gather_rate_limited(limiter);
    (void)nothing;
    EXPECT_TRUE(limiter.try_acquire());
  });
}

TEST_ON_THREADS(GatherRateLimited, OneElementAndEveryKindOfValue) {
  RateLimiter limiter(1000, 1);
  machine.run([&]() -> Task<> {
    std::vector<Task<MoveOnly>> one;
    one.push_back([]() -> Task<MoveOnly> { co_return MoveOnly(4); }());
    std::vector<MoveOnly> four = co_await gather_rate_limited(limiter, std::move(one));
    EXPECT_EQ(four.at(0).value(), 4);
    auto fixed = []() -> Task<NoDefault> { co_return NoDefault(5); };
    int here = 6;
    auto refer = [&]() -> Task<int&> { co_return here; };
    auto called = [] { return 7; };
    std::tuple<NoDefault, int&, int, std::monostate> pack =
        co_await gather_rate_limited(limiter, fixed(), refer(), called, nothing());
    EXPECT_EQ(std::get<0>(pack).value, 5);
    EXPECT_EQ(&std::get<1>(pack), &here);
    EXPECT_EQ(std::get<2>(pack), 7);
    std::vector<Task<>> nothings;
    for (int i = 0; i < 4; ++i) nothings.push_back(nothing_after(1ms));
    co_await gather_rate_limited(limiter, std::move(nothings));
  });
}

TEST_ON_THREADS(GatherRateLimited, OperationsAndHandlesAreChildrenToo) {
  RateLimiter limiter(10, 1);
  machine.run([&]() -> Task<> {
    using Sleep = decltype(sleep_for(1s));
    std::vector<Sleep> sleeps;
    for (int i = 0; i < 3; ++i) sleeps.push_back(sleep_for(50ms));
    co_await gather_rate_limited(limiter, std::move(sleeps));
    EXPECT_EQ(machine.elapsed(), 250ms);
    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 3; ++i) handles.push_back(executor.spawn(give(i)));
    co_await as_result(handles.back());
    std::vector<int> values = co_await gather_rate_limited(limiter, handles);
    EXPECT_EQ(values, (std::vector<int>{0, 1, 2}));
    EXPECT_EQ(machine.elapsed(), 500ms);
  });
}

TEST_ON_THREADS(GatherRateLimited, FirstErrorCancelsTheSiblingsAndKeepsTheRestFromBeginning) {
  RateLimiter limiter(10, 2);
  std::atomic<int> began{0};
  machine.run([&]() -> Task<> {
    auto child = [&](int i) -> Task<int> {
      ++began;
      return i == 2 ? fail_after(10ms, "third") : never();
    };
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 10; ++i) {
      tasks.push_back([](auto& make, int n) -> Task<int> { co_return co_await make(n); }(child, i));
    }
    auto all = gather_rate_limited(limiter, std::move(tasks));
    Result<std::vector<int>> r = co_await as_result(std::move(all));
    EXPECT_EQ(what_of(r.error()), "third");
  });
  EXPECT_EQ(began.load(), 3);
  EXPECT_EQ(machine.elapsed(), 110ms);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(GatherRateLimited, AllErrorsTheFirstIsThrown) {
  RateLimiter limiter(10, 4);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 4; ++i) tasks.push_back(fail_after(1ms * (4 - i), std::to_string(i)));
    auto all = gather_rate_limited(limiter, std::move(tasks));
    Result<std::vector<int>> r = co_await as_result(std::move(all));
    EXPECT_EQ(what_of(r.error()), "3");
  });
}

TEST_ON_THREADS(GatherRateLimited, OtherPoliciesOfGather) {
  RateLimiter limiter(10, 1);
  machine.run([&]() -> Task<> {
    bool ran = false;
    auto going =
        gather_rate_limited(keep_going, limiter, fail("first"), fail("second"), started(ran));
    Result<std::tuple<int, int, int>> r = co_await as_result(std::move(going));
    EXPECT_EQ(what_of(r.error()), "first");
    EXPECT_TRUE(ran);
    std::vector<Task<int>> tasks;
    tasks.push_back(give(1));
    tasks.push_back(fail("e"));
    std::vector<Result<int>> results =
        co_await gather_rate_limited(return_exceptions, limiter, std::move(tasks));
    EXPECT_EQ(results.at(0).value(), 1);
    EXPECT_EQ(what_of(results.at(1).error()), "e");
    EXPECT_EQ(machine.elapsed(), 400ms);
    int values = 0;
    int cancelled = 0;
    auto body = [&]() -> Task<> {
      std::vector<Task<int>> many;
      for (int i = 0; i < 5; ++i) many.push_back(give(i));
      std::vector<Result<int>> all =
          co_await gather_rate_limited(return_exceptions, limiter, std::move(many));
      for (const Result<int>& result : all) ++(result.has_value() ? values : cancelled);
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(250ms);
    handle.cancel();
    co_await handle;  // it returns its results; the next cancellation point would throw
    EXPECT_EQ(values, 2);
    EXPECT_EQ(cancelled, 3);
  });
}

TEST_ON_THREADS(GatherRateLimited, CancelledFromOutsideNothingMoreBegins) {
  RateLimiter limiter(10, 1);
  std::atomic<int> began{0};
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto child = [&](Tracked) -> Task<int> {
      ++began;
      co_return co_await never();
    };
    auto body = [&]() -> Task<> {
      std::vector<Task<int>> tasks;
      for (int i = 0; i < 100; ++i) tasks.push_back(child(Tracked(ledger)));
      co_await gather_rate_limited(limiter, std::move(tasks));
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(450ms);
    handle.cancel("outside");
    Result<void> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
  });
  EXPECT_EQ(began.load(), 5);
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_EQ(machine.elapsed(), 450ms);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(GatherRateLimited, StartsNothingInACancelledScope) {
  RateLimiter limiter(10, 1);
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      auto all = gather_rate_limited(limiter, started(ran), started(ran));
      Result<std::tuple<int, int>> r = co_await as_result(std::move(all));
      EXPECT_TRUE(r.is_cancelled());
    };
    co_await cancel_scope(block);
    EXPECT_TRUE(limiter.try_acquire());
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(GatherRateLimited, TimeoutAroundIt) {
  RateLimiter limiter(10, 1);
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 100; ++i) tasks.push_back(give(i));
    auto all = gather_rate_limited(limiter, std::move(tasks));
    Result<std::vector<int>> r = co_await try_timeout(std::move(all), 1s);
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(GatherRateLimited, NeverStartedItFreesItsTasks) {
  RateLimiter limiter(10, 1);
  Ledger ledger;
  auto child = [&](Tracked) -> Task<int> { co_return 1; };
  {
    auto all = gather_rate_limited(limiter, child(Tracked(ledger)), child(Tracked(ledger)));
    auto moved = std::move(all);
  }
  EXPECT_GT(ledger.total(), 0);
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_TRUE(limiter.try_acquire());
}

TEST_ON_THREADS(GatherRateLimited, ResumesWhereItWasAwaited) {
  RateLimiter limiter(1000, 1);
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    auto away = [&]() -> Task<> { co_await resume_on(other); };
    co_await gather_rate_limited(limiter, away(), away(), away());
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(GatherRateLimited, HundredThousandChildren) {
  const std::size_t many = scaled(100'000);
  machine.run([&]() -> Task<> {
    RateLimiter flood(1e9, 1000);
    std::vector<Task<int>> tasks;
    for (std::size_t i = 0; i < many; ++i) tasks.push_back(give(1));
    const std::vector<int> ones = co_await gather_rate_limited(flood, std::move(tasks));
    EXPECT_EQ(ones.size(), many);
    RateLimiter drip(1, 1000);
    std::vector<Task<int>> waiting;
    for (std::size_t i = 0; i < many; ++i) waiting.push_back(never());
    auto all = gather_rate_limited(drip, std::move(waiting));
    Result<std::vector<int>> r = co_await try_timeout(std::move(all), 10s);
    EXPECT_TRUE(r.is_timeout());
  });
}

// --- at any moment -------------------------------------------------------------------------------

// A child fails or the whole is cancelled at some step: every child that began has ended, no other
// one begins, and no frame is left.
template <class E>
void end_somewhere(E& executor, std::uint64_t seed) {
  Ledger ledger;
  std::atomic<int> running{0};
  std::atomic<int> began{0};
  RateLimiter limiter(1'000'000, 2);
  const int failing = static_cast<int>(seed % 9);
  auto child = [&](int i, Tracked) -> Task<int> {
    ++began;
    ++running;
    Result<void> slept = co_await as_result(sleep_for(std::chrono::microseconds(i % 3)));
    --running;
    if (i == failing) throw std::runtime_error("this one");
    std::move(slept).value();
    co_return i;
  };
  auto main = [&]() -> Task<> {
    auto body = [&]() -> Task<std::size_t> {
      std::vector<Task<int>> tasks;
      for (int i = 0; i < 8; ++i) tasks.push_back(child(i, Tracked(ledger)));
      std::vector<int> values = co_await gather_rate_limited(limiter, std::move(tasks));
      co_return values.size();
    };
    JoinHandle<std::size_t> handle = spawn(body());
    for (std::uint64_t i = 0; i < seed % 23; ++i) co_await this_task::yield();
    if (seed % 2 == 0) handle.cancel();
    Result<std::size_t> r = co_await as_result(handle);
    if (r.has_value()) {
      EXPECT_EQ(r.value(), 8u);
    } else if (!r.is_cancelled()) {
      EXPECT_EQ(what_of(r.error()), "this one");
    }
    EXPECT_EQ(running.load(), 0);
    EXPECT_EQ(ledger.alive(), 0);
    const int so_far = began.load();
    co_await this_task::yield();
    EXPECT_EQ(began.load(), so_far);
  };
  executor.run(main());
}

TEST(GatherRateLimitedInASimulation, EndsCleanlyAtEveryStep) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    end_somewhere(executor, executor.seed());
    if (executor.stats().pending_timers != 0) throw std::runtime_error("a timer was left");
    if (::testing::Test::HasFailure()) throw std::runtime_error("see above");
  });
}

TEST(GatherRateLimitedInASimulation, DeadlockBehindAMaskIsTakenApart) {
  testing::SimulatedExecutor executor;
  RateLimiter drip(1e-300, 1);
  Ledger ledger;
  auto child = [&](Tracked) -> Task<int> { co_return 1; };
  auto main = [&]() -> Task<> {
    auto all = gather_rate_limited(drip, child(Tracked(ledger)), child(Tracked(ledger)),
                                   child(Tracked(ledger)));
    co_await uncancellable(std::move(all));
  };
  EXPECT_THROW(executor.run(main()), testing::DeadlockError);
  EXPECT_EQ(ledger.alive(), 0);
}

TEST(GatherRateLimitedAcrossThreads, EndsCleanlyAtAnyTime) {
  WorkStealingExecutor workers({.threads = 3});
  for (std::uint64_t i = 0; i < scaled(3000); ++i) end_somewhere(workers, i);
}

}  // namespace
}  // namespace magpie
