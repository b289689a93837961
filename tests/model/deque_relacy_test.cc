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
using detail::ThiefMark;

template <Mutant kMutant, int kThieves, int kItems>
struct OwnerAndThieves : RelacyTest<OwnerAndThieves<kMutant, kThieves, kItems>, kThieves + 1> {
  Deque<RelacyEnv<kMutant>> deque{2};
  std::array<ThiefMark<RelacyEnv<kMutant>>, kThieves> marks;
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
      for (int i = 0; i < kSteals; ++i) take(deque.thief(marks[index - 1]).steal().item);
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

// Whoever looks at an atomic must be done with it when it is destroyed, as with plain data.
template <Mutant kMutant>
struct RingsEnv : RelacyEnv<kMutant> {
  template <class T>
  class Atomic : public RelacyAtomic<T> {
   public:
    using RelacyAtomic<T>::RelacyAtomic;
    ~Atomic() { life_.write(0); }
    T load(std::memory_order order) const {
      static_cast<void>(life_.read());
      return RelacyAtomic<T>::load(order);
    }

   private:
    RelacyData<int> life_{1};
  };
};

// The owner frees a ring that was outgrown, goes back to a small one and frees the large one, while
// the first thief looks and the last one steals.
template <Mutant kMutant, int kThieves>
struct RingsGivenBack : RelacyTest<RingsGivenBack<kMutant, kThieves>, kThieves + 1> {
  using Env = RingsEnv<kMutant>;
  Deque<Env> deque{2};
  std::array<ThiefMark<Env>, kThieves> marks;
  std::array<int, 4> taken{};

  void take(std::uintptr_t item) {
    if (item != 0) relacy_check(item < taken.size() && ++taken[item] == 1);
  }
  void tend() {
    deque.owner().tend_rings(1, [&](auto&& shows) {
      for (const ThiefMark<Env>& mark : marks) {
        if (shows(mark)) return true;
      }
      return false;
    });
  }
  void before() {
    for (std::uintptr_t item = 1; item < taken.size(); ++item)
      relacy_check(deque.owner().push(item));
  }
  void thread(unsigned index) {
    if (index == 0) {
      tend();
      take(deque.owner().pop());
      tend();
      tend();
    } else {
      const auto thief = deque.thief(marks[index - 1]);
      if (index == 1) relacy_check(thief.peek() < taken.size());
      if (index == kThieves) take(thief.steal().item);
    }
  }
  void after() {
    while (const std::uintptr_t item = deque.owner().pop()) take(item);
    for (std::size_t item = 1; item < taken.size(); ++item) relacy_check(taken[item] == 1);
  }
};

template <Mutant kMutant, int kThieves>
RelacyReport give_back(unsigned bound) {
  const RelacyReport report = explore_relacy<RingsGivenBack<kMutant, kThieves>>({.bound = bound});
  std::printf("%llu executions\n", report.executions);
  return report;
}

TEST(RingsRelacy, NoRingIsFreedUnderAThief) {
  MAGPIE_SKIP_RELACY();
  const RelacyReport one = give_back<Mutant::none, 1>(3);
  EXPECT_TRUE(one.passed) << one.text;
  const RelacyReport two = give_back<Mutant::none, 2>(2);
  EXPECT_TRUE(two.passed) << two.text;
}

TEST(RingsRelacyMutant, MarksNeedTheirOrders) {
  MAGPIE_SKIP_RELACY();
  EXPECT_FALSE((give_back<Mutant::rings_no_mark, 1>(3).passed));
  EXPECT_FALSE((give_back<Mutant::rings_no_fence, 1>(3).passed));
  EXPECT_FALSE((give_back<Mutant::rings_relaxed_mark, 1>(3).passed));
}

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
