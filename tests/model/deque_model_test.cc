// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>

#include <gtest/gtest.h>

#include <array>

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
  template <class D>
  bool steal(D& deque) {
    const auto stolen = deque.thief().steal();
    take(stolen.item);
    return stolen.outcome == D::Steal::stolen;
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

// What the owner does, while each thief steals `steals` times.
//   p push   o pop   t take the oldest   b between two operations
template <Mutant kMutant>
Report play(Options options, const char* owner, unsigned thieves, unsigned steals,
            bool asymmetric = true) {
  return explore(options, [=](Sim& sim) {
    sim.set_asymmetric(asymmetric);
    Deque<SimEnv<kMutant>> deque(2);
    Ledger ledger(sim);
    sim.spawn([&, owner] {
      std::uint64_t now = 1;
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
          default:
            deque.owner().between_operations(++now);
            break;
        }
      }
    });
    for (unsigned i = 0; i < thieves; ++i) {
      sim.spawn([&] {
        for (unsigned n = 0; n < steals; ++n) ledger.steal(deque);
      });
    }
    sim.run();
    ledger.settle(deque);
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

class DequeModel : public testing::TestWithParam<const char*> {};

TEST_P(DequeModel, EveryItemIsTakenOnceWithOneThief) {
  expect_clean(play<Mutant::none>({.preemptions = bound(3)}, GetParam(), 1, 3));
}

TEST_P(DequeModel, EveryItemIsTakenOnceWithTwoThieves) {
  // With three preemptions these two have millions of schedules.
  const bool longer = GetParam() == kRestart || GetParam() == kGrow;
  expect_clean(play<Mutant::none>({.preemptions = bound(longer ? 2 : 3)}, GetParam(), 2, 2));
}

TEST_P(DequeModel, EveryItemIsTakenOnceWithoutAsymmetricFences) {
  expect_clean(play<Mutant::none>({.preemptions = bound(2)}, GetParam(), 2, 2, false));
}

TEST_P(DequeModel, EveryItemIsTakenOnceInLongerRandomSchedules) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = play<Mutant::none>(
        {.strategy = strategy, .executions = 15'000, .pct_depth = 4}, GetParam(), 3, 4);
    EXPECT_TRUE(report.passed()) << report;
  }
}

INSTANTIATE_TEST_SUITE_P(Owner, DequeModel,
                         testing::Values(kPushPop, kFlipBack, kTakeOldest, kRestart, kGrow));

template <Mutant kMutant>
Report hunt(const char* owner, unsigned thieves, unsigned steals, unsigned preemptions = 3) {
  const Report report = play<kMutant>({.preemptions = preemptions}, owner, thieves, steals);
  std::printf("after %llu executions: %s\n", static_cast<unsigned long long>(report.executions),
              report.message.c_str());
  return report;
}

TEST(DequeModelMutant, WithoutTheRevokingStateASecondThiefTrustsABarrierThatIsUnderWay) {
  EXPECT_TRUE(hunt<Mutant::deque_no_revoking_state>(kPushPop, 2, 2).failed);
}

TEST(DequeModelMutant, WithoutABarrierThePopThatIsUnderWayIsMissed) {
  EXPECT_TRUE(hunt<Mutant::deque_no_barrier>(kPushPop, 1, 2).failed);
}

TEST(DequeModelMutant, WithoutEpochsAnOldWordComesBack) {
  EXPECT_TRUE(hunt<Mutant::deque_no_epoch>("pppbobopop", 2, 2).failed);
}

TEST(DequeModelMutant, StealingTwoAtOnceMeetsAPopWithinTheRange) {
  EXPECT_TRUE(hunt<Mutant::deque_steal_two>(kPushPop, 1, 2).failed);
}

TEST(DequeModelMutant, AFencedPopNeedsItsFence) {
  EXPECT_TRUE(hunt<Mutant::deque_no_fence_in_pop>("ppopopo", 1, 4).failed);
}

TEST(DequeModelMutant, AFencedPopOfTheLastItemNeedsACompareAndSwap) {
  EXPECT_TRUE(hunt<Mutant::deque_last_pop_without_cas>(kPushPop, 1, 2).failed);
}

}  // namespace
}  // namespace magpie::model
