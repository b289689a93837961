// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)

// to_thread: what api.md, section 7, says of it.

#include <magpie/blocking.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Blocking : public OnMachine {};

/// Holds threads back until it is opened.
class Gate {
 public:
  void open() {
    std::lock_guard guard(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    ++inside_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void await_inside(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return inside_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int inside_ = 0;
};

TEST_ON_THREADS(Blocking, GivesWhatTheFunctionGivesFromAnotherThread) {
  int object = 1;
  machine.run([&]() -> Task<> {
    const auto worker = std::this_thread::get_id();
    const int value = co_await to_thread([&] {
      EXPECT_NE(std::this_thread::get_id(), worker);
      return 4;
    });
    EXPECT_EQ(value, 4);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
    bool called = false;
    co_await to_thread([&] { called = true; });
    EXPECT_TRUE(called);
    int& same = co_await to_thread([&]() -> int& { return object; });
    EXPECT_EQ(&same, &object);
    MoveOnly moved = co_await to_thread([] { return MoveOnly(3); });
    EXPECT_EQ(moved.value(), 3);
  });
}

TEST_ON_THREADS(Blocking, WhatItThrowsLeavesTheAwait) {
  machine.run([&]() -> Task<> {
    Result<int> r =
        co_await as_result(to_thread([]() -> int { throw std::runtime_error("blocked"); }));
    EXPECT_EQ(what_of(r.error()), "blocked");
    Result<void> cancelled = co_await as_result(to_thread([] { throw CancelledError(); }));
    EXPECT_TRUE(cancelled.is_cancelled());
  });
}

TEST_ON_THREADS(Blocking, FunctionIsMovedInAndLivesUntilTheEnd) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto call = to_thread([tracked = Tracked(ledger), number = std::make_unique<int>(5)] {
      tracked.touch();
      return *number;
    });
    const int value = co_await std::move(call);
    EXPECT_EQ(value, 5);
    int calls = 0;
    auto counting = [&calls]() mutable { return ++calls; };
    co_await to_thread(counting);
    co_await to_thread(counting);
    EXPECT_EQ(calls, 2);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(Blocking, DoesNotOccupyWorkers) {
  Gate gate;
  machine.run([&]() -> Task<> {
    auto open = [&]() -> Task<> {
      co_await this_task::yield();
      gate.open();
    };
    std::vector<Task<>> tasks;
    for (int i = 0; i < 8; ++i) {
      tasks.push_back([](Gate& g) -> Task<> { co_await to_thread([&g] { g.pass(); }); }(gate));
    }
    tasks.push_back(open());
    co_await gather(std::move(tasks));
  });
}

TEST_ON_THREADS(Blocking, InACancelledScopeNothingIsCalled) {
  bool called = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await to_thread([&] { called = true; });
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
  });
  EXPECT_FALSE(called);
}

TEST_ON_THREADS(Blocking, CancelledWhileItRunsItsValueWins) {
  Gate gate;
  machine.run([&]() -> Task<> {
    auto call = [&]() -> Task<int> {
      const int value = co_await to_thread([&] {
        gate.pass();
        return 6;
      });
      Result<void> after = co_await as_result(this_task::checkpoint());
      EXPECT_TRUE(after.is_cancelled());
      co_return value;
    };
    JoinHandle<int> handle = executor.spawn(call());
    co_await to_thread([&] { gate.await_inside(1); });
    EXPECT_TRUE(handle.cancel());
    EXPECT_FALSE(handle.done());
    gate.open();
    const int value = co_await handle;
    EXPECT_EQ(value, 6);
  });
}

TEST_ON_THREADS(Blocking, TimeDoesNotMoveWhileACallRuns) {
  machine.run([&]() -> Task<> {
    auto later = executor.spawn(nothing_after(1h));
    co_await to_thread([] { std::this_thread::sleep_for(2ms); });
    EXPECT_EQ(machine.elapsed(), 0ms);
    later.cancel();
  });
}

TEST(BlockingPoolLimits, CancelledWhileQueuedItIsWithdrawn) {
  WorkStealingExecutor executor({.threads = 1, .max_blocking_threads = 1});
  Gate gate;
  std::atomic<int> called{0};
  auto occupy = [&]() -> Task<> { co_await to_thread([&] { gate.pass(); }); };
  auto queued = [&]() -> Task<> { co_await to_thread([&] { called.fetch_add(1); }); };
  JoinHandle<void> first = executor.spawn(occupy());
  gate.await_inside(1);
  JoinHandle<void> second = executor.spawn(queued());
  JoinHandle<void> third = executor.spawn(queued());
  auto tick = [&]() -> Task<> { co_await sleep_for(1ms); };
  executor.run(tick());
  second.cancel();
  EXPECT_TRUE(second.wait().is_cancelled());  // although the only thread is busy
  EXPECT_EQ(called.load(), 0);
  gate.open();
  EXPECT_TRUE(third.wait().has_value());
  EXPECT_TRUE(first.wait().has_value());
  EXPECT_EQ(called.load(), 1);
}

TEST(BlockingPoolLimits, NeverMoreThreadsThanAllowedAndFirstInFirstOut) {
  WorkStealingExecutor executor({.threads = 2, .max_blocking_threads = 3});
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  auto call = [&]() -> Task<> {
    co_await to_thread([&] {
      const int now = inside.fetch_add(1) + 1;
      int seen = most.load();
      while (seen < now && !most.compare_exchange_weak(seen, now)) {
      }
      EXPECT_TRUE(eventually([&] { return most.load() >= 2; }));
      inside.fetch_sub(1);
    });
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<>> tasks;
    for (int i = 0; i < 30; ++i) tasks.push_back(call());
    co_await gather(std::move(tasks));
  };
  executor.run(body());
  EXPECT_LE(most.load(), 3);
  EXPECT_GE(most.load(), 2);
}

TEST(BlockingPoolLimits, ExecutorWaitsForACallThatRuns) {
  std::atomic<bool> finished{false};
  Gate gate;
  {
    WorkStealingExecutor executor({.threads = 1});
    auto call = [&]() -> Task<> {
      co_await to_thread([&] {
        gate.pass();
        std::this_thread::sleep_for(2ms);
        finished = true;
      });
    };
    JoinHandle<void> handle = executor.spawn(call());
    gate.await_inside(1);
    gate.open();
  }
  EXPECT_TRUE(finished.load());
}

// Calls, withdrawals and the ends of calls cross: every call that began has ended before its
// awaiter goes on.
TEST(BlockingAcrossThreads, CancellationsCrossWithCalls) {
  Ledger ledger;
  {
    WorkStealingExecutor executor({.threads = 2, .max_blocking_threads = 2});
    auto body = [&](std::uint64_t seed) -> Task<> {
      detail::Random random(seed);
      for (int i = 0; i < 150; ++i) {
        auto state = std::make_shared<Tracked>(ledger);
        auto function = [state] { state->touch(); };
        auto call = to_thread(std::move(function));
        Result<void> r =
            co_await try_timeout(std::move(call), std::chrono::microseconds(random.below(60)));
        EXPECT_TRUE(r.has_value() || r.is_timeout());
      }
    };
    std::vector<JoinHandle<void>> handles;
    for (std::uint64_t i = 0; i < 6; ++i) handles.push_back(executor.spawn(body(i)));
    for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  }
  EXPECT_EQ(ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
