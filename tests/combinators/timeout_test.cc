// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// timeout, timeout_at, with_timeout, try_timeout: what api.md, section 6, says of them.

#include <magpie/timeout.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/promise.h>
#include <magpie/race.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Timeout : public OnMachine {};

TEST_ON_THREADS(Timeout, GivesTheValueOfATaskThatEndsInTime) {  // B144
  machine.run([&]() -> Task<> {
    const int value = co_await timeout(give_after(1ms, 3), 2ms);
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(executor.stats().pending_timers, 0u);
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(Timeout, CancelsAndAwaitsTheTaskThenThrows) {  // B143, B148
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(timeout(watched(ended, why), 5ms));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_TRUE(is<TimeoutError>(r.error()));
    EXPECT_TRUE(ended);
    co_await this_task::checkpoint();  // the caller is not cancelled
    co_await sleep_for(1ms);
  });
  EXPECT_EQ(why, CancelKind::timeout);
  EXPECT_EQ(machine.elapsed(), 6ms);
}

TEST_ON_THREADS(Timeout, TaskThatIgnoresItDelaysItAndItsValueWins) {  // B149
  machine.run([&]() -> Task<> {
    const int late = co_await timeout(stubborn(10ms, 4), 1ms);
    EXPECT_EQ(late, 4);
    const int swallowed = co_await timeout(forgiving(5), 1ms);
    EXPECT_EQ(swallowed, 5);
  });
  EXPECT_EQ(machine.elapsed(), 11ms);
}

TEST_ON_THREADS(Timeout, RealErrorOnTheWayIsThrown) {  // B150
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(timeout(bitter("cleanup failed", 1ms), 1ms));
    EXPECT_EQ(what_of(r.error()), "cleanup failed");
    EXPECT_TRUE(r.is_error());
  });
}

TEST_ON_THREADS(Timeout, ErrorInTimeGoesOn) {
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(timeout(fail_after(1ms, "plain"), 1s));
    EXPECT_EQ(what_of(r.error()), "plain");
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(Timeout, NothingOrLessStartsNoTask) {  // B147
  bool ran = false;
  machine.run([&]() -> Task<> {
    Result<int> zero = co_await as_result(timeout(started(ran), 0ms));
    EXPECT_TRUE(zero.is_timeout());
    Result<int> less = co_await as_result(timeout(started(ran), -1s));
    EXPECT_TRUE(less.is_timeout());
    const Deadline now = co_await this_task::now();
    Result<int> past = co_await as_result(timeout_at(started(ran), now - 1s));
    EXPECT_TRUE(past.is_timeout());
    Result<int> present = co_await as_result(timeout_at(started(ran), now));
    EXPECT_TRUE(present.is_timeout());
    const int fallback = co_await with_timeout(started(ran), 0s, 7);
    EXPECT_EQ(fallback, 7);
    const int zeroed = co_await with_timeout(started(ran), 0s, {});
    EXPECT_EQ(zeroed, 0);
    Result<int> tried = co_await try_timeout(started(ran), 0s);
    EXPECT_TRUE(tried.is_timeout());
    auto body = [&](TimeoutScope&) -> Task<int> { return started(ran); };
    Result<int> block = co_await as_result(timeout_scope(0s, body));
    EXPECT_TRUE(block.is_timeout());
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Timeout, NothingOrLessGivesTheResultOfAHandleThatIsDone) {  // B147
  machine.run([&]() -> Task<> {
    JoinHandle<int> done = executor.spawn(give(5));
    co_await as_result(done);
    const int value = co_await timeout(done, 0s);
    EXPECT_EQ(value, 5);
    Result<int> tried = co_await try_timeout(done, -1s);
    EXPECT_EQ(tried.value(), 5);
    const int kept = co_await with_timeout(done, 0s, 9);
    EXPECT_EQ(kept, 5);
    JoinHandle<int> failed = executor.spawn(fail("of the task"));
    co_await as_result(failed);
    Result<int> error = co_await as_result(timeout(failed, 0s));
    EXPECT_EQ(what_of(error.error()), "of the task");
    JoinHandle<int> running = executor.spawn(give_after(1s, 6));
    Result<int> late = co_await as_result(timeout(running, 0s));
    EXPECT_TRUE(late.is_timeout());
    const int behind = co_await running;  // it goes on
    EXPECT_EQ(behind, 6);
  });
}

TEST_ON_THREADS(Timeout, NothingOrLessOnAnEmptyHandleIsMisuseAllTheSame) {
  machine.run([&]() -> Task<> {
    const JoinHandle<int> handle;
    Result<int> waited = co_await as_result(timeout(handle, 0s));
    EXPECT_THROW((void)waited.value(), InvalidStateError);
    const Future<int> future;
    Result<int> tried = co_await try_timeout(future, -1s);
    EXPECT_THROW((void)tried.value(), InvalidStateError);
    Result<int> replaced = co_await as_result(with_timeout(future, 0s, 9));
    EXPECT_THROW((void)replaced.value(), InvalidStateError);
  });
}

TEST_ON_THREADS(Timeout, HandleIsWaitedForNotCancelled) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(give_after(10ms, 6));
    Result<int> late = co_await as_result(timeout(handle, 1ms));
    EXPECT_TRUE(late.is_timeout());
    EXPECT_FALSE(handle.done());
    const int value = co_await timeout(std::move(handle), 1h);
    EXPECT_EQ(value, 6);
  });
}

