// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600

// Random programs of functions that fork functions, in tasks that fork tasks, while workers come
// and go and work comes from outside: each function runs once, each value is destroyed once, each
// error arrives. SEED= replays the choices (not the schedule).

#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/ledger.h>
#include <support/scale.h>
#include <support/soak.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::Ledger;
using test::scaled;
using test::Tracked;

struct Failed {};

class Program {
 public:
  Program(Ledger& ledger, bool with_errors) : ledger_(ledger), with_errors_(with_errors) {}

  // How many functions it is: what forks says beforehand.
  struct Counted {
    Tracked tracked;
    long leaves;
  };

  // Nothing in here is drawn twice: the seed decides the whole tree.
  Counted function(std::uint64_t seed, int depth) {
    std::mt19937_64 choose(seed);
    if (depth == 0 || choose() % 8 == 0) return leaf(choose());
    const std::uint64_t first = choose();
    const std::uint64_t second = choose();
    const int below = depth - 1 - static_cast<int>(choose() % 2 != 0 && depth > 1);
    auto [a, b] = fork_join([&] { return function(first, depth - 1); },
                            [&] { return function(second, below); });
    return {Tracked(ledger_), a.leaves + b.leaves};
  }

  Task<long> task(std::uint64_t seed, int depth) {
    std::mt19937_64 choose(seed);
    if (depth == 0) {
      const Counted counted = function(choose(), 9);
      co_return counted.leaves;
    }
    switch (choose() % 4) {
      case 0: {
        auto both = gather(task(choose(), depth - 1), task(choose(), depth - 1));
        auto [a, b] = co_await std::move(both);
        co_return a + b;
      }
      case 1: {
        co_await this_task::yield();
        co_return co_await task(choose(), depth - 1);
      }
      case 2: {
        auto handle = spawn(task(choose(), depth - 1));
        const long own = function(choose(), 6).leaves;
        const long others = co_await handle;
        co_return own + others;
      }
      default: {
        const std::uint64_t below = choose();
        co_return co_await parallel_reduce(
            0, 16, 1, 0L,
            [this, below](int i) { return function(below + static_cast<unsigned>(i), 5).leaves; },
            std::plus<>());
      }
    }
  }

  long leaves() const { return leaves_.load(); }
  long errors() const { return errors_.load(); }

 private:
  Counted leaf(std::uint64_t kind) {
    ++leaves_;
    switch (kind % 64) {
      case 0:
        std::this_thread::sleep_for(std::chrono::microseconds(kind / 64 % 300));
        break;
      case 1:
        std::this_thread::yield();
        break;
      case 2:
        spawn(nothing());
        break;  // into the deque of coroutines, above what lies there
      case 3:
        if (with_errors_ && kind / 64 % 16 == 0) {
          ++errors_;
          throw Failed();
        }
        break;
      default:
        break;
    }
    return {Tracked(ledger_), 1};
  }

  static Task<> nothing() { co_return; }

  Ledger& ledger_;
  const bool with_errors_;
  std::atomic<long> leaves_{0};
  std::atomic<long> errors_{0};
};

TEST(ForkJoinStress, RandomProgramsOnRandomNumbersOfThreads) {
  const std::uint64_t seed = test::seed_or(20261122);
  std::mt19937_64 random(seed);
  for (const std::size_t threads : {1U, 2U, 3U, 8U, 64U}) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(threads) + " threads");
    Ledger ledger;
    Program program(ledger, false);
    long sum = 0;
    {
      WorkStealingExecutor executor({.threads = threads});
      const test::LifeLimit limit(executor);
      for (std::size_t round = 0; round < scaled(120); ++round) {
        auto a = executor.spawn(program.task(random(), 3));
        auto b = executor.spawn(program.task(random(), 2));
        sum += a.wait().value() + b.wait().value();
      }
    }
    EXPECT_EQ(sum, program.leaves());
    EXPECT_EQ(ledger.alive(), 0);
  }
}

TEST(ForkJoinStress, WorkersComeAndGoAndWorkComesFromOutside) {
  const std::uint64_t seed = test::seed_or(20261123);
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  Ledger ledger;
  Program program(ledger, false);
  long sum = 0;
  {
    WorkStealingExecutor executor({.threads = 3});
    const test::LifeLimit limit(executor);
    std::atomic<bool> stop{false};
    std::thread outside([&] {
      while (!stop.load()) {
        for (int i = 0; i < 5; ++i) executor.post([] {});
        std::this_thread::sleep_for(50us);
      }
    });
    std::vector<JoinHandle<long>> handles;
    for (std::size_t i = 0; i < scaled(400); ++i) {
      handles.push_back(executor.spawn(program.task(random(), 2)));
    }
    for (std::size_t i = 0; i < scaled(100); ++i) executor.resize(1 + random() % 6);
    for (auto& handle : handles) sum += handle.wait().value();
    stop = true;
    outside.join();
  }
  EXPECT_EQ(sum, program.leaves());
  EXPECT_EQ(ledger.alive(), 0);
}

TEST(ForkJoinStress, ErrorsFromEverywhere) {
  const std::uint64_t seed = test::seed_or(20261124);
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (const std::size_t threads : {2U, 4U}) {
    Ledger ledger;
    std::size_t failed = 0;
    {
      WorkStealingExecutor executor({.threads = threads});
      const test::LifeLimit limit(executor);
      for (std::size_t round = 0; round < scaled(1500); ++round) {
        Program program(ledger, true);
        auto body = [](Program& the_program, std::uint64_t its_seed) -> Task<long> {
          co_return the_program.function(its_seed, 9).leaves;
        };
        auto handle = executor.spawn(body(program, random()));
        const Result<long>& result = handle.wait();
        ASSERT_EQ(result.has_value(), program.errors() == 0);
        if (result.has_value()) {
          ASSERT_EQ(result.value(), program.leaves());
        } else {
          ++failed;
          EXPECT_THROW(result.value(), Failed);
        }
      }
    }
    EXPECT_EQ(ledger.alive(), 0);
    if (test::kScale > 1) continue;
    EXPECT_GT(failed, 0U);
  }
}

}  // namespace
}  // namespace magpie
