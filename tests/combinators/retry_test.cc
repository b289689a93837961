// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// retry and retry_with_timeout: what api.md, section 6, says of attempts, deadlines and
// cancellation. Pauses, jitter and budgets: retry_policy_test.cc.

#include <magpie/retry.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/testing/simulated_executor.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class Retry : public OnMachine {};

Task<int> fails_before(int& calls, int good) {
  ++calls;
  if (calls < good) throw std::runtime_error("attempt " + std::to_string(calls));
  co_return calls;
}

// --- attempts ------------------------------------------------------------------------------------

TEST_ON_THREADS(Retry, SuccessAtOnceIsOneCallAndNoPause) {  // B176
  int calls = 0;
  int events = 0;
  auto factory = [&] { return fails_before(calls, 1); };
  machine.run([&]() -> Task<> {
    const int value = co_await retry(
        factory, RetryPolicy().backoff(Backoff::constant(1s)).on_retry([&](const RetryEvent&) {
          ++events;
        }));
    EXPECT_EQ(value, 1);
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(events, 0);
  EXPECT_EQ(machine.elapsed(), 0s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Retry, FirstErrorIsForgottenWhenALaterAttemptSucceeds) {
  int calls = 0;
  auto factory = [&] { return fails_before(calls, 3); };
  machine.run([&]() -> Task<> {
    const int value = co_await retry(factory, RetryPolicy().backoff(Backoff::constant(1s)));
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Retry, WhenAllAttemptsFailTheLastErrorIsThrown) {  // B177
  int calls = 0;
  auto factory = [&] { return fails_before(calls, 1000); };
  machine.run([&]() -> Task<> {
    Result<int> three = co_await as_result(retry(factory));  // the default
    EXPECT_EQ(what_of(three.error()), "attempt 3");
    Result<int> seven = co_await as_result(retry(factory, RetryPolicy().max_attempts(7)));
    EXPECT_EQ(what_of(seven.error()), "attempt 10");
    Result<int> one = co_await as_result(retry(factory, RetryPolicy().max_attempts(1)));
    EXPECT_EQ(what_of(one.error()), "attempt 11");
  });
  EXPECT_EQ(calls, 11);
  EXPECT_EQ(machine.elapsed(), 0s);
}

TEST_ON_THREADS(Retry, NoAttemptsAtAllAreMisuse) {
  int calls = 0;
  auto factory = [&] { return fails_before(calls, 1); };
  machine.run([&]() -> Task<> {
    Result<int> none = co_await as_result(retry(factory, RetryPolicy().max_attempts(0)));
    EXPECT_TRUE(is<std::invalid_argument>(none.error()));
    Result<int> timed = co_await as_result(retry_with_timeout(factory, 0, 1s));
    EXPECT_TRUE(is<std::invalid_argument>(timed.error()));
  });
  EXPECT_EQ(calls, 0);
}

TEST_ON_THREADS(Retry, FactoryThatThrowsIsAFailedAttempt) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    if (++calls < 3) throw std::runtime_error("no task");
    return give(calls);
  };
  machine.run([&]() -> Task<> {
    const int value = co_await retry(factory);
    EXPECT_EQ(value, 3);
    calls = -10;
    Result<int> never_one = co_await as_result(retry(factory));
    EXPECT_EQ(what_of(never_one.error()), "no task");
  });
}

TEST_ON_THREADS(Retry, EveryKindOfValue) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    const auto may_fail = [&] {
      if (++calls % 2 == 1) throw std::runtime_error("odd");
    };
    auto moved = [&]() -> Task<MoveOnly> {
      may_fail();
      co_return MoveOnly(5);
    };
    MoveOnly five = co_await retry(moved);
    EXPECT_EQ(five.value(), 5);
    auto fixed = [&]() -> Task<NoDefault> {
      may_fail();
      co_return NoDefault(6);
    };
    NoDefault six = co_await retry(fixed);
    EXPECT_EQ(six.value, 6);
    int here = 7;
    auto refer = [&]() -> Task<int&> {
      may_fail();
      co_return here;
    };
    int& seven = co_await retry(refer);
    EXPECT_EQ(&seven, &here);
    auto nothing_much = [&]() -> Task<> {
      may_fail();
      co_return;
    };
    co_await retry(nothing_much);
    EXPECT_EQ(calls, 8);
  });
}

