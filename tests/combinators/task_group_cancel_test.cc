// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what task_group_test shows)

// task_group: cancelled from outside, by group.cancel(), and by itself (api.md, section 6).

#include <magpie/task_group.h>

#include <atomic>
#include <cstddef>
#include <thread>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class TaskGroupTest : public OnMachine {};

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(TaskGroupTest, CancelledFromOutsideCancelsAndAwaitsEverything) {  // B077, B083
  bool ended[2] = {};
  CancelKind why[2] = {};
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(watched(ended[0], why[0]));
      group.spawn(watched(ended[1], why[1]));
      co_return;
    };
    auto task = [&]() -> Task<> { co_await task_group(body); };
    JoinHandle<void> handle = executor.spawn(task());
    co_await sleep_for(1ms);
    handle.cancel("outside");
    Result<void> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
  });
  EXPECT_TRUE(ended[0] && ended[1]);
}

TEST_ON_THREADS(TaskGroupTest, ErrorsBeatACancellationFromOutside) {  // B078, B079
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<> {
      group.spawn(bitter("in cleanup"));
      co_await never();
    };
    auto task = [&]() -> Task<> {
      Result<void> r = co_await as_result(task_group(body));
      EXPECT_EQ(what_of(group_of(r.error()).exceptions().at(0)), "in cleanup");
      co_await this_task::checkpoint();  // the cancellation is still pending
      ADD_FAILURE() << "the checkpoint did not throw";
    };
    JoinHandle<void> handle = executor.spawn(task());
    co_await sleep_for(1ms);
    handle.cancel();
    Result<void> r = co_await as_result(handle);
    EXPECT_TRUE(r.is_cancelled());
  });
}

TEST_ON_THREADS(TaskGroupTest, IfAllReturnedValuesInSpiteOfACancellationTheValueIsGiven) {  // B086
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<int> {
      group.spawn(forgiving(1));
      co_return co_await forgiving(2);
    };
    auto task = [&]() -> Task<int> { co_return co_await task_group(body); };
    JoinHandle<int> handle = executor.spawn(task());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 2);
  });
}

TEST_ON_THREADS(TaskGroupTest,
                ChildCancelledByHandEarlierDoesNotMakeACancellationFromOutsideAnInterruption) {
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<int> {
      JoinHandle<int> child = group.spawn(never());
      co_await sleep_for(1ms);
      child.cancel();
      co_await as_result(child);
      co_return co_await forgiving(2);
    };
    auto task = [&]() -> Task<int> { co_return co_await task_group(body); };
    JoinHandle<int> handle = executor.spawn(task());
    co_await sleep_for(5ms);
    handle.cancel();
    Result<int> r = co_await as_result(handle);
    EXPECT_TRUE(r.has_value());
  });
}

TEST_ON_THREADS(TaskGroupTest, InterruptedChildMakesItCancelledAlthoughTheBodyReturned) {
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<int> {
      group.spawn(never());
      co_return 2;
    };
    Result<int> r = co_await as_result(timeout(task_group(body), 1ms));
    EXPECT_TRUE(r.is_timeout());
  });
}

TEST_ON_THREADS(TaskGroupTest, StartsNothingInACancelledScope) {  // B085
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup&) -> Task<> {
      ran = true;
      co_return;
    };
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("early");
      Result<void> r = co_await as_result(task_group(body));
      EXPECT_EQ(reason_of(r.error()).message, "early");
    };
    co_await cancel_scope(block);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(TaskGroupTest, LeavingItIsNoCancellationPointWhenAllCompleted) {  // B085, C-12
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<int> {
      auto body = [&](TaskGroup& group) -> Task<int> {
        group.spawn(nothing());
        scope.cancel();  // nobody looks
        co_return 6;
      };
      co_return co_await task_group(body);
    };
    auto r = co_await cancel_scope(block);
    // The child may have been born cancelled, which is an interruption; else everything completed.
    EXPECT_TRUE(r.has_value() || r.is_cancelled());
    auto empty_block = [&](CancelScope& scope) -> Task<int> {
      auto body = [&](TaskGroup&) -> Task<int> {
        scope.cancel();
        co_return 6;
      };
      co_return co_await task_group(body);
    };
    auto s = co_await cancel_scope(empty_block);
    EXPECT_TRUE(s.has_value());
  });
}

// --- group.cancel() ------------------------------------------------------------------------------

