// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-all-optimisations
// ctest-timeout: 600
// ctest-sanitized-optimised

// Long loops and deep chains of awaits: the stack must not grow, whatever the compiler does with
// tail calls.

#include <stdexcept>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>
#include <support/small_stacks.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::on_small_stacks;
using test::scaled;

// The sanitized builds do a part of the work. A million rounds or levels that took 16 bytes of
// stack each, the least there is, would not fit there either. Where each step throws, which costs
// microseconds, it is fewer, on stacks of 256 KiB: they would not fit there by three times.
constexpr std::size_t kLoop = test::kScale == 1 ? 10'000'000 : 1'000'000;
constexpr std::size_t kDepth = 1'000'000;
constexpr std::size_t kThrown = 50'000;

Task<std::size_t> one() {
  co_return 1;
}

TEST(TaskChain, MillionsOfSynchronousAwaitsInALoop) {
  auto body = []() -> Task<std::size_t> {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < kLoop; ++i) sum += co_await one();
    co_return sum;
  };
  EXPECT_EQ(run(body(), {.threads = 1}), kLoop);
}

TEST(TaskChain, FailingAwaitsInALoop) {
  auto fail = []() -> Task<> {
    throw 1;
    co_return;
  };
  auto body = [&]() -> Task<std::size_t> {
    std::size_t caught = 0;
    for (std::size_t i = 0; i < kThrown; ++i) {
      Result<void> result = co_await as_result(fail());
      caught += result.is_error() ? 1 : 0;
    }
    co_return caught;
  };
  on_small_stacks([&] { EXPECT_EQ(run(body(), {.threads = 1}), kThrown); });
}

Task<std::size_t> deep(std::size_t n) {
  if (n == 0) co_return 0;
  std::size_t below = co_await deep(n - 1);
  co_return below + 1;
}

TEST(TaskChain, AMillionDeepAndBack) {
  EXPECT_EQ(run(deep(kDepth), {.threads = 1}), kDepth);
}

Task<std::size_t> deep_failure(std::size_t n) {
  if (n == 0) throw std::runtime_error("the bottom");
  std::size_t below = co_await deep_failure(n - 1);
  co_return below + 1;
}

TEST(TaskChain, AnErrorComesUpADeepChain) {
  on_small_stacks(
      [] { EXPECT_THROW(run(deep_failure(kThrown), {.threads = 1}), std::runtime_error); });
}

Task<std::size_t> deep_sleeper(std::size_t n, std::atomic<bool>& there, test::Ledger& ledger) {
  test::Tracked local(ledger);
  if (n == 0) {
    there = true;
    co_await sleep_for(1h);
  } else {
    co_await deep_sleeper(n - 1, there, ledger);
  }
  co_return 0;
}

TEST(TaskChain, ACancellationComesUpADeepChain) {
  on_small_stacks([] {
    WorkStealingExecutor executor({.threads = 2});
    test::Ledger ledger;
    std::atomic<bool> there{false};
    auto handle = executor.spawn(deep_sleeper(kThrown, there, ledger));
    ASSERT_TRUE(test::eventually([&] { return there.load(); }));
    EXPECT_TRUE(handle.cancel());
    EXPECT_TRUE(handle.wait().is_cancelled());
    EXPECT_EQ(ledger.alive(), 0);
    EXPECT_EQ(ledger.total(), static_cast<long>(kThrown + 1));
  });
}

TEST(TaskChain, AnExecutorThatDiesEndsADeepChain) {
  on_small_stacks([] {
    test::Ledger ledger;
    std::atomic<bool> there{false};
    {
      WorkStealingExecutor executor({.threads = 2});
      executor.spawn(deep_sleeper(kThrown, there, ledger));
      ASSERT_TRUE(test::eventually([&] { return there.load(); }));
    }
    EXPECT_EQ(ledger.alive(), 0);
  });
}

