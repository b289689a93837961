// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 300
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)

// The end of an executor: draining, cancelling, refusing, and everything that races with it.

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/clock.h>
#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::scaled;
using test::Tracked;

Task<int> give(int value) {
  co_return value;
}
Task<> sleep_long() {
  co_await sleep_for(1h);
}

TEST(Shutdown, WaitsForWhatEndsWithinTheDrain) {
  ManualClock clock;  // none ends before the call
  WorkStealingExecutor executor({.threads = 2, .clock = &clock});
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 10; ++i) handles.push_back(executor.spawn(sleep_for(2ms)));
  ShutdownReport report = executor.shutdown(1h);
  EXPECT_EQ(report.completed, 10U);
  EXPECT_EQ(report.cancelled, 0U);
  for (auto& handle : handles) EXPECT_TRUE(handle.result());
}

TEST(Shutdown, CancelsTheRestWithItsOwnReason) {
  ManualClock clock;
  WorkStealingExecutor executor({.threads = 2, .clock = &clock});
  auto quick = executor.spawn(sleep_for(1ms));
  auto slow = executor.spawn(sleep_long());
  ShutdownReport report = executor.shutdown(20ms);
  EXPECT_EQ(report.completed, 1U);
  EXPECT_EQ(report.cancelled, 1U);
  EXPECT_TRUE(quick.result());
  try {
    slow.result().value();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().kind, CancelKind::shutdown);
  }
}

TEST(Shutdown, ZeroDrainCancelsAtOnce) {
  WorkStealingExecutor executor({.threads = 2});
  auto slow = executor.spawn(sleep_long());
  ShutdownReport report = executor.shutdown(0s);
  EXPECT_EQ(report.cancelled, 1U);
  EXPECT_TRUE(slow.cancelled());
}

TEST(Shutdown, LaterCallsGiveNothing) {
  WorkStealingExecutor executor({.threads = 2});
  executor.spawn(give(1)).wait();
  executor.shutdown(1s);
  ShutdownReport report = executor.shutdown(1s);
  EXPECT_EQ(report.completed, 0U);
  EXPECT_EQ(report.cancelled, 0U);
}

TEST(Shutdown, AfterItWorkIsRefused) {
  WorkStealingExecutor executor({.threads = 2});
  executor.shutdown(0s);
  Ledger ledger;
  auto body = [](Tracked tracked) -> Task<> {
    tracked.touch();
    co_return;
  };
  EXPECT_THROW(executor.spawn(body(Tracked(ledger))), ExecutorShutdownError);
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_GT(ledger.total(), 0);
  EXPECT_THROW(executor.run(give(1)), ExecutorShutdownError);
  EXPECT_THROW(executor.post([] {}), ExecutorShutdownError);
  CancellationSource source;
  EXPECT_THROW(executor.spawn(give(1), SpawnOptions().token(source.token())),
               ExecutorShutdownError);
  source.cancel();
  EXPECT_THROW(executor.spawn(give(1), SpawnOptions().token(source.token())),
               ExecutorShutdownError);
  WorkStealingExecutor other({.threads = 1});
  auto elsewhere = [&]() -> Task<> {
    executor.spawn(give(1));
    co_return;
  };
  EXPECT_THROW(other.run(elsewhere()), ExecutorShutdownError);
}

TEST(Shutdown, RunningTasksMaySpawnWhileItDrains) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> draining{false};
  std::atomic<int> ran{0};
  auto child = [&]() -> Task<> {
    ++ran;
    co_return;
  };
  auto body = [&]() -> Task<> {
    while (!draining.load()) co_await this_task::yield();
    co_await sleep_for(2ms);
    for (int i = 0; i < 5; ++i) spawn(child());
    executor.post([&] { ++ran; });
  };
  executor.spawn(body());
  std::thread outsider([&] {
    // From outside the door closes: at some moment spawn throws.
    EXPECT_TRUE(eventually([&] {
      try {
        executor.spawn(give(1));
        return false;
      } catch (const ExecutorShutdownError&) {
        return true;
      }
    }));
    draining = true;
  });
  ShutdownReport report = executor.shutdown(1h);
  outsider.join();
  EXPECT_EQ(ran.load(), 6);
  EXPECT_GE(report.completed, 6U);
  EXPECT_EQ(report.cancelled, 0U);
}

TEST(Shutdown, WhatIsSpawnedWhileItCancelsIsBornCancelled) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> started{false};
  std::atomic<bool> child_ran{false};
  std::atomic<bool> child_cancelled{false};
  auto child = [&]() -> Task<> {
    child_ran = true;
    co_return;
  };
  auto body = [&]() -> Task<> {
    started = true;
    Result<void> slept = co_await as_result(sleep_for(1h));
    EXPECT_TRUE(slept.is_cancelled());
    auto handle = spawn(child());
    handle.on_done([&](const Result<void>& result) { child_cancelled = result.is_cancelled(); });
  };
  auto parent = executor.spawn(body());
  ASSERT_TRUE(eventually([&] { return started.load(); }));
  executor.shutdown(0s);
  EXPECT_TRUE(parent.done());
  EXPECT_FALSE(child_ran.load());
  EXPECT_TRUE(child_cancelled.load());
}

TEST(Shutdown, ConcurrentCallsAgree) {
  for (int round = 0; round < 50; ++round) {
    WorkStealingExecutor executor({.threads = 2});
    for (int i = 0; i < 10; ++i) executor.spawn(sleep_long());
    std::atomic<std::size_t> cancelled{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        ShutdownReport report = executor.shutdown(100us);
        cancelled += report.cancelled;
      });
    }
    for (auto& thread : threads) thread.join();
    ASSERT_EQ(cancelled.load(), 10U);
  }
}

