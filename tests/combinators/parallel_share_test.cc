// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (who runs what where, not how it is compiled)
// ctest-leave-out: asan (who runs what where, not what lives how long)

// CPU loops among other work: on every executor, shared by threads, nested, in races and timeouts,
// and beside tasks that want the same worker.

#include <magpie/parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::scaled;

Task<std::string> digits(int n, std::size_t grain) {
  co_return co_await parallel_reduce(
      0, n, grain, std::string(), [](int i) { return std::to_string(i % 10); }, std::plus<>());
}

std::string expected_digits(int n) {
  std::string all;
  for (int i = 0; i < n; ++i) all += std::to_string(i % 10);
  return all;
}

// What nobody has stolen is no piece of its own: its positions go to the value that is there.
TEST(ParallelShare, WhereNobodyStealsNothingIsMerged) {
  struct Sum {
    Sum() {}
    long value = 0;
  };
  struct Add {
    int* merges;
    Sum operator()(Sum sum, int i) const {
      sum.value += i;
      return sum;
    }
    Sum operator()(Sum a, Sum b) const {
      ++*merges;
      a.value += b.value;
      return a;
    }
  };
  WorkStealingExecutor executor({.threads = 1});
  int merges = 0;
  const Add add{&merges};
  auto body = [&]() -> Task<long> {
    auto sum = parallel_reduce(0, 32, 1, Sum(), [](int i) { return i; }, add);
    co_return (co_await std::move(sum)).value;
  };
  EXPECT_EQ(executor.run(body()), 496);
  EXPECT_EQ(merges, 0);
}

