// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600
// ctest-sanitized-optimised

// Combinators nested thousands deep, of each kind: a cancellation comes down, and every level goes
// up again, at a cost that does not depend on how deep it lies, and without stack for it. The cost
// is counted in instructions, on the simulator; no clock takes part.

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/cancellation.h>
#include <magpie/config.h>
#include <magpie/gather.h>
#include <magpie/limited.h>
#include <magpie/manual_clock.h>
#include <magpie/race.h>
#include <magpie/retry.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>
#include <support/scale.h>
#include <support/step_counter.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::scaled;
using test::StepCounter;

#if defined(MAGPIE_TSAN) || defined(MAGPIE_ASAN)
constexpr bool kCounts = false;  // of what a sanitizer adds nothing is promised
#else
constexpr bool kCounts = StepCounter::available();
#endif

// Counts what happens from when one level is left until the next one further out is: once deep
// down, once near the top.
class Levels {
 public:
  explicit Levels(std::size_t depth) : depth_(depth) {}

  // `height`: how many levels are below the one that has ended, or begins.
  void passes(std::size_t height) {
    if (counting_ != nullptr) *std::exchange(counting_, nullptr) = counter_->stop().instructions;
    passed_.fetch_add(1, std::memory_order_relaxed);
    if (!counter_) return;
    if (height != kMargin && height != depth_ - kMargin) return;
    counting_ = height == kMargin ? &deep_ : &shallow_;
    counter_->start();
  }
  void count() {
    if (kCounts) counter_.emplace();
  }

  /// All have been left, and, if it was counted, one deep down costs what one near the top does.
  void expect_the_same_cost(const char* name) const {
    EXPECT_EQ(passed_.load(std::memory_order_relaxed), depth_);
    if (!counter_) return;
    std::printf("%-28s %7zu deep down, %7zu near the top\n", name, deep_, shallow_);
    EXPECT_GT(shallow_, 0U);
    EXPECT_LE(deep_, shallow_ + shallow_ / 2);
  }

 private:
  // Far enough from the bottom for what waited beside the levels, and ends in any order, to be
  // gone.
  static constexpr std::size_t kMargin = 100;
  const std::size_t depth_;
  std::atomic<std::size_t> passed_{0};
  std::size_t deep_ = 0;
  std::size_t shallow_ = 0;
  std::size_t* counting_ = nullptr;
  std::optional<StepCounter> counter_;
};

struct Nest {
  Levels& levels;
  CancellationSource& source;
  Deadline deadline{};
  Task<void> (*bottom)(Nest&) = nullptr;
  Task<void> (*level)(Nest&, std::size_t) = nullptr;

  Task<void> below(std::size_t height) {
    return height == 0 ? bottom(*this) : level(*this, height);
  }
};

// A local of each level.
class Left {
 public:
  Left(Nest& nest, std::size_t height) : nest_(nest), height_(height) {}
  Left(const Left&) = delete;
  Left& operator=(const Left&) = delete;
  ~Left() { nest_.levels.passes(height_); }

 private:
  Nest& nest_;
  const std::size_t height_;
};

Task<void> sleeps(Nest&) {
  co_await sleep_for(1h);
}

// ---- one level of each kind ---------------------------------------------------------------------

