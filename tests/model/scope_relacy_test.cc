// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/scope.h>

#include <array>
#include <cstdint>

// Scopes, callbacks and races under the C++ memory model. The schedules: scope_model_test.cc,
// scope_annex_model_test.cc, scope_group_model_test.cc, stop_state_model_test.cc,
// waiter_model_test.cc.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicCallbackNode;
using detail::BasicCancelEffects;
using detail::BasicScope;
using detail::BasicStopState;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::ReasonRef;
using detail::WaitPhase;

template <class Test>
void expect_clean(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_TRUE(report.passed) << report.text;
  std::printf("%llu executions\n", report.executions);
}

template <class Test>
void expect_killed(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_FALSE(report.passed);
  std::printf("after %llu executions\n", report.executions);
}

// Two strands park in a scope that either of them links, while the task is cancelled: each is
// claimed or refused.
template <Mutant kMutant>
struct ParkAgainstCancel : RelacyTest<ParkAgainstCancel<kMutant>, 3> {
  using Env = RelacyEnv<kMutant>;
  BasicTaskCore<Env> task;
  BasicScope<Env> root;
  BasicScope<Env> scope;
  std::array<BasicWaiter<Env>, 2> waiters;
  std::array<bool, 2> parked{};

  void before() {
    root.enter_root(nullptr, &task);
    scope.enter(&root, &task);
  }
  void thread(unsigned index) {
    if (index == 2) {
      BasicCancelEffects<Env> effects;
      relacy_check(root.cancel(ReasonRef(), effects));
      return;
    }
    waiters[index].state.set(WaitPhase::waiting);
    parked[index] = scope.park(waiters[index]);
  }
  void after() {
    for (std::size_t i = 0; i < 2; ++i) {
      relacy_check(!parked[i] || waiters[i].state.phase() == WaitPhase::cancelled);
    }
    scope.exit();
  }
};

TEST(ScopeRelacy, WhoParksIsClaimedOrSeesTheCancellation) {
  MAGPIE_SKIP_RELACY();
  expect_clean<ParkAgainstCancel<Mutant::none>>(2);
}

TEST(ScopeRelacyMutant, ARelaxedLookAtTheLinkOverlooksACancellation) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ParkAgainstCancel<Mutant::scope_relaxed_link>>(3);
}

// One strand leaves a scope, and with it annexes; another parks there meanwhile, while the task is
// cancelled.
template <Mutant kMutant>
struct ParkBesideWhoLeaves : RelacyTest<ParkBesideWhoLeaves<kMutant>, 3> {
  using Env = RelacyEnv<kMutant>;
  BasicTaskCore<Env> task;
  BasicScope<Env> root;
  BasicScope<Env> scope;
  BasicWaiter<Env> leaving;
  BasicWaiter<Env> parking;
  bool parked = false;

  void before() {
    root.enter_root(nullptr, &task);
    scope.enter(&root, &task);
    leaving.state.set(WaitPhase::waiting);
    relacy_check(scope.park(leaving) && leaving.state.try_complete());
  }
  void thread(unsigned index) {
    if (index == 0) return scope.unpark(leaving);
    if (index == 1) {
      parking.state.set(WaitPhase::waiting);
      parked = scope.park(parking);
      return;
    }
    BasicCancelEffects<Env> effects;
    relacy_check(root.cancel(ReasonRef(), effects));
  }
  void after() {
    relacy_check(!parked || parking.state.phase() == WaitPhase::cancelled);
    scope.exit();
  }
};

TEST(ScopeRelacy, WhoParksInAnAnnexIsClaimedOrSeesTheCancellation) {
  MAGPIE_SKIP_RELACY();
  expect_clean<ParkBesideWhoLeaves<Mutant::none>>(3);
  expect_clean<ParkBesideWhoLeaves<Mutant::scope_early_annexes>>(3);
}

TEST(ScopeRelacyMutant, ARelaxedLookAtTheAnnexesFindsOneThatIsNotTold) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ParkBesideWhoLeaves<Mutant::scope_relaxed_annexes>>(3);
}

// Who finds himself cancelled sees what the canceller did before, through scopes that were linked
// when the cancellation came, and through one that he links to ask.
template <Mutant kMutant>
struct LookAgainstCancel : RelacyTest<LookAgainstCancel<kMutant>, 3> {
  using Env = RelacyEnv<kMutant>;
  BasicTaskCore<Env> task;
  BasicScope<Env> root;
  BasicScope<Env> linked;
  BasicScope<Env> unlinked;
  BasicWaiter<Env> waiter;
  RelacyData<int> data{0};

  void before() {
    root.enter_root(nullptr, &task);
    linked.enter(&root, &task);
    unlinked.enter(&linked, &task);
    waiter.state.set(WaitPhase::waiting);
    relacy_check(linked.park(waiter));
  }
  void thread(unsigned index) {
    if (index == 0) {
      BasicCancelEffects<Env> effects;
      data.write(1);
      relacy_check(root.cancel(ReasonRef(), effects));
      return;
    }
    if ((index == 1 ? linked : unlinked).cancelled()) relacy_check(data.read() == 1);
  }
  void after() {
    unlinked.exit();
    linked.exit();
  }
};

TEST(ScopeRelacy, WhoIsCancelledSeesWhatTheCancellerDid) {
  MAGPIE_SKIP_RELACY();
  expect_clean<LookAgainstCancel<Mutant::none>>(3);
}

TEST(ScopeRelacyMutant, ARelaxedCauseTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<LookAgainstCancel<Mutant::scope_relaxed_cause>>(3);
}

