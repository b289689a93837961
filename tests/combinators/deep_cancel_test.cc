// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600
// ctest-sanitized-optimised
// ctest-leave-out: asan (what each of many levels costs)

// Combinators nested thousands deep, of each kind: a cancellation comes down, and every level goes
// up again, at a cost that does not depend on how deep it lies, and without stack for it. The cost
// is counted in instructions, on the simulator; no clock takes part.

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/cancellation.h>
#include <magpie/manual_clock.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/work_stealing_executor.h>
#include <support/nests.h>
#include <support/scale.h>
#include <support/step_counter.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::in_a_mask;
using test::in_gather;
using test::in_group;
using test::in_timeout_at;
using test::kCounts;
using test::Kind;
using test::kKinds;
using test::kVeryDeep;
using test::Levels;
using test::Nest;
using test::on_small_stacks;
using test::scaled;
using test::StepCounter;

Task<void> sleeps(Nest&) {
  co_await sleep_for(1h);
}

// ---- cancelled from outside ---------------------------------------------------------------------

constexpr std::size_t kDeep = 8'000;

// Runs the nest below a token that is cancelled once all of it waits, or when its deadlines pass.
Task<bool> cancelled_from_outside(Nest& nest, std::size_t depth) {
  nest.deadline = co_await this_task::now() + 30min;
  JoinHandle<void> handle = spawn(with_token(nest.source.token(), nest.below(depth)));
  co_await sleep_for(1min);
  if (nest.level != in_timeout_at) nest.source.cancel();
  Result<void> ended = co_await as_result(handle);
  if (nest.level == in_a_mask) co_return ended.has_value();
  co_return nest.level == in_timeout_at ? ended.is_timeout() : ended.is_cancelled();
}

// A level that ends deep down costs what one near the top costs: no step looks at all that are
// around it.
TEST(DeepCancel, ALevelEndsAtTheSameCostHoweverDeepItLies) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(kDeep);
    Levels levels(depth);
    CancellationSource source;
    Nest nest{levels, source, {}, sleeps, kind.level};
    if (kind.counted) levels.count();
    testing::SimulatedExecutor executor(1);
    EXPECT_TRUE(executor.run(cancelled_from_outside(nest, depth)));
    levels.expect_the_same_cost(kind.name);
  }
}

// What a cancellation costs on its way down is in proportion to the levels: a nest twice as deep
// costs no more than twice as much. It costs less by what is done once, which leaves less room than
// a look at all levels around each would take.
TEST(DeepCancel, ACancellationComesDownInStepsInProportionToTheLevels) {
  if (!kCounts) GTEST_SKIP() << "counts instructions of programs without a sanitizer";
  for (const Kind& kind : kKinds) {
    if (!kind.counted) continue;
    SCOPED_TRACE(kind.name);
    const auto counted = [&](std::size_t depth) {
      Levels levels(depth);
      CancellationSource source;
      CancellationSource mine;
      Nest nest{levels, source, {}, sleeps, kind.level};
      std::size_t steps = 0;
      testing::SimulatedExecutor executor(1);
      auto body = [&]() -> Task<void> {
        nest.deadline = co_await this_task::now() + 2h;
        JoinHandle<void> handle = spawn(with_token(mine.token(), nest.below(depth)));
        co_await sleep_for(1min);
        StepCounter counter;
        counter.start();
        mine.cancel();
        steps = counter.stop().instructions;
        co_await as_result(handle);
      };
      executor.run(body());
      return steps;
    };
    const std::size_t once = counted(20);
    const std::size_t twice = counted(40);
    std::printf("%-28s %7zu for 20 levels, %7zu for 40\n", kind.name, once, twice);
    EXPECT_LE(twice, 2 * once);
  }
}

// ---- in a scope that is cancelled already, or beside one ----------------------------------------

// Behind a mask in a cancelled task every question has to be asked in earnest, and answered no.
TEST(DeepCancel, BehindAMaskALevelCostsTheSameHoweverDeepItLies) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(kDeep);
    Levels levels(depth);
    CancellationSource source;
    auto naps = [](Nest&) -> Task<void> { co_await sleep_for(1ms); };
    Nest nest{levels, source, {}, naps, kind.level};
    levels.count();
    testing::SimulatedExecutor executor(1);
    auto body = [&]() -> Task<void> {
      nest.deadline = co_await this_task::now() + 1h;
      auto block = [&](CancelScope& scope) -> Task<void> {
        scope.cancel();
        co_await uncancellable(nest.below(depth));
        EXPECT_TRUE(scope.cancelled());
      };
      Result<void> ended = co_await cancel_scope(block);
      EXPECT_TRUE(ended.has_value());
    };
    executor.run(body());
    levels.expect_the_same_cost(kind.name);
  }
}

// What computes has no scope that anybody knows of when the cancellation comes.
TEST(DeepCancel, WhatOnlyComputesFindsItselfCancelledAtTheSameCost) {
  for (const Kind& kind : kKinds) {
    if (kind.level == in_a_mask || kind.level == in_timeout_at) continue;  // not reached by it
    SCOPED_TRACE(kind.name);
    const bool counted = kind.level == in_gather || kind.level == in_group;
    const std::size_t depth = scaled(kDeep);
    Levels levels(depth);
    CancellationSource source;
    auto cancels = [](Nest& the_nest) -> Task<void> {
      the_nest.source.cancel();
      co_await this_task::checkpoint();
    };
    Nest nest{levels, source, {}, cancels, kind.level};
    if (counted) levels.count();
    testing::SimulatedExecutor executor(1);
    auto body = [&]() -> Task<void> {
      co_await as_result(with_token(source.token(), nest.below(depth)));
    };
    executor.run(body());
    levels.expect_the_same_cost(kind.name);
  }
}

// ---- on workers, and very deep ------------------------------------------------------------------

Task<void> in_turns(Nest& nest, std::size_t height) {
  return kKinds[height % kKinds.size()].level(nest, height);
}

// All kinds in turns, cancelled by a thread of its own while they begin, wait and end.
TEST(DeepCancel, NestsOfAllKindsEndOnWorkersWheneverTheyAreCancelled) {
  for (std::size_t round = 0; round < scaled(100); ++round) {
    constexpr std::size_t kSome = 400;
    Levels levels(kSome);
    CancellationSource source;
    Nest nest{levels, source, std::chrono::steady_clock::now() + 1h, sleeps, in_turns};
    WorkStealingExecutor executor({.threads = 2});
    JoinHandle<void> handle = executor.spawn(with_token(source.token(), nest.below(kSome)));
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(round * 7));
      source.cancel();
    });
    EXPECT_FALSE(handle.wait().has_value());
    other.join();
  }
}

TEST(DeepCancel, AVeryDeepNestNeedsNoStack) {
  on_small_stacks([] {
    for (const Kind& kind : kKinds) {
      if (!kind.counted) continue;
      SCOPED_TRACE(kind.name);
      Levels levels(kVeryDeep);
      CancellationSource source;
      Nest nest{levels, source, {}, sleeps, kind.level};
      ManualClock clock;
      WorkStealingExecutor executor({.threads = 1, .clock = &clock});
      EXPECT_TRUE(executor.run(cancelled_from_outside(nest, kVeryDeep)));
      EXPECT_EQ(levels.passed(), kVeryDeep);
    }
  });
}

}  // namespace
}  // namespace magpie