TEST(Shutdown, DestructorEndsSleepersWaitersAndComputers) {
  Ledger ledger;
  const std::size_t each = scaled(100'000) / 3;
  auto sleeper = [](Tracked tracked) -> Task<> {
    tracked.touch();
    co_await sleep_for(1h);
  };
  auto waiter = [](Tracked tracked, JoinHandle<void> h) -> Task<> {
    tracked.touch();
    co_await h;
  };
  auto computer = [](Tracked tracked) -> Task<> {
    tracked.touch();
    for (;;) {
      co_await this_task::checkpoint();
      co_await this_task::yield();
    }
  };
  std::vector<JoinHandle<void>> handles;
  {
    WorkStealingExecutor executor({.threads = 4});
    auto target = executor.spawn(sleep_long());
    for (std::size_t i = 0; i < each; ++i) {
      handles.push_back(executor.spawn(sleeper(Tracked(ledger))));
      handles.push_back(executor.spawn(waiter(Tracked(ledger), target)));
      handles.push_back(executor.spawn(computer(Tracked(ledger))));
    }
  }
  EXPECT_EQ(ledger.alive(), 0);
  for (auto& handle : handles) ASSERT_TRUE(handle.cancelled());
}

TEST(Shutdown, DestructorWaitsForCleanups) {
  std::atomic<bool> cleaned{false};
  std::atomic<bool> started{false};
  auto helper = [](std::atomic<bool>& flag) -> Task<> {
    flag = true;
    co_return;
  };
  auto body = [&]() -> Task<> {
    started = true;
    co_await as_result(sleep_for(1h));
    co_await helper(cleaned);
  };
  {
    WorkStealingExecutor executor({.threads = 2});
    executor.spawn(body());
    ASSERT_TRUE(eventually([&] { return started.load(); }));
  }
  EXPECT_TRUE(cleaned.load());
}

TEST(Shutdown, DestructorRunsWhatWasPosted) {
  std::atomic<int> ran{0};
  {
    WorkStealingExecutor executor({.threads = 1});
    for (int i = 0; i < 1000; ++i) executor.post([&] { ++ran; });
  }
  EXPECT_EQ(ran.load(), 1000);
}

TEST(Shutdown, RacesWithSpawnPostRunAndCancel) {
  for (std::size_t round = 0; round < scaled(300); ++round) {
    auto executor = std::make_unique<WorkStealingExecutor>(ExecutorOptions{.threads = 3});
    std::atomic<bool> go{false};
    std::atomic<int> accepted{0};
    std::atomic<int> executed{0};
    auto task = [](std::atomic<int>& count, bool sleeps) -> Task<> {
      struct Count {
        std::atomic<int>& c;
        ~Count() { ++c; }
      } at_end{count};
      if (sleeps) co_await sleep_for(1h);
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        while (!go.load()) std::this_thread::yield();
        for (int i = 0;; ++i) {
          try {
            if ((i + t) % 4 == 0) {
              executor->post([&] { ++executed; });
              ++accepted;
            } else if ((i + t) % 4 == 1) {
              executor->run(give(1));
            } else {
              auto handle = executor->spawn(task(executed, (i + t) % 4 == 2));
              if (i % 3 == 0) handle.cancel();
            }
          } catch (const ExecutorShutdownError&) {
            return;
          } catch (const CancelledError&) {
            // run() was under way when the executor began to cancel
          }
        }
      });
    }
    go = true;
    std::this_thread::sleep_for(std::chrono::microseconds(round % 200));
    executor->shutdown(std::chrono::microseconds(round % 3 * 100));
    for (auto& thread : threads) thread.join();
    ASSERT_GE(executed.load(), accepted.load());
    ASSERT_EQ(executor->stats().live_tasks, 0U);
    executor.reset();
  }
}

TEST(Shutdown, CyclesOfStartLoadAndStop) {
  for (std::size_t round = 0; round < scaled(1000); ++round) {
    WorkStealingExecutor executor({.threads = 1 + round % 4});
    auto nap = []() -> Task<> { co_await sleep_for(1us); };
    executor.spawn(sleep_long());
    auto joined = executor.spawn(gather(nap(), nap(), this_task::yield()));
    if (round % 2 == 0) joined.wait();
    if (round % 5 == 0) executor.resize(1 + round % 3);
  }
}

TEST(Shutdown, AnExecutorMayDieWhileAnotherWaitsForItsTasks) {
  for (int round = 0; round < 100; ++round) {
    WorkStealingExecutor survivor({.threads = 1});
    auto dying = std::make_unique<WorkStealingExecutor>(ExecutorOptions{.threads = 2});
    auto target = dying->spawn(sleep_long());
    auto waiter = [](JoinHandle<void> h) -> Task<bool> {
      Result<void> result = co_await as_result(h);
      co_return result.is_cancelled();
    };
    auto waiting = survivor.spawn(waiter(target));
    std::thread other([&] { EXPECT_TRUE(target.wait().is_cancelled()); });
    dying.reset();
    EXPECT_TRUE(waiting.wait().value());
    other.join();
  }
}

TEST(Shutdown, CancellingThroughATokenRacesWithDestruction) {
  for (std::size_t round = 0; round < scaled(400); ++round) {
    CancellationSource source;
    auto executor = std::make_unique<WorkStealingExecutor>(ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 4; ++i)
      handles.push_back(executor->spawn(sleep_long(), SpawnOptions().token(source.token())));
    std::thread canceller([&] { source.cancel(); });
    std::thread second([h = handles.front()] { h.cancel(); });
    executor.reset();
    canceller.join();
    second.join();
    for (auto& handle : handles) ASSERT_TRUE(handle.cancelled());
  }
}

}  // namespace
}  // namespace magpie
