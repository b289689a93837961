// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the scopes are those of cancel_scope_test)

// timeout_scope: what api.md, section 6, says of it.

#include <magpie/timeout.h>

#include <atomic>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/spawn.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class TimeoutScopeTest : public OnMachine {};

TEST_ON_THREADS(TimeoutScopeTest, GivesTheBodysValue) {
  machine.run([&]() -> Task<> {
    const int value = co_await timeout_scope(1s, [&](TimeoutScope& scope) -> Task<int> {
      EXPECT_FALSE(scope.expired());
      const Deadline now = co_await this_task::now();
      EXPECT_EQ(scope.deadline(), now + 1s);
      const auto asked = co_await this_task::deadline();
      EXPECT_EQ(asked, now + 1s);
      co_return 3;
    });
    EXPECT_EQ(value, 3);
  });
  EXPECT_EQ(executor.stats().pending_timers, 0u);
  EXPECT_EQ(machine.elapsed(), 0ms);
}

TEST_ON_THREADS(TimeoutScopeTest, ThrowsAtExpiry) {
  bool expired = false;
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      Result<int> r = co_await as_result(never());
      expired = scope.expired();
      co_return std::move(r).value();
    };
    Result<int> r = co_await as_result(timeout_scope(2ms, body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_TRUE(expired);
  EXPECT_EQ(machine.elapsed(), 2ms);
}

TEST_ON_THREADS(TimeoutScopeTest, LaterDeadlineHolds) {  // B159
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      const Deadline now = co_await this_task::now();
      EXPECT_TRUE(scope.reschedule(now + 10ms));
      EXPECT_EQ(scope.deadline(), now + 10ms);
      co_await sleep_for(5ms);
      EXPECT_FALSE(scope.expired());
      co_await sleep_for(1h);
      co_return 0;
    };
    Result<int> r = co_await as_result(timeout_scope(2ms, body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 10ms);
}

TEST_ON_THREADS(TimeoutScopeTest, EarlierDeadlineHolds) {
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      const Deadline now = co_await this_task::now();
      EXPECT_TRUE(scope.reschedule(now + 1ms));
      co_return co_await never();
    };
    Result<int> r = co_await as_result(timeout_scope(1h, body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(TimeoutScopeTest, DeadlineCanBeTakenAwayAndGivenBack) {
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      EXPECT_TRUE(scope.reschedule(std::nullopt));
      EXPECT_FALSE(scope.deadline().has_value());
      co_await sleep_for(1h);
      EXPECT_FALSE(scope.expired());
      const Deadline now = co_await this_task::now();
      EXPECT_TRUE(scope.reschedule(now + 1ms));
      co_return co_await never();
    };
    Result<int> r = co_await as_result(timeout_scope(1ms, body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 1h + 1ms);
}

TEST_ON_THREADS(TimeoutScopeTest, ScopeThatBeganWithoutADeadlineCanGetOne) {
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      EXPECT_FALSE(scope.deadline().has_value());
      const Deadline now = co_await this_task::now();
      EXPECT_TRUE(scope.reschedule(now + 3ms));
      co_return co_await never();
    };
    Result<int> r = co_await as_result(timeout_scope(Duration::never(), body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 3ms);
}

TEST_ON_THREADS(TimeoutScopeTest, DeadlineInThePastExpiresAtOnceWithoutTheClockMoving) {
  machine.run([&]() -> Task<> {
    for (const bool had_one : {true, false}) {
      auto body = [&](TimeoutScope& scope) -> Task<int> {
        const Deadline now = co_await this_task::now();
        EXPECT_TRUE(scope.reschedule(now - 1s));
        EXPECT_TRUE(scope.expired());
        co_await this_task::checkpoint();
        ADD_FAILURE() << "the checkpoint did not throw";
        co_return 1;
      };
      Result<int> r =
          co_await as_result(timeout_scope(had_one ? Duration(1h) : Duration::never(), body));
      EXPECT_TRUE(r.is_timeout());
    }
  });
  EXPECT_EQ(machine.elapsed(), 0ms);
}

TEST_ON_THREADS(TimeoutScopeTest, OnceExpiredItCannotBeMoved) {
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      co_await as_result(never());
      const Deadline now = co_await this_task::now();
      EXPECT_FALSE(scope.reschedule(now + 1h));
      EXPECT_FALSE(scope.reschedule(std::nullopt));
      EXPECT_TRUE(scope.expired());
      co_return 8;
    };
    const int value = co_await timeout_scope(1ms, body);  // it returned a value: the value
    EXPECT_EQ(value, 8);
  });
}

