// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600
// ctest-sanitized-optimised
// ctest-leave-out: asan tsan gcc (what each of many levels costs)

// Combinators nested deep, of each kind, below bindings of a task-local: a strand that wakes up or
// ends there does not look along the way outwards, and who asks finds the innermost binding.

#include <chrono>
#include <cstddef>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/manual_clock.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>
#include <support/nests.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::Kind;
using test::kKinds;
using test::Levels;
using test::Nest;
using test::scaled;

const TaskLocal<std::size_t> bound{0};

Task<std::size_t> current() {
  std::size_t value = co_await bound.get();
  co_return value;
}

Task<void> wakes(Nest&) {
  co_await sleep_for(1ms);
}
Task<void> wakes_and_fails(Nest&) {
  co_await sleep_for(1ms);
  throw 1;
}

// Far out there is a binding.
TEST(DeepLocals, ALevelEndsAtTheSameCostHoweverFarOutTheBindingIs) {
  for (const Kind& kind : kKinds) {
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(8'000);
    Levels levels(depth);
    CancellationSource source;
    Nest nest{levels, source, {}, wakes, kind.level};
    if (kind.counted) levels.count();
    testing::SimulatedExecutor executor(1);
    auto body = [&]() -> Task<void> {
      nest.deadline = co_await this_task::now() + 1h;
      co_await as_result(bound.with(1, nest.below(depth)));
    };
    executor.run(body());
    levels.expect_the_same_cost(kind.name);
  }
}

// ---- who asks -----------------------------------------------------------------------------------

constexpr std::size_t kBindEvery = 7;
constexpr std::size_t kAskEvery = 3;

Task<void> with_a_binding(std::size_t value, Task<void> task) {
  co_await bound.with(value, std::move(task));
}

// Levels of all kinds in turns, some with a binding of their own. After some of them a plain
// function asks, of a thread that stood further in when it went on.
Task<void> asks(Nest& nest, std::size_t height) {
  std::size_t outside = co_await bound.get();
  Task<void> level = kKinds[height % kKinds.size()].level(nest, height);
  if (height % kBindEvery == 0) level = with_a_binding(height, std::move(level));
  Result<void> ended = co_await as_result(std::move(level));
  if (height % kAskEvery == 0) {
    JoinHandle<std::size_t> spawned = spawn(current());
    std::size_t seen = co_await spawned;
    EXPECT_EQ(seen, outside) << height;
    std::size_t own = co_await bound.get();
    EXPECT_EQ(own, outside) << height;
  }
  std::move(ended).value();
}

TEST(DeepLocals, WhoAsksOnTheWayOutFindsTheInnermostBinding) {
  constexpr std::size_t kSome = 520;
  for (auto* bottom : {&wakes, &wakes_and_fails}) {
    for (std::size_t round = 0; round < scaled(20); ++round) {
      Levels levels(kSome);
      CancellationSource source;
      Nest nest{levels, source, std::chrono::steady_clock::now() + 10h, bottom, asks};
      ManualClock clock;
      WorkStealingExecutor executor({.threads = 1 + round % 3, .clock = &clock});
      const Result<void> ended = executor.run(as_result(bound.with(1, nest.below(kSome))));
      EXPECT_EQ(ended.has_value(), bottom == &wakes);
      EXPECT_EQ(levels.passed(), kSome);
    }
  }
}

}  // namespace
}  // namespace magpie