TEST_ON_THREADS(TaskGroupTest, CancelEndsItWithoutAnError) {  // B084, B090
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    const int value = co_await task_group([&](TaskGroup& group) -> Task<int> {
      group.spawn(watched(ended, why));
      co_await sleep_for(1ms);
      group.cancel();
      group.cancel();
      EXPECT_TRUE(group.cancelled());
      co_return 5;  // the body gave a value
    });
    EXPECT_EQ(value, 5);
    co_await this_task::checkpoint();
  });
  EXPECT_TRUE(ended);
  EXPECT_EQ(why, CancelKind::group_cancelled);
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(TaskGroupTest, VoidBodyInterruptedByCancelEndsNormally) {
  machine.run([&]() -> Task<> {
    auto cancel_soon = [](TaskGroup& group) -> Task<> {
      co_await sleep_for(1ms);
      group.cancel();
    };
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(cancel_soon(group));
      co_await never();
    };
    co_await task_group(body);
    auto with_value = [&](TaskGroup& group) -> Task<int> {
      group.spawn(cancel_soon(group));
      co_return co_await never();
    };
    Result<int> r = co_await as_result(task_group(with_value));
    EXPECT_EQ(reason_of(r.error()).kind, CancelKind::group_cancelled);
    co_await this_task::checkpoint();
  });
}

TEST_ON_THREADS(TaskGroupTest, CancelBeforeTheFirstSuspensionOfAnybody) {  // B084, gh-155418
  machine.run([&]() -> Task<> {
    bool ran = false;
    auto child = [](TaskGroup& group) -> Task<> {
      group.cancel();
      co_await sleep_for(1h);
    };
    auto body = [&](TaskGroup& group) -> Task<> {
      group.spawn(child(group));
      co_return;
    };
    co_await task_group(body);
    auto at_once = [&](TaskGroup& group) -> Task<> {
      group.cancel();
      JoinHandle<int> late = group.spawn(started(ran));
      Result<int> r = co_await uncancellable(as_result(late));
      EXPECT_TRUE(r.is_cancelled());  // accepted, born cancelled, never run
    };
    co_await task_group(at_once);
    EXPECT_FALSE(ran);
  });
  EXPECT_EQ(machine.elapsed(), 0ms);
}

TEST_ON_THREADS(TaskGroupTest, CancellationFromOutsideAfterCancelIsNotLost) {  // gh-155433
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<> {
      group.cancel();
      Result<int> r = co_await as_result(never());
      co_await uncancellable(sleep_for(10ms));
      std::move(r).value();
    };
    auto task = [&]() -> Task<> { co_await task_group(body); };
    JoinHandle<void> handle = executor.spawn(task());
    co_await sleep_for(1ms);
    handle.cancel("outside");
    Result<void> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
  });
}

TEST_ON_THREADS(TaskGroupTest, ErrorsBeatCancel) {
  machine.run([&]() -> Task<> {
    auto body = [](TaskGroup& group) -> Task<> {
      group.spawn(bitter("late"));
      co_await sleep_for(1ms);
      group.cancel();
    };
    Result<void> r = co_await as_result(task_group(body));
    EXPECT_EQ(what_of(group_of(r.error()).exceptions().at(0)), "late");
  });
}

TEST_ON_THREADS(TaskGroupTest, BodyThatEndsCancelledByItselfTakesTheChildrenAlong) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto body = [&](TaskGroup& group) -> Task<int> {
      group.spawn(watched(ended, why));
      co_await sleep_for(1ms);
      co_return co_await cancel_itself("mine");
    };
    Result<int> r = co_await as_result(task_group(body));
    EXPECT_EQ(reason_of(r.error()).message, "mine");
    co_await this_task::checkpoint();
  });
  EXPECT_TRUE(ended);
}

// The task's record outlives the group: who cancels it late must not look for what was around it.
TEST(TaskGroup, AHandleMayBeCancelledWhileItsGroupsCancellationEndsTheTask) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(500); ++round) {
    JoinHandle<void> handle;
    std::atomic<bool> there{false};
    auto waits = []() -> Task<> { co_await sleep_for(1h); };
    auto body = [&](TaskGroup& group) -> Task<> {
      handle = group.spawn(waits());
      there = true;
      co_await this_task::yield();
      group.cancel();
    };
    std::thread other([&] {
      while (!there.load()) std::this_thread::yield();
      while (!handle.done()) handle.cancel();
    });
    auto block = task_group(body);
    const Result<void> ended = workers.run(as_result(std::move(block)));
    EXPECT_FALSE(ended.is_error());
    other.join();
  }
}

}  // namespace
}  // namespace magpie