TEST_ON_THREADS(TimeoutScopeTest, RealErrorAndOuterCancellationGoFirst) {
  machine.run([&]() -> Task<> {
    auto angry = [](TimeoutScope&) -> Task<int> { return bitter("real"); };
    Result<int> error = co_await as_result(timeout_scope(1ms, angry));
    EXPECT_EQ(what_of(error.error()), "real");

    auto slow = [](TimeoutScope&) -> Task<int> {
      Result<int> r = co_await as_result(never());
      co_await uncancellable(sleep_for(10ms));
      co_return std::move(r).value();
    };
    auto outer = [&]() -> Task<int> { co_return co_await timeout_scope(1ms, slow); };
    JoinHandle<int> handle = executor.spawn(outer());
    co_await sleep_for(5ms);
    handle.cancel("outside");
    Result<int> both = co_await as_result(handle);
    EXPECT_EQ(reason_of(both.error()).message, "outside");
  });
}

TEST_ON_THREADS(TimeoutScopeTest, BodyThatThrowsBeforeItIsACoroutine) {
  machine.run([&]() -> Task<> {
    auto body = [](TimeoutScope&) -> Task<int> { throw std::runtime_error("no coroutine"); };
    Result<int> r = co_await as_result(timeout_scope(1s, body));
    EXPECT_EQ(what_of(r.error()), "no coroutine");
  });
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(TimeoutScopeTest, ChildrenAndOthersMoveItsDeadline) {
  machine.run([&]() -> Task<> {
    auto body = [&](TimeoutScope& scope) -> Task<int> {
      auto keep_alive = [&]() -> Task<> {
        for (int i = 0; i < 20; ++i) {
          co_await sleep_for(5ms);
          const Deadline now = co_await this_task::now();
          EXPECT_TRUE(scope.reschedule(now + 10ms));
        }
      };
      co_await keep_alive();
      co_return co_await never();
    };
    Result<int> r = co_await as_result(timeout_scope(10ms, body));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 110ms);
}

// From another thread, against expiry: true means that the deadline was moved, false that it has
// expired; nothing in between.
TEST(TimeoutScopeAcrossThreads, RescheduleAgainstExpiry) {
  WorkStealingExecutor workers({.threads = 2});
  for (int round = 0; round < 100; ++round) {
    Event over;
    auto body = [&](TimeoutScope& scope) -> Task<bool> {
      bool moved = false;
      std::thread other([&] {
        while (std::chrono::steady_clock::now() < *scope.deadline()) std::this_thread::yield();
        moved = scope.reschedule(std::nullopt);
        over.set();
      });
      co_await uncancellable(over.wait());
      other.join();
      EXPECT_EQ(moved, !scope.expired());
      // Who fires the timer may stand still between the expiry and the cancellation.
      Result<void> here = co_await as_result(sleep_for(moved ? Duration() : Duration(1h)));
      EXPECT_EQ(moved, here.has_value());
      co_return moved;
    };
    workers.run(timeout_scope(std::chrono::microseconds(50 + round), body));
  }
}

// The deadline may pass, and block, task and executor end, before the thread that has moved it has
// told the executor's timers.
TEST(TimeoutScopeAcrossThreads, TheExecutorMayEndWhileADeadlineIsMoved) {
  std::atomic<TimeoutScope*> scope{nullptr};
  std::atomic<bool> stop{false};
  auto block = [&]() -> Task<> {
    auto body = [&](TimeoutScope& its_scope) -> Task<> {
      scope = &its_scope;
      co_await sleep_for(1h);
    };
    co_await as_result(timeout_scope(1h, body));
  };
  std::thread mover([&] {
    for (int n = 0; !stop.load(); ++n) {
      if (TimeoutScope* const s = scope.exchange(nullptr))
        s->reschedule(std::chrono::steady_clock::now() + std::chrono::microseconds(2 * (n % 50)));
      std::this_thread::yield();
    }
  });
  for (std::size_t round = 0; round < scaled(500); ++round) {
    WorkStealingExecutor workers({.threads = 1});
    workers.run(block());
  }
  stop = true;
  mover.join();
}

}  // namespace
}  // namespace magpie
