// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600
// ctest-sanitized-optimised
// ctest-leave-out: asan tsan (what each of many levels costs)

// Combinators nested very deep, of each kind, and at the bottom something fails: the error goes up,
// the groups that it is wrapped in are made, asked, and freed again, without stack for it, and at a
// cost that does not depend on how deep a level lies.

#include <chrono>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/errors.h>
#include <magpie/manual_clock.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/work_stealing_executor.h>
#include <support/nests.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::Kind;
using test::kKinds;
using test::kVeryDeep;
using test::Left;
using test::Levels;
using test::Nest;
using test::on_small_stacks;
using test::scaled;

struct Bottom : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Task<void> fails(Nest&) {
  co_await sleep_for(1ms);
  throw Bottom("the bottom");
}

// ---- levels whose nests a cancellation does not come down ---------------------------------------

Task<void> with_a_cleanup_that_fails(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  auto cleanup = []() -> Task<void> {
    throw std::logic_error("the cleanup");
    co_return;
  };
  co_await finally(nest.below(height - 1), cleanup);
}
Task<void> in_a_spawned_task(Nest& nest, std::size_t height) {
  const Left left(nest, height);
  JoinHandle<void> handle = spawn(nest.below(height - 1));
  co_await std::move(handle);
}
// How often the error that goes up is wrapped.
std::size_t groups_around(const std::exception_ptr& error) {
  std::size_t depth = 0;
  const std::exception_ptr* inner = &error;
  while (const auto* group = detail::exception_cast<ExceptionGroup>(*inner)) {
    ++depth;
    inner = group->exceptions().data();
  }
  EXPECT_NE(detail::exception_cast<Bottom>(*inner), nullptr);
  return depth;
}

void for_each_kind(void (*test)(const Kind& kind)) {
  for (const Kind& kind : kKinds) test(kind);
  test({"finally, failing too", with_a_cleanup_that_fails, true});
  test({"spawn", in_a_spawned_task, false});
}

// ---- on its way, and afterwards -----------------------------------------------------------------

// An error that goes up cancels what is beside it at every level.
TEST(DeepFailure, AnErrorGoesUpAtTheSameCostHoweverDeepItBegins) {
  for_each_kind([](const Kind& kind) {
    SCOPED_TRACE(kind.name);
    const std::size_t depth = scaled(8'000);
    Levels levels(depth);
    CancellationSource source;
    Nest nest{levels, source, std::chrono::steady_clock::now() + 10h, fails, kind.level};
    if (kind.counted) levels.count();
    testing::SimulatedExecutor executor(1);
    const Result<void> ended = executor.run(as_result(nest.below(depth)));
    EXPECT_TRUE(ended.is_error());
    levels.expect_the_same_cost(kind.name);
  });
}

TEST(DeepFailure, AnErrorComesUpAVeryDeepNestWithoutStack) {
  on_small_stacks([] {
    for_each_kind([](const Kind& kind) {
      SCOPED_TRACE(kind.name);
      Levels levels(kVeryDeep);
      CancellationSource source;
      Nest nest{levels, source, std::chrono::steady_clock::now() + 10h, fails, kind.level};
      ManualClock clock;
      WorkStealingExecutor executor({.threads = 1, .clock = &clock});
      const Result<void> ended = executor.run(as_result(nest.below(kVeryDeep)));
      ASSERT_TRUE(ended.is_error());
      EXPECT_EQ(levels.passed(), kVeryDeep);
      const std::size_t groups = groups_around(ended.error());
      EXPECT_TRUE(groups == 0 || groups == kVeryDeep) << groups;
    });
  });
}

}  // namespace
}  // namespace magpie
