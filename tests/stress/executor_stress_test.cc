// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600

// Random programs on random numbers of threads: everything that was started ends once, and nothing
// is left. SEED= replays the choices (not the schedule).

#include <atomic>
#include <iostream>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>
#include <support/soak.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::LifeLimit;
using test::OnForeignThread;
using test::scaled;
using test::Tracked;

struct Program {
  Ledger& ledger;
  std::atomic<long>& leaves;

  Task<long> node(Tracked tracked, std::uint64_t seed, int depth) {
    tracked.touch();
    std::mt19937_64 choose(seed);
    if (depth == 0) {
      switch (choose() % 6) {
        case 0:
          co_await this_task::yield();
          break;
        case 1:
          co_await sleep_for(std::chrono::microseconds(choose() % 50));
          break;
        case 2:
          co_await this_task::checkpoint();
          break;
        case 3:
          co_await sleep_for(0s);
          break;
        default:
          break;
      }
      ++leaves;
      co_return 1;
    }
    const std::size_t width = 1 + choose() % 4;
    long sum = 0;
    switch (choose() % 4) {
      case 0: {
        std::vector<Task<long>> below;
        for (std::size_t i = 0; i < width; ++i)
          below.push_back(node(Tracked(ledger), choose(), depth - 1));
        std::vector<long> counts = co_await gather(std::move(below));
        for (long count : counts) sum += count;
        break;
      }
      case 1: {
        auto a = node(Tracked(ledger), choose(), depth - 1);
        auto b = spawn(node(Tracked(ledger), choose(), depth - 1));
        auto both = gather(std::move(a), b, sleep_for(1us));
        auto [x, y, z] = co_await std::move(both);
        (void)z;
        sum += x + y;
        break;
      }
      case 2: {
        std::vector<JoinHandle<long>> handles;
        for (std::size_t i = 0; i < width; ++i)
          handles.push_back(spawn(node(Tracked(ledger), choose(), depth - 1)));
        for (auto& handle : handles) {
          long count = co_await std::move(handle);
          sum += count;
        }
        break;
      }
      default:
        for (std::size_t i = 0; i < width; ++i) {
          long count = co_await node(Tracked(ledger), choose(), depth - 1);
          sum += count;
        }
    }
    co_return sum;
  }
};

TEST(ExecutorStress, RandomTreesOnRandomNumbersOfThreads) {
  const std::uint64_t seed = test::seed_or(20261121);
  std::mt19937_64 random(seed);
  for (std::size_t threads : {1U, 2U, 3U, 8U, 64U}) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(threads) + " threads");
    Ledger ledger;
    std::atomic<long> leaves{0};
    long sum = 0;
    {
      WorkStealingExecutor executor({.threads = threads});
      const LifeLimit limit(executor);
      Program program{ledger, leaves};
      for (std::size_t round = 0; round < scaled(400); ++round) {
        auto a = executor.spawn(program.node(Tracked(ledger), random(), 4));
        auto b = executor.spawn(program.node(Tracked(ledger), random(), 5));
        sum += a.wait().value() + b.wait().value();
      }
    }
    EXPECT_EQ(sum, leaves.load());
    EXPECT_EQ(ledger.alive(), 0);
  }
}

// Children of a join that wait, while work from outside keeps calling the worker to its loop: a
// sibling with units of others then lies in the deque, and the next child to end takes it over too.
TEST(ExecutorStress, JoinsOfWaitingChildrenUnderWorkFromOutside) {
  for (std::size_t threads : {1U, 2U, 4U}) {
    WorkStealingExecutor executor({.threads = threads});
    const LifeLimit limit(executor);
    std::atomic<bool> stop{false};
    std::thread outside([&] {
      while (!stop.load()) {
        for (int i = 0; i < 20; ++i) executor.post([] {});
        std::this_thread::sleep_for(20us);
      }
    });
    auto child = [](std::size_t i) -> Task<std::size_t> {
      if (i % 3 == 0) co_await this_task::yield();
      if (i % 3 == 1) co_await sleep_for(std::chrono::microseconds(i % 97));
      co_return 1;
    };
    auto body = [&](std::size_t n) -> Task<std::size_t> {
      std::vector<Task<std::size_t>> tasks;
      for (std::size_t i = 0; i < n; ++i) tasks.push_back(child(i));
      std::vector<std::size_t> results = co_await gather(std::move(tasks));
      co_return results.size();
    };
    for (std::size_t round = 0; round < scaled(200); ++round) {
      const std::size_t n = 1 + round * 37 % 3000;
      ASSERT_EQ(executor.run(body(n)), n);
    }
    stop = true;
    outside.join();
  }
}

TEST(ExecutorStress, ProducersOfAllKindsAtOnce) {
  WorkStealingExecutor executor({.threads = 4});
  const LifeLimit limit(executor);
  std::atomic<long> done{0};
  const std::size_t each = scaled(3000);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto task = [](std::atomic<long>& count, int kind) -> Task<> {
        if (kind == 0) co_await sleep_for(10us);
        if (kind == 1) co_await this_task::yield();
        ++count;
      };
      for (std::size_t i = 0; i < each; ++i) {
        const int kind = static_cast<int>((i + static_cast<std::size_t>(t)) % 4);
        if (kind == 3) {
          executor.post([&] { ++done; });
        } else {
          executor.spawn(task(done, kind));
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(eventually([&] { return done.load() == static_cast<long>(4 * each); }));
}

TEST(ExecutorStress, ForeignThreadsResumeStrandsWhileWorkersComeAndGo) {
  WorkStealingExecutor executor({.threads = 3});
  const LifeLimit limit(executor);
  auto body = []() -> Task<int> {
    int sum = 0;
    for (int i = 0; i < 20; ++i) {
      auto both = gather(OnForeignThread(1), OnForeignThread(2));
      auto [a, b] = co_await std::move(both);
      sum += a + b;
    }
    co_return sum;
  };
  std::vector<JoinHandle<int>> handles;
  for (std::size_t i = 0; i < scaled(100); ++i) handles.push_back(executor.spawn(body()));
  for (std::size_t i = 0; i < scaled(60); ++i) executor.resize(1 + i % 5);
  for (auto& handle : handles) EXPECT_EQ(handle.wait().value(), 60);
}

TEST(ExecutorStress, ManyTimersArmedCancelledAndDue) {
  WorkStealingExecutor executor({.threads = 3});
  const LifeLimit limit(executor);
  auto nap = [](std::size_t i) -> Task<bool> {
    Result<void> slept = co_await as_result(
        sleep_for(i % 5 == 0 ? Duration(1h) : Duration(std::chrono::microseconds(i % 500))));
    co_return slept.has_value();
  };
  for (std::size_t round = 0; round < scaled(40); ++round) {
    std::vector<JoinHandle<bool>> handles;
    for (std::size_t i = 0; i < 1000; ++i) handles.push_back(executor.spawn(nap(i)));
    for (std::size_t i = 0; i < 1000; i += 5) handles[i].cancel();
    for (std::size_t i = 0; i < 1000; ++i) {
      const Result<bool>& result = handles[i].wait();
      if (i % 5 != 0) {
        ASSERT_TRUE(result.value());
      } else {
        ASSERT_FALSE(result.value_or(false));
      }
    }
    ASSERT_EQ(executor.stats().pending_timers, 0U);
  }
}

}  // namespace
}  // namespace magpie