TEST_ON_THREADS(Timeout, NeverAndVeryLongDoNotOverflow) {  // B145
  machine.run([&]() -> Task<> {
    const int a = co_await timeout(give_after(1ms, 1), Duration::never());
    const int b = co_await timeout(give_after(1ms, 2), std::chrono::hours::max());
    const int c = co_await timeout(give_after(1ms, 3), std::chrono::duration<double>(1e300));
    const int d = co_await timeout_at(give_after(1ms, 4), Deadline::max());
    const int e = co_await timeout(give_after(1ms, 5), std::chrono::nanoseconds::max() - 1ns);
    EXPECT_EQ(a + b + c + d + e, 15);
  });
  EXPECT_THROW((void)timeout(give(1), std::chrono::duration<double>(
                                          std::numeric_limits<double>::quiet_NaN())),
               std::invalid_argument);
}

TEST_ON_THREADS(Timeout, ClockStartsWhenItIsAwaited) {  // B161
  machine.run([&]() -> Task<> {
    auto limited = timeout(give_after(5ms, 1), 10ms);
    co_await sleep_for(1h);
    const int value = co_await std::move(limited);
    EXPECT_EQ(value, 1);
  });
}

TEST_ON_THREADS(Timeout, TaskThatEndsAtItsDeadlineOrderIsEither) {
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(timeout(give_after(5ms, 1), 5ms));
    EXPECT_TRUE(r.has_value() || r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 5ms);
}

// --- nesting -------------------------------------------------------------------------------------

TEST_ON_THREADS(Timeout, InnerTimeoutErrorPassesThroughAnOuterOne) {
  machine.run([&]() -> Task<> {
    Result<int> tried = co_await try_timeout(timeout(never(), 1ms), 1s);
    EXPECT_FALSE(tried.is_timeout());  // not this one's
    EXPECT_TRUE(tried.is_error());
    EXPECT_EQ(tried.outcome(), Outcome::error);
    EXPECT_TRUE(is<TimeoutError>(tried.error()));
    Result<int> with = co_await as_result(with_timeout(timeout(never(), 1ms), 1s, 5));
    EXPECT_TRUE(is<TimeoutError>(with.error()));  // no default
  });
  EXPECT_EQ(machine.elapsed(), 2ms);
}

TEST_ON_THREADS(Timeout, OuterOneIsThrownWhenBothHaveExpired) {  // B154
  machine.run([&]() -> Task<> {
    // The inner one expires first; what it cancels ends after the outer one has expired too.
    auto slow_to_end = []() -> Task<int> {
      Result<int> waited = co_await as_result(never());
      co_await uncancellable(sleep_for(10ms));
      std::move(waited).value();
      co_return 0;
    };
    bool inner_error = false;
    auto inner = [&]() -> Task<int> {
      try {
        co_return co_await timeout(slow_to_end(), 1ms);
      } catch (const TimeoutError&) {
        inner_error = true;
        throw;
      }
    };
    Result<int> r = co_await try_timeout(inner(), 5ms);
    EXPECT_TRUE(r.is_timeout());
    EXPECT_FALSE(inner_error);
  });
}