TEST_ON_THREADS(Retry, FactoriesMayGiveAnyAwaitable) {
  machine.run([&]() -> Task<> {
    auto sleeps = [] { return sleep_for(1s); };
    co_await retry(sleeps);
    JoinHandle<int> handle = executor.spawn(give_after(1s, 4));
    auto same = [&] { return handle; };
    const int four = co_await retry(same);
    EXPECT_EQ(four, 4);
    auto both = [] { return gather(give(1), give(2)); };
    std::tuple<int, int> pair = co_await retry(both);
    EXPECT_EQ(pair, std::tuple(1, 2));
    std::function<Task<int>()> stored = [] { return give(8); };
    const int eight = co_await retry(stored);
    EXPECT_EQ(eight, 8);
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Retry, FactoryLivesUntilTheRetryHasEnded) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&] {
      auto factory = [kept = Tracked(ledger), calls = 0]() mutable -> Task<int> {
        co_await sleep_for(1ms);  // the closure is used after a suspension
        kept.touch();
        if (++calls < 3) throw std::runtime_error("again");
        co_return calls;
      };
      return retry(std::move(factory));
    };
    auto started_later = make();
    co_await sleep_for(1s);
    const int value = co_await std::move(started_later);
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(Retry, FactoryGivenAsAnLvalueIsCalledInPlace) {
  struct Counter {
    int calls = 0;
    Counter() = default;
    Counter(const Counter&) = delete;
    Task<int> operator()() {
      if (++calls < 2) return fail("first");
      return give(calls);
    }
  };
  Counter counter;
  machine.run([&]() -> Task<> {
    const int value = co_await retry(counter);
    EXPECT_EQ(value, 2);
  });
  EXPECT_EQ(counter.calls, 2);
}

TEST_ON_THREADS(Retry, AttemptsNeverOverlapAndEachHasEnded) {
  int running = 0;
  int most = 0;
  auto factory = [&]() -> Task<int> {
    most = std::max(most, ++running);
    Result<int> waited = co_await as_result(never());
    co_await uncancellable(sleep_for(5s));  // a slow cleanup
    --running;
    std::move(waited).value();
    co_return 0;
  };
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(retry(factory, RetryPolicy().attempt_timeout(1s)));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_EQ(running, 0);
  });
  EXPECT_EQ(most, 1);
  EXPECT_EQ(machine.elapsed(), 18s);
}

TEST_ON_THREADS(Retry, ManyAttemptsAndManyRetries) {
  const int many = static_cast<int>(scaled(100'000));
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto factory = [&] { return fails_before(calls, many); };
    const int value =
        co_await retry(factory, RetryPolicy().max_attempts(static_cast<std::size_t>(many)));
    EXPECT_EQ(value, many);
    std::atomic<int> sum{0};
    auto once = [&]() -> Task<int> {
      sum.fetch_add(1, std::memory_order_relaxed);
      return give_after(1s, 1);
    };
    std::vector<Task<int>> retries;
    for (int i = 0; i < many; ++i) retries.push_back(retry(once));
    std::vector<int> ones = co_await gather(std::move(retries));
    EXPECT_EQ(ones.size(), static_cast<std::size_t>(many));
    EXPECT_EQ(sum.load(), many);
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(Retry, ResumesWhereItWasAwaited) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    auto factory = [&]() -> Task<int> {
      co_await resume_on(other);
      co_return 3;
    };
    const int value = co_await retry(factory);
    EXPECT_EQ(value, 3);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

// --- deadlines -----------------------------------------------------------------------------------

TEST_ON_THREADS(Retry, EachAttemptHasAFreshTimeout) {  // B181
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return calls < 3 ? never() : give_after(900ms, calls);
  };
  machine.run([&]() -> Task<> {
    const int value = co_await retry(
        factory, RetryPolicy().attempt_timeout(1s).backoff(Backoff::constant(100ms)));
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(machine.elapsed(), 2s + 200ms + 900ms);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Retry, TimeoutOfTheLastAttemptIsThrown) {
  machine.run([&]() -> Task<> {
    Result<int> r =
        co_await as_result(retry(never, RetryPolicy().max_attempts(2).attempt_timeout(1s)));
    EXPECT_TRUE(is<TimeoutError>(r.error()));
  });
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Retry, PauseThatWouldEndPastTheTotalDeadlineIsNotBegun) {  // B181
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return fail_after(1s, "attempt " + std::to_string(calls));
  };
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(
        retry(factory,
              RetryPolicy().max_attempts(100).total_timeout(5s).backoff(Backoff::constant(700ms))));
    EXPECT_EQ(what_of(r.error()), "attempt 3");  // at 4.4 s, and the pause would end at 5.1 s
  });
  EXPECT_EQ(machine.elapsed(), 3 * 1s + 2 * 700ms);
}

TEST_ON_THREADS(Retry, PauseMayEndAtTheTotalDeadlineButNoAttemptBeginsThere) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return fail("attempt " + std::to_string(calls));
  };
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(retry(
        factory, RetryPolicy().max_attempts(100).total_timeout(2s).backoff(Backoff::constant(1s))));
    EXPECT_EQ(what_of(r.error()), "attempt 2");
  });
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Retry, TotalDeadlineWithinAnAttemptGivesTheErrorBefore) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return calls < 3 ? fail_after(1s, "attempt " + std::to_string(calls)) : never();
  };
  machine.run([&]() -> Task<> {
    Result<int> r =
        co_await as_result(retry(factory, RetryPolicy().max_attempts(100).total_timeout(10s)));
    EXPECT_EQ(what_of(r.error()), "attempt 2");
  });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(machine.elapsed(), 10s);
}

