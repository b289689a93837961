// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "expect.h"
#include "sim.h"

// The deque against thieves, with the bias, its revocation and its return, on a machine with store
// buffers: every item is taken exactly once. Weaker memory, in fenced mode: deque_relacy_test.cc.

namespace magpie::model {
namespace {

using detail::Deque;

// How often each item was taken. Plain variables: between two points a thread is alone.
struct Ledger {
  explicit Ledger(Sim& checker) : sim(checker) {}

  void take(std::uintptr_t item) {
    if (item == 0) return;
    sim.check(item <= pushed, "an item that nobody pushed was taken");
    sim.check(++taken[item] == 1, "an item was taken twice");
  }
  template <class Thief>
  void steal(const Thief& thief) {
    take(thief.steal().item);
  }
  template <class D>
  void push(D& deque) {
    sim.check(deque.owner().push(++pushed), "push failed");
  }
  template <class D>
  void settle(D& deque) {
    while (const std::uintptr_t item = deque.owner().pop()) take(item);
    for (std::uintptr_t item = 1; item <= pushed; ++item) {
      sim.check(taken[item] == 1, "an item was lost");
    }
  }

  Sim& sim;
  std::uintptr_t pushed = 0;
  std::array<int, 32> taken{};
};

// What the owner does, while each thief does what `visits` says.
//   p push   o pop   t take the oldest   b between two operations   r look after the rings
//   s steal   l look at the oldest
template <Mutant kMutant>
Report play(Options options, const char* owner, unsigned thieves, const char* visits,
            bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    sim.set_asymmetric(asymmetric);
    ThiefMarks<Env> marks;
    Deque<Env> deque(2);
    Ledger ledger(sim);
    std::uint64_t now = 1;
    const auto any = [&](auto&& shows) {
      for (unsigned i = 0; i < thieves; ++i) {
        if (shows(marks[i])) return true;
      }
      return false;
    };
    sim.spawn([&, owner] {
      for (const char* op = owner; *op != '\0'; ++op) {
        switch (*op) {
          case 'p':
            ledger.push(deque);
            break;
          case 'o':
            ledger.take(deque.owner().pop());
            break;
          case 't':
            ledger.take(deque.owner().take_oldest());
            break;
          case 'r':
            deque.owner().tend_rings(++now, any);
            break;
          default:
            deque.owner().between_operations(++now);
            break;
        }
      }
    });
    const auto visit = [&, visits](std::size_t i) {
      const auto thief = deque.thief(marks[i]);
      for (const char* op = visits; *op != '\0'; ++op) {
        if (*op == 's') {
          ledger.steal(thief);
        } else {
          const std::uintptr_t seen = thief.peek();
          sim.check(seen <= ledger.pushed, "a slot showed what was never there");
        }
      }
    };
    if (std::strchr(owner, 'r') == nullptr) {
      sim.spawn_alike(thieves, visit);
    } else {  // whose mark is looked at first makes a difference
      for (unsigned i = 0; i < thieves; ++i) sim.spawn([&visit, i] { visit(i); });
    }
    sim.run();
    ledger.settle(deque);
    deque.owner().give_back_rings(any);
    sim.check(!deque.owner().rings_due(), "rings were not given back");
  });
}

// Items come and go, the bias is revoked by whoever steals first.
constexpr const char* kPushPop = "ppopoo";
// The bias may return at each b, and at each o that leaves an item, while a thief is on its way
// with an old word.
constexpr const char* kFlipBack = "pppbobopop";
constexpr const char* kTakeOldest = "pptpto";
// The indices start over at the last b, if three items were stolen or popped as the last one.
constexpr const char* kRestart = "ppopobpobpo";
// Three items in a ring of two.
constexpr const char* kGrow = "pppopoo";
// The ring that was outgrown is freed at the first r. At the second the larger one has been too
// large for long enough; it is freed as soon as nobody reads it.
constexpr const char* kGiveBack = "ppproprpor";

class DequeModel : public testing::TestWithParam<const char*> {};

TEST_P(DequeModel, EveryItemIsTakenOnceWithOneThief) {
  expect_clean(play<Mutant::none>({.preemptions = bound(3)}, GetParam(), 1, "sls"));
}

TEST_P(DequeModel, EveryItemIsTakenOnceWithTwoThieves) {
  // With three preemptions these have millions of schedules.
  const bool longer = GetParam() == kRestart || GetParam() == kGrow || GetParam() == kGiveBack;
  expect_clean(play<Mutant::none>({.preemptions = bound(longer ? 2 : 3)}, GetParam(), 2, "ss"));
}