TEST_ON_THREADS(Timeout, OuterOneExpiresFirst) {
  machine.run([&]() -> Task<> {
    bool inner_error = false;
    auto inner = [&]() -> Task<int> {
      Result<int> r = co_await as_result(timeout(never(), 1h));
      inner_error = r.is_timeout();
      EXPECT_TRUE(r.is_cancelled());
      co_return std::move(r).value();
    };
    Result<int> r = co_await as_result(timeout(inner(), 1ms));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_FALSE(inner_error);
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(Timeout, InnerOneExpiresAndTheOuterInterruptsWhatFollows) {  // B156
  machine.run([&]() -> Task<> {
    bool inner_error = false;
    auto body = [&]() -> Task<int> {
      Result<int> r = co_await as_result(timeout(never(), 1ms));
      inner_error = r.is_timeout();
      co_await sleep_for(1h);
      co_return 1;
    };
    Result<int> r = co_await try_timeout(body(), 5ms);
    EXPECT_TRUE(r.is_timeout());
    EXPECT_TRUE(inner_error);
  });
  EXPECT_EQ(machine.elapsed(), 5ms);
}

TEST_ON_THREADS(Timeout, ManyDeepEachWithItsDeadline) {
  struct Nest {
    static Task<int> at(int depth) {
      if (depth == 0) co_return co_await never();
      co_return co_await timeout(at(depth - 1), std::chrono::milliseconds(depth));
    }
  };
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(Nest::at(200));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

// --- the variants --------------------------------------------------------------------------------

TEST_ON_THREADS(Timeout, WithTimeoutOfATaskWithoutAValueSaysWhetherItEndedInTime) {
  machine.run([&]() -> Task<> {
    const bool in_time = co_await with_timeout(sleep_for(1ms), 1s);
    EXPECT_TRUE(in_time);
    const bool too_late = co_await with_timeout(sleep_for(1s), 1ms);
    EXPECT_FALSE(too_late);
    auto ends_all_the_same = []() -> Task<void> { co_await as_result(never()); };
    const bool although_late = co_await with_timeout(ends_all_the_same(), 1ms);
    EXPECT_TRUE(although_late);
  });
  EXPECT_EQ(machine.elapsed(), 3ms);
}

TEST_ON_THREADS(Timeout, WithTimeoutOfATaskWithoutAValueThrowsAllButItsOwnExpiry) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    Result<bool> inner = co_await as_result(with_timeout(timeout(sleep_for(1h), 1ms), 1s));
    EXPECT_TRUE(is<TimeoutError>(inner.error()));
    auto fails = []() -> Task<void> { co_await fail("e"); };
    Result<bool> error = co_await as_result(with_timeout(fails(), 1s));
    EXPECT_EQ(what_of(error.error()), "e");
    CancellationSource source;
    source.cancel();
    auto starts = [&]() -> Task<void> {
      ran = true;
      co_return;
    };
    auto refused_one = with_timeout(starts(), 1s);
    Result<bool> refused = co_await as_result(with_token(source.token(), std::move(refused_one)));
    EXPECT_TRUE(refused.is_cancelled());
    CancellationSource later;
    auto waits = [&]() -> Task<bool> { co_return co_await with_timeout(sleep_for(1h), 1h); };
    JoinHandle<bool> handle = spawn(with_token(later.token(), waits()));
    co_await sleep_for(1ms);
    later.cancel();
    Result<bool> outer = co_await as_result(handle);
    EXPECT_TRUE(outer.is_cancelled());
    for (const auto nothing : {0ms, -1ms}) {
      const bool started = co_await with_timeout(starts(), nothing);
      EXPECT_FALSE(started);
    }
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Timeout, WithTimeoutGivesTheDefaultOnlyForItself) {
  machine.run([&]() -> Task<> {
    const int fallback = co_await with_timeout(never(), 1ms, -1);
    EXPECT_EQ(fallback, -1);
    const int value = co_await with_timeout(give_after(1ms, 5), 1s, -1);
    EXPECT_EQ(value, 5);
    Result<int> error = co_await as_result(with_timeout(fail("e"), 1s, -1));
    EXPECT_EQ(what_of(error.error()), "e");
    const std::string text = co_await with_timeout(give_text("x"), 1s, "literal");
    EXPECT_EQ(text, "x");
    auto pointer = [](Duration d) -> Task<std::unique_ptr<int>> {
      co_await sleep_for(d);
      co_return std::make_unique<int>(1);
    };
    auto none = co_await with_timeout(pointer(1s), 1ms, nullptr);
    EXPECT_EQ(none, nullptr);
    auto made = co_await with_timeout(pointer(1s), 1ms, std::make_unique<int>(8));
    EXPECT_EQ(*made, 8);
    int here = 1;
    int there = 2;
    auto refer = [&](Duration d) -> Task<int&> {
      co_await sleep_for(d);
      co_return here;
    };
    int& a = co_await with_timeout(refer(1ms), 1s, there);
    EXPECT_EQ(&a, &here);
    int& b = co_await with_timeout(refer(1s), 1ms, there);
    EXPECT_EQ(&b, &there);
  });
}

TEST_ON_THREADS(Timeout, TryTimeoutGivesEveryOutcome) {
  machine.run([&]() -> Task<> {
    Result<int> value = co_await try_timeout(give(1), 1s);
    EXPECT_EQ(value.outcome(), Outcome::value);
    Result<int> error = co_await try_timeout(fail("e"), 1s);
    EXPECT_EQ(error.outcome(), Outcome::error);
    Result<int> late = co_await try_timeout(never(), 1ms);
    EXPECT_EQ(late.outcome(), Outcome::timed_out);
    EXPECT_TRUE(is<TimeoutError>(late.error()));
    Result<void> nothing_late = co_await try_timeout(nothing_after(1s), 1ms);
    EXPECT_TRUE(nothing_late.is_timeout());
    Result<void> nothing_done = co_await try_timeout(nothing(), 1ms);
    EXPECT_TRUE(nothing_done.has_value());
  });
}

TEST_ON_THREADS(Timeout, TakesEveryKindOfAwaitable) {
  Event event;
  Semaphore semaphore(0);
  machine.run([&]() -> Task<> {
    Result<void> a = co_await as_result(timeout(event.wait(), 1ms));
    EXPECT_TRUE(a.is_timeout());
    Result<Permit> b = co_await as_result(timeout(semaphore.acquire(), 1ms));
    EXPECT_TRUE(b.is_timeout());
    Result<void> c = co_await as_result(timeout(sleep_for(1h), 1ms));
    EXPECT_TRUE(c.is_timeout());
    Result<Indexed<int>> d = co_await as_result(timeout(race(never(), never()), 1ms));
    EXPECT_TRUE(d.is_timeout());
    auto both = co_await timeout(gather(give(1), give_text("t")), 1s);
    EXPECT_EQ(std::get<0>(both), 1);
    semaphore.add_permits(1);
    EXPECT_EQ(semaphore.available(), 1u);  // the one that timed out left nothing behind
    Permit permit = co_await timeout(semaphore.acquire(), 1s);
    EXPECT_EQ(permit.count(), 1u);
  });
  EXPECT_EQ(semaphore.available(), 1u);
  EXPECT_EQ(machine.elapsed(), 4ms);
}

TEST_ON_THREADS(Timeout, AwkwardValues) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto move_only = []() -> Task<MoveOnly> { co_return MoveOnly(3); };
    MoveOnly a = co_await timeout(move_only(), 1s);
    EXPECT_EQ(a.value(), 3);
    auto no_default = []() -> Task<NoDefault> { co_return NoDefault(4); };
    NoDefault b = co_await timeout(no_default(), 1s);
    EXPECT_EQ(b.value, 4);
    Result<NoDefault> c = co_await try_timeout(no_default(), 1s);
    EXPECT_EQ(c.value().value, 4);
    auto tracked = [&]() -> Task<Tracked> { co_return Tracked(ledger); };
    for (int i = 0; i < 10; ++i) {
      Tracked t = co_await timeout(tracked(), 1s);
      t.touch();
    }
  });
  EXPECT_EQ(ledger.alive(), 0);
}