TEST(ParallelShare, OnTbb) {
  TbbExecutor executor({.threads = 3});
  std::atomic<int> calls{0};
  auto body = [&]() -> Task<> {
    co_await parallel_for(0, 10'000, 3, [&](int) { ++calls; });
    std::string all = co_await digits(5000, 7);
    EXPECT_EQ(all, expected_digits(5000));
    auto failing = parallel_for(0, 1000, 1, [](int i) {
      if (i == 500) throw std::runtime_error("500");
    });
    Result<void> result = co_await as_result(std::move(failing));
    EXPECT_EQ(test::what_of(result.error()), "500");
  };
  executor.run(body());
  EXPECT_EQ(calls, 10'000);
}

TEST(ParallelShare, InEveryOrderOfTheSimulator) {
  std::set<std::vector<int>> orders;
  testing::explore(scaled(1000), [&](testing::SimulatedExecutor& executor) {
    std::vector<int> order;  // one thread
    auto body = [&]() -> Task<> {
      co_await parallel_for(0, 32, 1, [&](int i) { order.push_back(i); });
      std::string all = co_await digits(100, 1);
      EXPECT_EQ(all, expected_digits(100));
    };
    executor.run(body());
    orders.insert(order);
    std::ranges::sort(order);
    EXPECT_EQ(order.size(), 32U);
    EXPECT_EQ(order.front(), 0);
    EXPECT_EQ(order.back(), 31);
  });
  if (std::getenv("MAGPIE_SEED") != nullptr) return;
  EXPECT_GT(orders.size(), scaled(1000) / 10);
}

// Cancelled at any moment: the value, or CancelledError with nothing running, and each call at most
// once.
TEST(ParallelShare, CancelledAtEveryMomentOfTheSimulator) {
  std::size_t ended = 0;
  std::size_t cancelled = 0;
  testing::explore(scaled(1000), [&](testing::SimulatedExecutor& executor) {
    std::vector<int> calls(32);
    auto loop = [&]() -> Task<> {
      co_await parallel_for(0, 32, 1, [&](int i) { ++calls[static_cast<std::size_t>(i)]; });
    };
    auto body = [&]() -> Task<> {
      auto handle = spawn(loop());
      for (int i = 0; i < 4; ++i) co_await this_task::yield();  // each lasts some steps
      handle.cancel();
      Result<void> result = co_await as_result(handle);
      const bool all = std::ranges::all_of(calls, [](int n) { return n == 1; });
      if (result.has_value()) {
        EXPECT_TRUE(all);
        ++ended;
      } else {
        EXPECT_TRUE(result.is_cancelled());
        EXPECT_FALSE(all);
        ++cancelled;
      }
      EXPECT_TRUE(std::ranges::all_of(calls, [](int n) { return n <= 1; }));
    };
    executor.run(body());
  });
  if (std::getenv("MAGPIE_SEED") != nullptr) return;
  EXPECT_GT(cancelled, 0U);
  EXPECT_GT(ended, 0U);
}

// Each call waits until another is running: a loop that stayed on one thread would never end.
TEST(ParallelShare, IdleWorkersTakeTheirShare) {
  WorkStealingExecutor executor({.threads = 4});
  std::atomic<int> inside{0};
  auto body = [&]() -> Task<> {
    co_await parallel_for(0, 4, 1, [&](int) {
      ++inside;
      EXPECT_TRUE(eventually([&] { return inside >= 4; }));
    });
  };
  executor.run(body());
  // The automatic grain of a short range is one.
  inside = 0;
  auto automatic = [&]() -> Task<> {
    co_await parallel_for(0, 4, 0, [&](int) {
      ++inside;
      EXPECT_TRUE(eventually([&] { return inside >= 4; }));
    });
  };
  executor.run(automatic());
}

TEST(ParallelShare, LoopsWithinLoopsTasksAndRaces) {
  WorkStealingExecutor executor({.threads = 3});
  auto body = [&]() -> Task<> {
    std::atomic<int> calls{0};
    auto inner = [&](int n) -> Task<> { co_await parallel_for(0, n, 1, [&](int) { ++calls; }); };
    auto all = gather(inner(100), inner(200), parallel_for(0, 300, 1, [&](int) { ++calls; }),
                      parallel_reduce(0, 10, 1, 0, [](int i) { return i; }, std::plus<>()));
    auto [a, b, c, sum] = co_await std::move(all);
    (void)a;
    (void)b;
    (void)c;
    EXPECT_EQ(sum, 45);
    EXPECT_EQ(calls, 600);
    auto contest = race(inner(1000), test::never());
    auto won = co_await std::move(contest);
    EXPECT_EQ(won.index, 0U);
    auto given =
        executor.spawn(parallel_reduce(0, 100, 1, 0, [](int i) { return i; }, std::plus<>()));
    int spawned = co_await given;
    EXPECT_EQ(spawned, 4950);
  };
  executor.run(body());
}

TEST(ParallelShare, ATimeoutEndsALoop) {
  test::Machine machine(2);
  std::atomic<long> calls{0};
  auto body = [&]() -> Task<> {
    // More than the other worker can do while the one that advances the clock stands still.
    auto loop = parallel_for(0L, 1'000'000'000'000L, 1, [&](long) {
      if (++calls == 100) machine.clock.advance(1s);
    });
    auto limited = timeout(std::move(loop), 500ms);
    Result<void> result = co_await as_result(std::move(limited));
    EXPECT_TRUE(result.is_timeout());
  };
  machine.run(body);
  EXPECT_GE(calls, 100);
}

TEST(ParallelShare, WorkFromOutsideHasItsTurnDuringALoop) {
  for (const std::size_t threads : {1U, 2U}) {
    WorkStealingExecutor executor({.threads = threads});
    std::atomic<bool> posted{false};
    auto body = [&]() -> Task<> {
      // More than can be done before somebody has taken what is posted.
      co_await parallel_for(0L, 1'000'000'000'000L, 1, [&](long i) {
        if (i == 0) std::thread([&] { executor.post([&] { posted = true; }); }).join();
        if (posted) throw std::runtime_error("seen");
      });
    };
    EXPECT_THROW(executor.run(body()), std::runtime_error);
  }
}

TEST(ParallelShare, ATaskThatIsReadyOnTheSameWorkerHasItsTurnDuringALoop) {
  WorkStealingExecutor executor({.threads = 1});
  std::atomic<bool> ran{false};
  auto other = [&]() -> Task<> {
    ran = true;
    co_return;
  };
  auto body = [&]() -> Task<> {
    auto handle = spawn(other());
    co_await parallel_for(0, 1'000'000'000, 1, [&](int) {
      if (ran) throw std::runtime_error("seen");
    });
  };
  EXPECT_THROW(executor.run(body()), std::runtime_error);
}

TEST(ParallelShare, TheLoopGoesOnWhereItsTaskIs) {
  WorkStealingExecutor home({.threads = 2});
  WorkStealingExecutor other({.threads = 2});
  auto body = [&]() -> Task<> {
    auto elsewhere = [&]() -> Task<> {
      std::atomic<int> strangers{0};
      co_await parallel_for(0, 1000, 1, [&](int) {
        if (detail::current_executor() != &other) ++strangers;
      });
      EXPECT_EQ(strangers, 0);
      EXPECT_EQ(detail::current_executor(), &other);
    };
    co_await on(other, elsewhere());
    EXPECT_EQ(detail::current_executor(), &home);
  };
  home.run(body());
}

TEST(ParallelShare, TasksThatAFunctionSpawnsInheritTheTaskLocals) {
  WorkStealingExecutor executor({.threads = 3});
  TaskLocal<int> local{0};
  std::atomic<int> right{0};
  auto child = [&]() -> Task<> {
    int seen = co_await local.get();
    if (seen == 7) ++right;
  };
  auto loop = [&]() -> Task<> {
    std::vector<JoinHandle<void>> handles(200);
    co_await parallel_for(std::size_t{0}, handles.size(), 1,
                          [&](std::size_t i) { handles[i] = spawn(child()); });
    for (auto& handle : handles) co_await handle;
  };
  auto body = [&]() -> Task<> { co_await local.with(7, loop()); };
  executor.run(body());
  EXPECT_EQ(right, 200);
}

TEST(ParallelShare, ManyLoopsWhileWorkersComeAndGo) {
  WorkStealingExecutor executor({.threads = 3});
  auto body = [](std::size_t grain) -> Task<> {
    std::string all = co_await digits(777, grain);
    EXPECT_EQ(all, expected_digits(777));
  };
  std::vector<JoinHandle<void>> handles;
  for (std::size_t i = 0; i < scaled(2000); ++i)
    handles.push_back(executor.spawn(body(1 + i % 50)));
  for (std::size_t i = 0; i < scaled(40); ++i) executor.resize(1 + i % 4);
  for (auto& handle : handles) handle.wait().value();
}

// What is cancelled from another thread either has its value or was stopped, and never hangs.
TEST(ParallelShare, CancelledFromAnotherThread) {
  WorkStealingExecutor executor({.threads = 3});
  for (std::size_t round = 0; round < scaled(500); ++round) {
    std::atomic<int> calls{0};
    auto body = [&]() -> Task<int> {
      co_return co_await parallel_reduce(
          0, 2000, 1, 0,
          [&](int) {
            ++calls;
            return 1;
          },
          std::plus<>());
    };
    auto handle = executor.spawn(body());
    while (calls < static_cast<int>(round % 40)) std::this_thread::yield();
    handle.cancel();
    const Result<int>& result = handle.wait();
    if (result.has_value()) {
      EXPECT_EQ(result.value(), 2000);
    } else {
      EXPECT_TRUE(result.is_cancelled());
    }
  }
}

}  // namespace
}  // namespace magpie
