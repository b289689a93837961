// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)

#include <magpie/magpie.h>
#include <magpie/tbb_executor.h>

#include <gtest/gtest.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <support/foreign.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;

Task<long> fib(int n) {
  if (n < 2) co_return n;
  auto [a, b] = co_await gather(fib(n - 1), fib(n - 2));
  co_return a + b;
}

Task<int> after(Duration delay, int value) {
  co_await sleep_for(delay);
  co_return value;
}

Task<int> fails_after(Duration delay) {
  co_await sleep_for(delay);
  throw std::runtime_error("no");
}

TEST(TbbExecutor, RunsForkJoinTrees) {
  TbbExecutor executor({.threads = 2});
  EXPECT_EQ(executor.thread_count(), 2U);
  EXPECT_EQ(executor.run(fib(16)), 987);
}

TEST(TbbExecutor, RunsOnAnArenaThatIsGiven) {
  tbb::task_arena arena(2);
  TbbExecutor executor(arena);
  EXPECT_EQ(executor.thread_count(), 2U);
  EXPECT_EQ(executor.run(fib(12)), 144);
}

TEST(TbbExecutor, SharesItsArenaWithTheRestOfTheProgram) {
  tbb::task_arena arena(2);
  TbbExecutor executor(arena);
  JoinHandle<long> handle = executor.spawn(fib(16));
  std::atomic<int> ran{0};
  arena.execute([&] { tbb::parallel_for(0, 1000, [&](int) { ran.fetch_add(1); }); });
  EXPECT_EQ(ran.load(), 1000);
  EXPECT_EQ(handle.wait().value(), 987);
}

TEST(TbbExecutor, SleepsInVirtualTimeWithoutWaiting) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  const Deadline start = clock.now();
  executor.run(gather(after(24h, 1), after(12h, 2)));
  EXPECT_EQ(clock.now() - start, 24h);
}

TEST(TbbExecutor, RunsEveryKindOfCombinator) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  auto program = []() -> Task<std::string> {
    std::string log;
    auto first = co_await race(after(2s, 1), after(1s, 2));
    log += "race " + std::to_string(first.index) + "; ";
    auto good = co_await any(fails_after(1s), after(2s, 7));
    log += "any " + std::to_string(good.value) + "; ";
    Result<int> late = co_await try_timeout(after(1h, 1), 1s);
    log += late.is_timeout() ? "timeout; " : "no timeout; ";
    auto group = [](TaskGroup& g) -> Task<int> {
      JoinHandle<int> a = g.spawn(after(1s, 3));
      g.spawn(after(2s, 4));
      co_return co_await a;
    };
    log += "group " + std::to_string(co_await task_group(group)) + "; ";
    Semaphore semaphore(1);
    {
      Permit permit = co_await semaphore.acquire();
      log += "free " + std::to_string(semaphore.available()) + "; ";
    }
    auto blocking = [] { return 5; };
    log += "thread " + std::to_string(co_await to_thread(blocking));
    co_return log;
  };
  EXPECT_EQ(executor.run(program()), "race 1; any 7; timeout; group 3; free 0; thread 5");
}

TEST(TbbExecutor, PostsFromManyThreadsAllRun) {
  std::atomic<int> ran{0};
  {
    TbbExecutor executor({.threads = 2});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i)
          executor.post([&] { ran.fetch_add(1, std::memory_order_relaxed); });
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(ran.load(), 4000);
}

TEST(TbbExecutor, ShutdownRefusesNewWorkAndReportsWhatEnded) {
  TbbExecutor executor({.threads = 2});
  JoinHandle<int> sleeper = executor.spawn(after(1h, 1));
  const ShutdownReport report = executor.shutdown(Duration());
  EXPECT_EQ(report.cancelled, 1U);
  EXPECT_TRUE(sleeper.cancelled());
  EXPECT_THROW((void)executor.spawn(after(1s, 1)), ExecutorShutdownError);
  EXPECT_THROW(executor.post([] {}), ExecutorShutdownError);
}

TEST(TbbExecutor, ItsDestructorEndsTasksThatSleep) {
  std::vector<JoinHandle<int>> handles;
  {
    TbbExecutor executor({.threads = 2});
    for (int i = 0; i < 1000; ++i) handles.push_back(executor.spawn(after(1h, i)));
  }
  for (const JoinHandle<int>& handle : handles) EXPECT_TRUE(handle.cancelled());
}

TEST(TbbExecutor, StatsCountWhatItRan) {
  TbbExecutor executor({.threads = 2});
  EXPECT_EQ(executor.stats().total.tasks_run, 0U);
  auto handle = executor.spawn(after(1h, 1));
  while (executor.stats().pending_timers != 1) std::this_thread::yield();
  EXPECT_EQ(executor.stats().live_tasks, 1U);
  handle.cancel();
  handle.wait();
  const ExecutorStats stats = executor.stats();
  EXPECT_GE(stats.total.tasks_run, 2U);  // its start, and its end after the cancellation
  EXPECT_EQ(stats.total.injected, stats.total.tasks_run);
  EXPECT_EQ(stats.pending_timers, 0U);
}

TEST(TbbExecutor, RefusesPinnedThreads) {
  EXPECT_THROW(TbbExecutor({.pin_threads = true}), std::invalid_argument);
}

// oneTBB's own limit holds for the whole process, and of several the smallest counts.
TEST(TbbExecutor, ASmallOneTakesNoThreadsFromALargerOne) {
  constexpr std::size_t kThreads = 4;
  TbbExecutor large({.threads = kThreads});
  TbbExecutor small({.threads = 1});
  small.run(after(0ms, 1));
  std::atomic<std::size_t> there{0};
  auto meet = [&]() -> Task<bool> {
    there.fetch_add(1);
    const bool met = test::eventually([&] { return there.load() == kThreads; });
    co_return met;
  };
  std::vector<Task<bool>> all;
  for (std::size_t i = 0; i < kThreads; ++i) all.push_back(meet());
  const std::vector<bool> met = large.run(gather(std::move(all)));
  EXPECT_EQ(std::count(met.begin(), met.end(), true), static_cast<std::ptrdiff_t>(kThreads));
}

}  // namespace
}  // namespace magpie