// --- deadlines -----------------------------------------------------------------------------------

TEST_ON_THREADS(Timeout, DeadlineIsTheEarliestThatCanReachThePoint) {  // B160
  machine.run([&]() -> Task<> {
    const Deadline now = co_await this_task::now();
    const std::optional<Deadline> none = co_await this_task::deadline();
    EXPECT_FALSE(none.has_value());
    auto ask = []() -> Task<std::optional<Deadline>> { co_return co_await this_task::deadline(); };
    auto outer = co_await timeout(ask(), 5s);
    EXPECT_EQ(outer, now + 5s);
    auto min_inner = co_await timeout(timeout(ask(), 1s), 5s);
    EXPECT_EQ(min_inner, now + 1s);
    auto min_outer = co_await timeout(timeout(ask(), 9s), 5s);
    EXPECT_EQ(min_outer, now + 5s);
    auto masked = co_await timeout(uncancellable(ask()), 5s);
    EXPECT_FALSE(masked.has_value());
    auto inside_mask = co_await timeout(uncancellable(timeout(ask(), 7s)), 5s);
    EXPECT_EQ(inside_mask, now + 7s);
    auto at = co_await timeout_at(ask(), now + 3s);
    EXPECT_EQ(at, now + 3s);
    auto gathered = co_await timeout(gather(ask(), ask()), 5s);
    EXPECT_EQ(std::get<1>(gathered), now + 5s);
    auto spawned = [&]() -> Task<std::optional<Deadline>> { co_return co_await spawn(ask()); };
    auto root = co_await timeout(spawned(), 5s);
    EXPECT_FALSE(root.has_value());  // spawn inherits no deadline
    auto endless = co_await timeout(ask(), Duration::never());
    EXPECT_FALSE(endless.has_value());
  });
}