Task<std::size_t> wrap(Task<std::size_t> inner, bool await_it) {
  if (!await_it) co_return 1;
  std::size_t below = co_await std::move(inner);
  co_return below + 1;
}

Task<std::size_t> wrapped(std::size_t depth, std::size_t abandon_at) {
  Task<std::size_t> task = one();
  for (std::size_t i = 1; i < depth; ++i) task = wrap(std::move(task), i != abandon_at);
  return task;
}

TEST(TaskChain, TasksThatHoldTasksRunAMillionDeep) {
  EXPECT_EQ(run(wrapped(kDepth, kDepth), {.threads = 1}), kDepth);
}

TEST(TaskChain, AnUnstartedChainIsFreedWithoutNesting) {
  EXPECT_TRUE(wrapped(kDepth, kDepth));
}

TEST(TaskChain, AChainAbandonedInTheMiddleFreesItsRest) {
  EXPECT_EQ(run(wrapped(kDepth, kDepth / 2), {.threads = 1}), kDepth - kDepth / 2);
}

TEST(TaskChain, AChainCancelledBeforeItStartsIsFreed) {
  WorkStealingExecutor executor({.threads = 1});
  CancellationSource source;
  source.cancel();
  auto handle = executor.spawn(wrapped(kDepth, kDepth), SpawnOptions().token(source.token()));
  EXPECT_TRUE(handle.wait().is_cancelled());
}

TEST(TaskChain, YieldsAndReadySleepsInALoop) {
  auto body = []() -> Task<std::size_t> {
    std::size_t rounds = 0;
    for (; rounds < scaled(200'000); ++rounds) {
      co_await this_task::yield();
      co_await sleep_for(0s);
      co_await this_task::checkpoint();
    }
    co_return rounds;
  };
  EXPECT_EQ(run(body(), {.threads = 2}), scaled(200'000));
}

TEST(TaskChain, AwaitsOfAHandleThatIsDoneInALoop) {
  WorkStealingExecutor executor({.threads = 1});
  auto handle = executor.spawn(one());
  handle.wait();
  auto body = [&]() -> Task<std::size_t> {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < scaled(1'000'000); ++i) sum += co_await handle;
    co_return sum;
  };
  EXPECT_EQ(executor.run(body()), scaled(1'000'000));
}

TEST(TaskChain, GathersInALoopAndEmptyOnes) {
  auto body = []() -> Task<std::size_t> {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < scaled(500'000); ++i) {
      auto [a, b] = co_await gather(one(), one());
      sum += a + b;
      co_await gather(std::vector<Task<std::size_t>>());
    }
    co_return sum;
  };
  EXPECT_EQ(run(body(), {.threads = 1}), 2 * scaled(500'000));
}

TEST(TaskChain, RefusedGathersInALoop) {
  on_small_stacks([] {
    WorkStealingExecutor executor({.threads = 1});
    std::atomic<bool> started{false};
    auto body = [&]() -> Task<std::size_t> {
      started = true;
      co_await as_result(sleep_for(1h));
      std::size_t refused = 0;
      for (std::size_t i = 0; i < kThrown; ++i) {
        try {
          co_await gather(one(), one());
        } catch (const CancelledError&) {
          ++refused;
        }
      }
      co_return refused;
    };
    auto handle = executor.spawn(body());
    ASSERT_TRUE(test::eventually([&] { return started.load(); }));
    handle.cancel();
    EXPECT_EQ(handle.wait().value(), kThrown);
  });
}

TEST(TaskChain, GathersNestADeepTree) {
  struct Tree {
    static Task<std::size_t> of(std::size_t depth) {
      if (depth == 0) co_return 1;
      auto [below] = co_await gather(of(depth - 1));
      co_return below + 1;
    }
  };
  EXPECT_EQ(run(Tree::of(scaled(200'000)), {.threads = 2}), scaled(200'000) + 1);
}

}  // namespace
}  // namespace magpie