TEST_ON_THREADS(Retry, TotalDeadlineWithinTheFirstAttemptIsATimeout) {
  machine.run([&]() -> Task<> {
    Result<int> r =
        co_await as_result(retry(never, RetryPolicy().total_timeout(3s).attempt_timeout(1h)));
    EXPECT_TRUE(is<TimeoutError>(r.error()));
    bool ran = false;
    auto factory = [&] { return started(ran); };
    Result<int> at_once = co_await as_result(retry(factory, RetryPolicy().total_timeout(0s)));
    EXPECT_TRUE(is<TimeoutError>(at_once.error()));
    EXPECT_FALSE(ran);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(Retry, AttemptsOwnTimeoutIsRetriedUpToTheTotalDeadline) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return never();
  };
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(
        retry(factory, RetryPolicy().max_attempts(100).attempt_timeout(4s).total_timeout(10s)));
    EXPECT_TRUE(is<TimeoutError>(r.error()));
  });
  EXPECT_EQ(calls, 3);  // at 0, 4 and 8 s; the last is cut off
  EXPECT_EQ(machine.elapsed(), 10s);
}

TEST_ON_THREADS(Retry, RealErrorOfAnAttemptThatTheTotalDeadlineCancelsIsThrown) {
  machine.run([&]() -> Task<> {
    auto factory = [] { return bitter("cleanup", 1s); };
    Result<int> r = co_await as_result(retry(factory, RetryPolicy().total_timeout(2s)));
    EXPECT_EQ(what_of(r.error()), "cleanup");
    auto forgives = [] { return forgiving(9); };
    const int nine = co_await retry(forgives, RetryPolicy().total_timeout(2s));
    EXPECT_EQ(nine, 9);
  });
  EXPECT_EQ(machine.elapsed(), 5s);
}

TEST_ON_THREADS(Retry, OuterTimeoutEndsItAll) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return fail_after(1s, "e");
  };
  machine.run([&]() -> Task<> {
    auto endless = retry(factory, RetryPolicy().max_attempts(1000).backoff(Backoff::constant(1s)));
    Result<int> r = co_await try_timeout(std::move(endless), 5500ms);
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(machine.elapsed(), 5500ms);
}

TEST_ON_THREADS(Retry, DeadlineIsSeenInside) {
  machine.run([&]() -> Task<> {
    const Deadline now = co_await this_task::now();
    auto factory = []() -> Task<std::optional<Deadline>> {
      co_return co_await this_task::deadline();
    };
    std::optional<Deadline> d =
        co_await retry(factory, RetryPolicy().attempt_timeout(2s).total_timeout(1min));
    EXPECT_EQ(d, now + 2s);
    d = co_await retry(factory, RetryPolicy().attempt_timeout(2min).total_timeout(1min));
    EXPECT_EQ(d, now + 1min);
    d = co_await retry(factory);
    EXPECT_EQ(d, std::nullopt);
    d = co_await retry(
        factory,
        RetryPolicy().attempt_timeout(Duration::never()).total_timeout(std::chrono::hours::max()));
    EXPECT_EQ(d, std::nullopt);
  });
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(Retry, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto factory = [&] { return started(ran); };
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("early");
      Result<int> r = co_await as_result(retry(factory));
      EXPECT_EQ(reason_of(r.error()).message, "early");
    };
    co_await cancel_scope(block);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Retry, CancelledAttemptIsNeverTriedAgain) {  // B179
  int calls = 0;
  machine.run([&]() -> Task<> {
    auto factory = [&]() -> Task<int> {
      ++calls;
      return never();
    };
    JoinHandle<int> handle = executor.spawn(retry(factory, RetryPolicy().attempt_timeout(1h)));
    co_await sleep_for(1s);
    handle.cancel("enough");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "enough");
    auto cancels = [&]() -> Task<int> {
      ++calls;
      return cancel_itself();
    };
    Result<int> own = co_await as_result(retry(cancels));
    EXPECT_EQ(reason_of(own.error()).message, "by itself");
    auto throws = [&]() -> Task<int> {
      ++calls;
      throw CancelledError(CancelReason{CancelKind::requested, "in the factory"});
    };
    Result<int> thrown = co_await as_result(retry(throws));
    EXPECT_EQ(reason_of(thrown.error()).message, "in the factory");
  });
  EXPECT_EQ(calls, 3);
}