// Completion, expiry and a cancellation from outside that fall due together, in every order.
TEST(TimeoutInEveryOrder, OneOutcomeAndNothingLost) {
  testing::explore(600, [](testing::SimulatedExecutor& simulator) {
    Semaphore semaphore(0);
    bool delivered = false;
    auto body = [&]() -> Task<> {
      auto waiter = [&]() -> Task<> {
        Permit permit = co_await timeout(semaphore.acquire(), 5ms);
        delivered = true;
      };
      JoinHandle<void> handle = spawn(waiter());
      auto release = [&]() -> Task<> {
        co_await sleep_for(5ms);
        semaphore.add_permits(1);
      };
      auto cancel = [&]() -> Task<> {
        co_await sleep_for(5ms);
        handle.cancel();
      };
      co_await gather(release(), cancel());
      const Result<void> r = co_await as_result(handle);
      if (r.has_value() != delivered) throw std::runtime_error("delivered and lost");
      if (r.is_error()) throw std::runtime_error("neither a value, nor late, nor cancelled");
    };
    simulator.run(body());
    if (semaphore.available() != 1) throw std::runtime_error("a permit was lost");
  });
}

// Rule 0.6, in real time: the deadline is seen although no worker ever looks for work.
TEST(TimeoutInRealTime, BusyWorkersSeeTheirDeadlinesAtCheckpoints) {
  WorkStealingExecutor busy({.threads = 2});
  auto spin = []() -> Task<int> {
    for (;;) co_await this_task::checkpoint();
  };
  auto body = [&]() -> Task<bool> {
    auto results =
        co_await gather(as_result(timeout(spin(), 20ms)), as_result(timeout(spin(), 20ms)),
                        as_result(timeout(spin(), 20ms)));
    co_return std::get<0>(results).is_timeout() && std::get<1>(results).is_timeout() &&
        std::get<2>(results).is_timeout();
  };
  EXPECT_TRUE(busy.run(body()));
}

TEST(TimeoutInRealTime, ATaskThatNeverParksIsTimedOut) {  // B163
  WorkStealingExecutor busy({.threads = 1});
  auto spin = []() -> Task<int> {
    for (;;) co_await this_task::yield();
  };
  EXPECT_THROW(busy.run(timeout(spin(), 10ms)), TimeoutError);
}

TEST(TimeoutTwice, ALateFirstAwaitLeavesNothingForTheSecond) {
  WorkStealingExecutor one({.threads = 1});
  Event go;
  auto task = [&]() -> Task<int> {
    co_await go.wait();
    co_return 4;
  };
  auto body = [&]() -> Task<> {
    JoinHandle<int> handle = spawn(task());
    auto limited = timeout(handle, 0s);
    bool late = false;
    try {
      co_await limited;
    } catch (const TimeoutError&) {
      late = true;
    }
    EXPECT_TRUE(late);
    go.set();
    co_await handle;
    const int second = co_await limited;
    EXPECT_EQ(second, 4);
  };
  one.run(body());
}

// Completion against expiry at the same moment, from other threads: exactly one of them, and the
// permit goes with it.
TEST(TimeoutInRealTime, PermitsSurviveAnyOrderOfReleaseAndDeadline) {
  WorkStealingExecutor workers({.threads = 3});
  Semaphore semaphore(2);
  auto body = [&](int seed) -> Task<int> {
    int got = 0;
    for (int i = 0; i < 300; ++i) {
      Result<Permit> r =
          co_await try_timeout(semaphore.acquire(1 + static_cast<std::size_t>((seed + i) % 2)),
                               std::chrono::microseconds((seed * 13 + i * 7) % 120));
      if (r.has_value()) {
        ++got;
        co_await sleep_for(std::chrono::microseconds(i % 50));
      }
    }
    co_return got;
  };
  std::vector<JoinHandle<int>> handles;
  for (int i = 0; i < 6; ++i) handles.push_back(workers.spawn(body(i)));
  int got = 0;
  for (auto& h : handles) got += h.wait().value();
  EXPECT_GT(got, 0);
  EXPECT_EQ(semaphore.available(), 2u);
}

}  // namespace
}  // namespace magpie