Task<void> plain(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await nest.below(height - 1);
}
Task<void> in_gather(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await gather(nest.below(height - 1), sleep_for(1h));
}
Task<void> in_gather_of_results(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto [result] = co_await gather(return_exceptions, nest.below(height - 1));
  std::move(result).value();
}
Task<void> in_gather_limited(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  std::vector<Task<void>> children;
  children.push_back(nest.below(height - 1));
  co_await gather_limited(2, std::move(children));
}
Task<void> in_race(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await race(nest.below(height - 1), sleep_for(1h));
}
Task<void> in_group(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TaskGroup& group) -> Task<void> {
    group.spawn(nest.below(height - 1));
    co_return;
  };
  co_await task_group(body);
}
Task<void> in_the_body_of_a_group(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TaskGroup&) -> Task<void> { co_await nest.below(height - 1); };
  co_await task_group(body);
}
Task<void> in_timeout(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await timeout(nest.below(height - 1), 2h);
}
Task<void> in_timeout_at(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await timeout_at(nest.below(height - 1), nest.deadline);
}
Task<void> in_timeout_scope(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](TimeoutScope&) -> Task<void> { co_await nest.below(height - 1); };
  co_await timeout_scope(2h, body);
}
Task<void> with_the_token(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await with_token(nest.source.token(), nest.below(height - 1));
}
Task<void> in_cancel_scope(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto body = [&nest, height](CancelScope&) -> Task<void> { co_await nest.below(height - 1); };
  Result<void> ended = co_await cancel_scope(body);
  std::move(ended).value();
}
Task<void> in_a_mask(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await uncancellable(nest.below(height - 1));
}
Task<void> in_a_shield(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  co_await shield(nest.below(height - 1));
}
Task<void> with_a_cleanup(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto cleanup = []() -> Task<void> { co_await sleep_for(1us); };
  co_await finally(nest.below(height - 1), cleanup);
}
Task<void> in_retry(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto attempt = [&nest, height] { return nest.below(height - 1); };
  co_await retry(attempt, RetryPolicy());
}

struct Kind {
  const char* name;
  Task<void> (*level)(Nest&, std::size_t);
  bool counted;  // the others go up like one that is, and to count a step takes its time
};
constexpr std::array<Kind, 16> kKinds{{
    {"await", plain, false},
    {"gather", in_gather, true},
    {"gather(return_exceptions)", in_gather_of_results, false},
    {"gather_limited", in_gather_limited, true},
    {"race", in_race, true},
    {"task_group, in a child", in_group, true},
    {"task_group, in the body", in_the_body_of_a_group, true},
    {"timeout", in_timeout, true},
    {"timeout_at, all at once", in_timeout_at, true},
    {"timeout_scope", in_timeout_scope, false},
    {"with_token", with_the_token, true},
    {"cancel_scope", in_cancel_scope, true},
    {"uncancellable", in_a_mask, true},
    {"shield", in_a_shield, false},
    {"finally", with_a_cleanup, false},
    {"retry", in_retry, false},
}};

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

// What a cancellation costs on its way down is in proportion to the levels: counted for a nest and
// for one twice as deep.
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
    const std::size_t once = counted(30);
    const std::size_t twice = counted(60);
    std::printf("%-28s %7zu for 30 levels, %7zu for 60\n", kind.name, once, twice);
    EXPECT_LE(twice, 2 * once + once / 5);
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

// An error that goes up cancels every level on its way.
TEST(DeepCancel, AnErrorGoesUpAtTheSameCostHoweverDeepItBegins) {
  for (const Kind& kind : {Kind{"gather", in_gather, true}, Kind{"race", in_race, false}}) {
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(kDeep);
    Levels levels(depth);
    CancellationSource source;
    auto fails = [](Nest&) -> Task<void> {
      co_await sleep_for(1ms);
      throw 1;
    };
    Nest nest{levels, source, {}, fails, kind.level};
    if (kind.counted) levels.count();
    testing::SimulatedExecutor executor(1);
    EXPECT_THROW(executor.run(nest.below(depth)), int);
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

// A call for each level would overflow a stack of 8 MiB.
TEST(DeepCancel, AVeryDeepNestNeedsNoStack) {
  for (const Kind& kind : kKinds) {
    if (!kind.counted) continue;
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(150'000);
    Levels levels(depth);
    CancellationSource source;
    Nest nest{levels, source, {}, sleeps, kind.level};
    ManualClock clock;
    WorkStealingExecutor executor({.threads = 1, .clock = &clock});
    EXPECT_TRUE(executor.run(cancelled_from_outside(nest, depth)));
  }
}

}  // namespace
}  // namespace magpie
