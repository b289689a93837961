// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/deque.h>

#include <array>

// The deque in fenced mode under the C++ memory model: every item is taken once, and whoever takes
// it sees what the owner wrote before the push. The bias: deque_model_test.cc.

namespace magpie::model {
namespace {

using detail::Deque;

template <Mutant kMutant, int kThieves, int kItems>
struct OwnerAndThieves : RelacyTest<OwnerAndThieves<kMutant, kThieves, kItems>, kThieves + 1> {
  Deque<RelacyEnv<kMutant>> deque{2};
  std::array<RelacyData<int>, kItems + 1> payload;
  std::array<int, kItems + 1> taken{};

  void take(std::uintptr_t item) {
    if (item == 0) return;
    relacy_check(item <= kItems);
    relacy_check(++taken[item] == 1);
    relacy_check(payload[item].read() == static_cast<int>(item) * 10);
  }
  void push(std::uintptr_t item) {
    payload[item].write(static_cast<int>(item) * 10);
    relacy_check(deque.owner().push(item));
  }
  void thread(unsigned index) {
    if (index == 0) {
      own();
    } else {
      constexpr int kSteals = kThieves == 1 ? 2 : 1;
      for (int i = 0; i < kSteals; ++i) take(deque.thief().steal().item);
    }
  }
  void own() {
    push(1);
    push(2);
    take(deque.owner().pop());
    if constexpr (kItems > 2) {
      push(3);  // with none stolen yet, in a slot that was used before
      take(deque.owner().take_oldest());
      take(deque.owner().pop());
    }
    take(deque.owner().pop());
  }
  void after() {
    while (const std::uintptr_t item = deque.owner().pop()) take(item);
    for (int item = 1; item <= kItems; ++item) {
      relacy_check(taken[static_cast<std::size_t>(item)] == 1);
    }
  }
};

template <Mutant kMutant, int kThieves, int kItems>
RelacyReport play(unsigned bound) {
  const RelacyReport report =
      explore_relacy<OwnerAndThieves<kMutant, kThieves, kItems>>({.bound = bound});
  std::printf("%llu executions\n", report.executions);
  return report;
}

TEST(DequeRelacy, EveryItemIsTakenOnceWithOneThief) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = play<Mutant::none, 1, 3>(3);
  EXPECT_TRUE(report.passed) << report.text;
}

TEST(DequeRelacy, EveryItemIsTakenOnceWithTwoThieves) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport report = play<Mutant::none, 2, 2>(3);
  EXPECT_TRUE(report.passed) << report.text;
}

TEST(DequeRelacyMutant, ARelaxedPushHandsOverAnItemWithoutItsContents) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((play<Mutant::deque_relaxed_push, 1, 2>(3).passed));
}

TEST(DequeRelacyMutant, APopWithoutItsFenceTakesAStolenItem) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((play<Mutant::deque_no_fence_in_pop, 1, 2>(3).passed));
}

TEST(DequeRelacyMutant, AStealWithoutItsFenceTakesAPoppedItem) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((play<Mutant::deque_no_fence_in_steal, 1, 2>(4).passed));
}

TEST(DequeRelacyMutant, TheLastItemNeedsACompareAndSwap) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((play<Mutant::deque_last_pop_without_cas, 1, 2>(3).passed));
}

TEST(DequeRelacyMutant, StealingTwoAtOnceLosesAnItem) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((play<Mutant::deque_steal_two, 1, 2>(3).passed));
}

}  // namespace
}  // namespace magpie::model