TEST_P(DequeModel, EveryItemIsTakenOnceWithoutAsymmetricFences) {
  expect_clean(play<Mutant::none>({.preemptions = bound(2)}, GetParam(), 2, "ls", false));
}

TEST_P(DequeModel, EveryItemIsTakenOnceInLongerRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = play<Mutant::none>(
        {.strategy = strategy, .executions = 15'000, .pct_depth = 4}, GetParam(), 3, "lssls");
    EXPECT_TRUE(report.passed()) << report;
  }
}

INSTANTIATE_TEST_SUITE_P(Owner, DequeModel,
                         testing::Values(kPushPop, kFlipBack, kTakeOldest, kRestart, kGrow,
                                         kGiveBack));

template <Mutant kMutant>
Report hunt(const char* owner, unsigned thieves, const char* visits, unsigned preemptions = 3) {
  const Report report = play<kMutant>({.preemptions = preemptions}, owner, thieves, visits);
  std::printf("after %llu executions: %s\n", static_cast<unsigned long long>(report.executions),
              report.message.c_str());
  return report;
}

TEST(DequeModelMutant, WithoutTheRevokingStateASecondThiefTrustsABarrierThatIsUnderWay) {
  EXPECT_TRUE(hunt<Mutant::deque_no_revoking_state>(kPushPop, 2, "ss").failed);
}

TEST(DequeModelMutant, WithoutABarrierThePopThatIsUnderWayIsMissed) {
  EXPECT_TRUE(hunt<Mutant::deque_no_barrier>(kPushPop, 1, "ss").failed);
}

TEST(DequeModelMutant, WithoutEpochsAnOldWordComesBack) {
  EXPECT_TRUE(hunt<Mutant::deque_no_epoch>("pppbobopop", 2, "ss").failed);
}

TEST(DequeModelMutant, StealingTwoAtOnceMeetsAPopWithinTheRange) {
  EXPECT_TRUE(hunt<Mutant::deque_steal_two>(kPushPop, 1, "ss").failed);
}

TEST(DequeModelMutant, AFencedPopNeedsItsFence) {
  EXPECT_TRUE(hunt<Mutant::deque_no_fence_in_pop>("ppopopo", 1, "ssss").failed);
}

TEST(DequeModelMutant, AFencedPopOfTheLastItemNeedsACompareAndSwap) {
  EXPECT_TRUE(hunt<Mutant::deque_last_pop_without_cas>(kPushPop, 1, "ss").failed);
}

// "pppr" outgrows a ring and frees it, "prr" replaces the larger one and frees that.
TEST(RingsModelMutant, WithoutAMarkARingIsFreedUnderAThief) {
  EXPECT_TRUE(hunt<Mutant::rings_no_mark>("pppr", 1, "ss").failed);
  EXPECT_TRUE(hunt<Mutant::rings_no_mark>("pppr", 1, "l").failed);
  EXPECT_TRUE(hunt<Mutant::rings_no_mark>("pppoorr", 1, "ss").failed);
}

TEST(RingsModelMutant, AMarkThatIsSetWhenTheRingIsKnownComesTooLate) {
  EXPECT_TRUE(hunt<Mutant::rings_late_mark>("pppr", 1, "ss").failed);
  EXPECT_TRUE(hunt<Mutant::rings_late_mark>("pppr", 1, "l").failed);
}

TEST(RingsModelMutant, AMarkIsKeptUntilTheSlotHasBeenRead) {
  EXPECT_TRUE(hunt<Mutant::rings_early_unmark>("pppr", 1, "ss").failed);
  EXPECT_TRUE(hunt<Mutant::rings_early_unmark>("pppr", 1, "l").failed);
}

TEST(RingsModelMutant, WithoutAFenceTheMarksAreAskedBeforeTheRingIsReplaced) {
  EXPECT_TRUE(hunt<Mutant::rings_no_fence>("pppr", 1, "ss", 4).failed);
  EXPECT_TRUE(hunt<Mutant::rings_no_fence>("pppr", 1, "l").failed);
}

// A thief that steals has a fence of its own behind its mark. One that looks has none.
TEST(RingsModelMutant, AnOrdinaryFenceMissesTheMarkOfAThiefThatLooks) {
  EXPECT_TRUE(hunt<Mutant::rings_plain_fence>("pppr", 1, "l").failed);
  expect_clean(play<Mutant::rings_plain_fence>({.preemptions = bound(4)}, "pppr", 1, "ss"));
}

}  // namespace
}  // namespace magpie::model
