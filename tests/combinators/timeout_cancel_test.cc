// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (more of what timeout_test shows)

// timeout and a cancellation: from outside, before it began, of the task by itself, and within it.

#include <magpie/timeout.h>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/spawn.h>

#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Timeout : public OnMachine {};

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(Timeout, CancellationFromOutsideGoesOnAndTheTaskIsAwaited) {  // B153, B157
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<int> { co_return co_await timeout(watched(ended, why), 1h); };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel("outside");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
    EXPECT_TRUE(ended);
  });
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Timeout, CancellationFromOutsideWinsWhenBothHappened) {  // B157
  machine.run([&]() -> Task<> {
    auto slow_to_end = []() -> Task<int> {
      Result<int> waited = co_await as_result(never());
      co_await uncancellable(sleep_for(10ms));
      std::move(waited).value();
      co_return 0;
    };
    for (const bool cancel_first : {true, false}) {
      auto body = [&]() -> Task<int> { co_return co_await timeout(slow_to_end(), 5ms); };
      JoinHandle<int> handle = executor.spawn(body());
      co_await sleep_for(cancel_first ? 1ms : 7ms);
      handle.cancel("outside");
      Result<int> r = co_await as_result(handle);
      EXPECT_EQ(reason_of(r.error()).message, "outside");
    }
  });
}

TEST_ON_THREADS(Timeout, TryTimeoutThrowsACancellationFromOutside) {
  machine.run([&]() -> Task<> {
    bool returned = false;
    auto body = [&]() -> Task<> {
      Result<int> r = co_await try_timeout(never(), 1h);
      returned = true;
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    Result<void> r = co_await as_result(handle);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_FALSE(returned);
  });
}

TEST_ON_THREADS(Timeout, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto body = [&](CancelScope& scope) -> Task<> {
      JoinHandle<int> done = executor.spawn(give(1));
      co_await as_result(done);
      scope.cancel("early");
      Result<int> a = co_await as_result(timeout(started(ran), 1s));
      EXPECT_EQ(reason_of(a.error()).message, "early");
      Result<int> b = co_await as_result(with_timeout(started(ran), 1s, 5));
      EXPECT_TRUE(b.is_cancelled());
      auto trial = try_timeout(started(ran), 1s);
      Result<Result<int>> c = co_await as_result(std::move(trial));
      EXPECT_TRUE(c.is_cancelled());
      auto block = [&](TimeoutScope&) -> Task<int> { return started(ran); };
      Result<int> d = co_await as_result(timeout_scope(1s, block));
      EXPECT_TRUE(d.is_cancelled());
      Result<int> e = co_await as_result(timeout(done, 0s));  // although it is done
      EXPECT_TRUE(e.is_cancelled());
      Result<int> f = co_await as_result(timeout(started(ran), 0s));
      EXPECT_TRUE(f.is_cancelled());
    };
    co_await cancel_scope(body);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Timeout, TaskThatEndedCancelledByItselfIsNoTimeout) {
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(timeout(cancel_itself("mine"), 1s));
    EXPECT_EQ(reason_of(r.error()).message, "mine");
    Result<int> tried = co_await try_timeout(cancel_itself("mine"), 1s);
    EXPECT_TRUE(tried.is_cancelled());
    co_await this_task::checkpoint();
  });
}

TEST_ON_THREADS(Timeout, WorksInTheCleanupOfACancelledTask) {  // B158
  machine.run([&]() -> Task<> {
    bool cleaned = false;
    auto cleanup = [&]() -> Task<> {
      Result<int> r = co_await as_result(timeout(never(), 1ms));
      EXPECT_TRUE(r.is_timeout());
      cleaned = true;
    };
    auto body = [&]() -> Task<int> { co_return co_await finally(never(), cleanup); };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    Result<int> r = co_await as_result(handle);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_TRUE(cleaned);
  });
}

TEST_ON_THREADS(Timeout, IsLevelTriggeredInside) {  // B020
  machine.run([&]() -> Task<> {
    int seen = 0;
    auto deaf = [&]() -> Task<int> {
      for (int i = 0; i < 5; ++i) {
        Result<void> r = co_await as_result(sleep_for(1h));
        if (r.is_cancelled()) ++seen;
      }
      co_return 3;
    };
    const int value = co_await timeout(deaf(), 1ms);
    EXPECT_EQ(value, 3);
    EXPECT_EQ(seen, 5);
  });
}

}  // namespace
}  // namespace magpie