TEST_ON_THREADS(Retry, CancelledPauseEndsIt) {  // B179
  int calls = 0;
  machine.run([&]() -> Task<> {
    auto factory = [&]() -> Task<int> {
      ++calls;
      return fail("again");
    };
    JoinHandle<int> handle =
        executor.spawn(retry(factory, RetryPolicy().backoff(Backoff::constant(1h))));
    co_await sleep_for(1s);
    handle.cancel("enough");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "enough");
  });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(machine.elapsed(), 1s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Retry, CancellationIsSeenBetweenAttemptsThatNeverSuspend) {
  int calls = 0;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<int> {
      auto factory = [&]() -> Task<int> {
        ++calls;
        return fail("again");
      };
      co_return co_await retry(factory,
                               RetryPolicy().max_attempts(100).on_retry([&](const RetryEvent& e) {
                                 if (e.attempt == 5) scope.cancel();
                               }));
    };
    Result<int> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
  });
  EXPECT_EQ(calls, 5);
}

TEST_ON_THREADS(Retry, RealErrorGoesBeforeTheCancellationAndIsNotRetried) {
  int calls = 0;
  machine.run([&]() -> Task<> {
    auto factory = [&]() -> Task<int> {
      ++calls;
      return bitter("cleanup failed");
    };
    bool asked = false;
    auto body = [&]() -> Task<> {
      Result<int> r =
          co_await as_result(retry(factory, RetryPolicy().retry_if([&](const std::exception_ptr&) {
            asked = true;
            return true;
          })));
      EXPECT_EQ(what_of(r.error()), "cleanup failed");
      co_await this_task::checkpoint();  // the cancellation is still there
      ADD_FAILURE();
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(1s);
    handle.cancel();
    Result<void> r = co_await as_result(handle);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_FALSE(asked);
  });
  EXPECT_EQ(calls, 1);
}

TEST_ON_THREADS(Retry, CancellationAfterTheValueChangesNothing) {
  machine.run([&]() -> Task<> {
    auto factory = [] { return stubborn(1s, 6); };
    auto body = [&]() -> Task<int> { co_return co_await retry(factory); };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(500ms);
    handle.cancel();
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(r.value(), 6);
  });
}

TEST_ON_THREADS(Retry, MaskedRetryDoesNotSeeTheCancellation) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto factory = [&]() -> Task<int> {
      co_await sleep_for(1s);
      co_return co_await fails_before(calls, 3);
    };
    JoinHandle<int> handle = executor.spawn(uncancellable(retry(factory)));
    co_await sleep_for(1ms);
    handle.cancel();
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(r.value(), 3);
  });
}

// --- retry_with_timeout --------------------------------------------------------------------------

TEST_ON_THREADS(Retry, WithTimeoutRetriesTimeoutsAfterASecond) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    ++calls;
    return calls < 3 ? never() : give_after(1s, calls);
  };
  machine.run([&]() -> Task<> {
    const int value = co_await retry_with_timeout(factory, 3, 5s);
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(machine.elapsed(), 5s + 1s + 5s + 1s + 1s);
}

TEST_ON_THREADS(Retry, WithTimeoutThrowsTheLastTimeoutWithoutAPause) {
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(retry_with_timeout(never, 3, 5s, 2s));
    EXPECT_TRUE(is<TimeoutError>(r.error()));
  });
  EXPECT_EQ(machine.elapsed(), 5s + 2s + 5s + 2s + 5s);
}

TEST_ON_THREADS(Retry, WithTimeoutRetriesTheTasksOwnTimeoutErrorsAndNothingElse) {
  struct Late : TimeoutError {};
  int calls = 0;
  auto late = [&]() -> Task<int> {
    if (++calls < 3) throw Late();
    return give(calls);
  };
  auto inner = [&] {
    ++calls;
    return timeout(never(), 1s);
  };
  auto broken = [&]() -> Task<int> {
    ++calls;
    return fail("broken");
  };
  machine.run([&]() -> Task<> {
    const int three = co_await retry_with_timeout(late, 3, 5s);
    EXPECT_EQ(three, 3);
    calls = 0;
    Result<int> twice = co_await as_result(retry_with_timeout(inner, 2, 5s));
    EXPECT_TRUE(is<TimeoutError>(twice.error()));
    EXPECT_EQ(calls, 2);
    calls = 0;
    Result<int> other = co_await as_result(retry_with_timeout(broken, 3, 5s));
    EXPECT_EQ(what_of(other.error()), "broken");
    EXPECT_EQ(calls, 1);
  });
}

}  // namespace
}  // namespace magpie