// Two cancel one scope. Once the call of either has returned, whatever it said, what is below is
// cancelled.
template <Mutant kMutant>
struct CancelAgainstCancel : RelacyTest<CancelAgainstCancel<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  BasicTaskCore<Env> task;
  BasicScope<Env> root;
  BasicScope<Env> below;
  BasicWaiter<Env> waiter;
  std::array<bool, 2> first{};

  void before() {
    root.enter_root(nullptr, &task);
    below.enter(&root, &task);
    waiter.state.set(WaitPhase::waiting);
    relacy_check(below.park(waiter));
  }
  void thread(unsigned index) {
    BasicCancelEffects<Env> effects;
    first[index] = root.cancel(ReasonRef(), effects);
    relacy_check(below.cancelled());
  }
  void after() {
    relacy_check(first[0] != first[1]);
    below.exit();
  }
};

TEST(ScopeRelacy, WhoHasCancelledAScopeIsCancelledBelowIt) {
  MAGPIE_SKIP_RELACY();
  expect_clean<CancelAgainstCancel<Mutant::none>>(3);
}

TEST(ScopeRelacyMutant, ARelaxedEndOfACancellationTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<CancelAgainstCancel<Mutant::scope_relaxed_end>>(3);
}

// A group is cancelled, with a task in it: whoever finds a cause in the task finds that something
// in it is cancelled.
template <Mutant kMutant>
struct CountAgainstCancel : RelacyTest<CountAgainstCancel<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  BasicTaskCore<Env> task;
  BasicTaskCore<Env> member;
  BasicScope<Env> root;
  BasicScope<Env> group;
  BasicScope<Env> members_root;
  BasicWaiter<Env> waiter;

  void before() {
    root.enter_root(nullptr, &task);
    group.enter(&root, &task);
    relacy_check(members_root.enter_root(&group, &member));
    waiter.state.set(WaitPhase::waiting);
  }
  void thread(unsigned index) {
    if (index == 0) {
      BasicCancelEffects<Env> effects;
      relacy_check(group.cancel(ReasonRef(), effects));
      return;
    }
    if (!members_root.park(waiter)) relacy_check(members_root.cancelled());
  }
  void after() {
    members_root.exit();
    group.exit();
  }
};

TEST(ScopeRelacy, WhoIsRefusedInATaskOfACancelledGroupSeesThatHeIsCancelled) {
  MAGPIE_SKIP_RELACY();
  expect_clean<CountAgainstCancel<Mutant::none>>(3);
}

TEST(ScopeRelacyMutant, ATaskThatIsNotCountedSeemsNotCancelled) {
  MAGPIE_SKIP_RELACY();
  expect_killed<CountAgainstCancel<Mutant::scope_uncounted_task>>(3);
}

// A callback is taken back and its memory used again, while it may be running.
template <Mutant kMutant>
struct TakeBackAgainstRun : RelacyTest<TakeBackAgainstRun<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  struct Callback : BasicCallbackNode<Env> {
    RelacyData<int> data{0};
  };
  BasicStopState<Env> state;
  Callback callback;

  void before() {
    callback.invoke = [](BasicCallbackNode<Env>* node) noexcept {
      static_cast<Callback*>(node)->data.write(1);
    };
    relacy_check(state.add(callback));
  }
  void thread(unsigned index) {
    if (index == 0) {
      if (state.begin(ReasonRef())) state.run_callbacks(1);
      return;
    }
    const bool never_ran = state.remove(callback, 2);
    relacy_check(callback.data.read() == (never_ran ? 0 : 1));
    callback.data.write(2);  // as whoever gets the memory next
  }
};

TEST(StopStateRelacy, WhoTakesACallbackBackSeesAllThatItDid) {
  MAGPIE_SKIP_RELACY();
  expect_clean<TakeBackAgainstRun<Mutant::none>>(4);
}

TEST(StopStateRelacyMutant, WithoutTheWaitTheMemoryIsUsedTooEarly) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TakeBackAgainstRun<Mutant::stop_state_no_wait>>(3);
}

TEST(StopStateRelacyMutant, ARelaxedEndTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TakeBackAgainstRun<Mutant::stop_state_relaxed_end>>(3);
}

// Contestants bring something along; whoever reads the verdict reads what the winner brought.
template <Mutant kMutant>
struct TwoContestants : RelacyTest<TwoContestants<kMutant>, 3> {
  BasicArbiter<RelacyEnv<kMutant>> arbiter;
  std::array<RelacyData<int>, 2> brought;
  std::array<bool, 2> won{};

  void thread(std::uint32_t index) {
    if (index < 2) {
      brought[index].write(1);
      won[index] = arbiter.win(index);
      return;
    }
    const std::uint32_t winner = arbiter.winner();
    if (winner != BasicArbiter<RelacyEnv<kMutant>>::kNobody)
      relacy_check(brought[winner].read() == 1);
  }
  void after() { relacy_check(won[0] != won[1]); }
};

TEST(ArbiterRelacy, WhoReadsTheVerdictSeesWhatTheWinnerBrought) {
  MAGPIE_SKIP_RELACY();
  expect_clean<TwoContestants<Mutant::none>>(4);
}

TEST(ArbiterRelacyMutant, ALoadAndAStoreLetBothWin) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoContestants<Mutant::arbiter_plain_win>>(3);
}

TEST(ArbiterRelacyMutant, ARelaxedVerdictTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<TwoContestants<Mutant::arbiter_relaxed_win>>(3);
}

}  // namespace
}  // namespace magpie::model
