// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// cancel_scope: what api.md, section 5, says of it.

#include <magpie/cancellation.h>

#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class CancelScopeTest : public OnMachine {};

TEST_ON_THREADS(CancelScopeTest, GivesTheBlocksOutcomeAsAResult) {
  int number = 4;
  machine.run([&]() -> Task<> {
    Result<int> value =
        co_await cancel_scope([](CancelScope&) -> Task<int> { return give_after(1ms, 3); });
    EXPECT_EQ(value.value(), 3);
    Result<void> nothing_at_all = co_await cancel_scope([](CancelScope&) -> Task<> { co_return; });
    EXPECT_TRUE(nothing_at_all.has_value());
    auto refer = [&](CancelScope&) -> Task<int&> { co_return number; };
    Result<int&> reference = co_await cancel_scope(refer);
    EXPECT_EQ(&reference.value(), &number);
    Result<MoveOnly> moved =
        co_await cancel_scope([](CancelScope&) -> Task<MoveOnly> { co_return MoveOnly(6); });
    EXPECT_EQ(std::move(moved).value().value(), 6);
    Result<NoDefault> plain =
        co_await cancel_scope([](CancelScope&) -> Task<NoDefault> { co_return NoDefault(7); });
    EXPECT_EQ(plain.value().value, 7);
  });
}

TEST_ON_THREADS(CancelScopeTest, ErrorsOfTheBlockAreInTheResult) {
  machine.run([&]() -> Task<> {
    Result<int> error =
        co_await cancel_scope([](CancelScope&) -> Task<int> { return fail("inside"); });
    EXPECT_TRUE(error.is_error());
    EXPECT_EQ(what_of(error.error()), "inside");
    Result<int> late = co_await cancel_scope(
        [](CancelScope&) -> Task<int> { co_return co_await timeout(never(), 1ms); });
    EXPECT_TRUE(late.is_timeout());
    Result<int> no_coroutine =
        co_await cancel_scope([](CancelScope&) -> Task<int> { throw std::logic_error("early"); });
    EXPECT_EQ(what_of(no_coroutine.error()), "early");
    Result<int> own =
        co_await cancel_scope([](CancelScope&) -> Task<int> { return cancel_itself("own"); });
    EXPECT_TRUE(own.is_cancelled());
    co_await this_task::checkpoint();
  });
}

TEST_ON_THREADS(CancelScopeTest, CancelEndsJustThisBlock) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<int> {
      auto cancel_soon = [&]() -> Task<> {
        co_await sleep_for(1ms);
        EXPECT_FALSE(scope.cancelled());
        EXPECT_TRUE(scope.cancel("enough"));
        EXPECT_FALSE(scope.cancel("more"));
        EXPECT_TRUE(scope.cancelled());
      };
      auto both = co_await gather(never(), cancel_soon());
      co_return std::get<0>(both);
    };
    Result<int> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(reason_of(r.error()).message, "enough");
    co_await sleep_for(1ms);
  });
  EXPECT_EQ(machine.elapsed(), 2ms);
}

TEST_ON_THREADS(CancelScopeTest, RealErrorAfterItsCancelIsReported) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<int> {
      scope.cancel();
      co_return co_await bitter("cleanup");
    };
    Result<int> r = co_await cancel_scope(block);
    EXPECT_EQ(what_of(r.error()), "cleanup");
  });
}

TEST_ON_THREADS(CancelScopeTest, CancellationFromOutsideIsThrown) {
  machine.run([&]() -> Task<> {
    for (const bool both : {false, true}) {
      bool returned = false;
      auto block = [&](CancelScope& scope) -> Task<int> {
        if (both) scope.cancel("own");
        Result<int> r = co_await as_result(never());
        co_await uncancellable(sleep_for(10ms));
        co_return std::move(r).value();
      };
      auto body = [&]() -> Task<> {
        Result<int> r = co_await cancel_scope(block);
        returned = true;
      };
      JoinHandle<void> handle = executor.spawn(body());
      co_await sleep_for(1ms);
      handle.cancel("outside");
      Result<void> r = co_await as_result(handle);
      EXPECT_EQ(reason_of(r.error()).message, "outside");
      EXPECT_FALSE(returned);
    }
  });
}

TEST_ON_THREADS(CancelScopeTest, ValueWinsOverACancellationFromOutside) {
  machine.run([&]() -> Task<> {
    auto block = [](CancelScope&) -> Task<int> { return forgiving(5); };
    auto body = [&]() -> Task<int> {
      Result<int> r = co_await cancel_scope(block);
      co_return r.value();
    };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 5);
  });
}

TEST_ON_THREADS(CancelScopeTest, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto inner = [&](CancelScope&) -> Task<> {
      ran = true;
      co_return;
    };
    auto outer = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await cancel_scope(inner);
    };
    Result<void> r = co_await cancel_scope(outer);
    EXPECT_TRUE(r.is_cancelled());
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(CancelScopeTest, CallableIsMovedInOrReferenced) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto counting = [&calls, mine = 0](CancelScope&) mutable -> Task<int> {
      calls = ++mine;
      co_return 1;
    };
    co_await cancel_scope(counting);
    co_await cancel_scope(counting);
    EXPECT_EQ(calls, 2);  // the same object both times
    auto capturing = [tracked = Tracked(ledger)](CancelScope&) -> Task<int> {
      co_await sleep_for(1ms);
      tracked.touch();
      co_return 1;
    };
    auto block = cancel_scope(std::move(capturing));
    Result<int> r = co_await std::move(block);
    EXPECT_TRUE(r.has_value());
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(CancelScopeTest, ResumesWhereItWasAwaited) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    Executor& home = co_await this_task::executor();
    auto hop = [&](CancelScope&) -> Task<> {
      co_await resume_on(other);
      Executor& here = co_await this_task::executor();
      EXPECT_EQ(&here, &other);
    };
    co_await cancel_scope(hop);
    Executor& back = co_await this_task::executor();
    EXPECT_EQ(&back, &home);
  });
}

TEST(CancelScopeAcrossThreads, CancelFromAThreadThatKnowsTheBlockRuns) {
  WorkStealingExecutor workers({.threads = 2});
  for (int round = 0; round < 200; ++round) {
    auto block = [&](CancelScope& scope) -> Task<int> {
      Event done;
      std::thread other([&] {
        scope.cancel("thread");
        done.set();
      });
      Result<void> slept = co_await as_result(sleep_for(1h));
      EXPECT_TRUE(slept.is_cancelled());
      co_await uncancellable(done.wait());  // the block lasts until the thread has done with it
      other.join();
      std::move(slept).value();
      co_return 1;
    };
    auto body = [&]() -> Task<> {
      Result<int> r = co_await cancel_scope(block);
      EXPECT_TRUE(r.is_cancelled());
    };
    workers.run(body());
  }
}

}  // namespace
}  // namespace magpie
