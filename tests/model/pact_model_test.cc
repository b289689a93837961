// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/pact.h>

#include <gtest/gtest.h>

#include <array>
#include <mutex>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// Steps that complete several operations or none: a meeting of two, each of which may be in a race
// and cancelled, and two meetings that cross. Those of more, a barrier's: gates_model_test.cc.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicWaiter;
using detail::BasicWaitQueue;
using detail::BasicWaitState;
using detail::Contestant;
using detail::Met;
using detail::SpinLock;
using detail::WaitPhase;

// ---- verdicts that are held ----

// One holds the verdict and decides or lets go; two others want it.
template <Mutant kMutant>
Report hold_against_wins(Options options, bool decides) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Hold = typename BasicArbiter<Env>::Hold;
    BasicArbiter<Env> arbiter;
    std::array<bool, 3> won{};
    sim.spawn([&] {
      if (arbiter.hold() != Hold::held) return;
      sim.pass();
      if (decides) {
        won[0] = true;
        arbiter.decide(0);
      } else {
        arbiter.let_go();
      }
    });
    for (std::uint32_t i = 1; i < 3; ++i) {
      sim.spawn([&, i] {
        won[i] = arbiter.win(i);
        sim.check(arbiter.winner() != BasicArbiter<Env>::kNobody,
                  "a race is decided and has no winner");
      });
    }
    sim.run();
    sim.check(won[0] + won[1] + won[2] == 1, "not one contestant won");
    for (std::uint32_t i = 0; i < 3; ++i) {
      sim.check(won[i] == (arbiter.winner() == i), "the winner is another");
    }
  });
}

TEST(PactModel, WhoWantsAVerdictWaitsForItsHolder) {
  for (const bool decides : {true, false}) {
    expect_clean(hold_against_wins<Mutant::none>({.preemptions = 3}, decides));
  }
}

TEST(PactModelMutant, AVerdictIsNotWonWhileItIsHeld) {
  hunt(hold_against_wins<Mutant::arbiter_win_while_held>({.preemptions = 2}, true));
}

// ---- a meeting ----

// `active` starts and finds `parked`. Each is in a race of its own with one more contestant, or in
// none; `parked` is cancelled with its race, and by somebody further out.
template <Mutant kMutant>
Report meeting(Options options, bool active_races, bool parked_races, bool cancelled) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    constexpr std::uint32_t kNobody = BasicArbiter<Env>::kNobody;
    SpinLock<Env> pact;
    BasicArbiter<Env> mine;
    BasicArbiter<Env> his;
    BasicWaitState<Env> active;
    BasicWaitState<Env> parked;
    parked.set(WaitPhase::waiting);
    Met met = Met::not_he;
    bool other_won_mine = false;
    bool other_won_his = false;
    sim.spawn([&] {
      met = meet(pact, Contestant<Env>{active, active_races ? &mine : nullptr, 0},
                 Contestant<Env>{parked, parked_races ? &his : nullptr, 0});
    });
    if (active_races) sim.spawn([&] { other_won_mine = mine.win(1); });
    if (parked_races) {
      sim.spawn([&] {
        other_won_his = his.win(1);
        if (other_won_his) parked.try_cancel();
      });
    }
    if (cancelled) sim.spawn([&] { parked.try_cancel(); });
    sim.run();
    const bool both = met == Met::both;
    sim.check(both == (parked.phase() == WaitPhase::done), "one has completed without the other");
    sim.check(both == (active.phase() == WaitPhase::done_at_once),
              "one has completed without the other");
    if (active_races) {
      sim.check(other_won_mine == !both, "a race was won twice, or by nobody");
      sim.check(mine.winner() == (both ? 0u : 1u), "the winner is another");
      sim.check(met != Met::too_late || other_won_mine, "a verdict was taken for decided");
    }
    if (parked_races) {
      sim.check(other_won_his == !both, "a race was won twice, or by nobody");
      sim.check(his.winner() == (both ? 0u : 1u), "the winner is another");
    }
    sim.check(both || active_races || parked_races || cancelled, "they did not meet");
    sim.check(mine.winner() != kNobody || !active_races, "a verdict was not let go");
  });
}

TEST(PactModel, TwoMeetOrNoneHasCompleted) {
  for (const bool active_races : {false, true}) {
    for (const bool parked_races : {false, true}) {
      for (const bool cancelled : {false, true}) {
        expect_clean(meeting<Mutant::none>({.preemptions = bound(3)}, active_races, parked_races,
                                           cancelled));
      }
    }
  }
}

TEST(PactModelMutant, NobodyWinsBeforeItIsKnownThatBothCan) {
  hunt(meeting<Mutant::pact_win_first>({.preemptions = 2}, true, true, true));
}

TEST(PactModelMutant, AVerdictThatIsHeldIsNotWon) {
  hunt(meeting<Mutant::arbiter_win_while_held>({.preemptions = 2}, true, true, false));
}

// Two races meet at two places at the same time, each active at one of them: at one place they do.
template <Mutant kMutant>
Report crossing(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    SpinLock<Env> pact;
    std::array<BasicArbiter<Env>, 2> races;
    std::array<BasicWaitState<Env>, 2> active;
    std::array<BasicWaitState<Env>, 2> parked;
    std::array<Met, 2> met{Met::not_he, Met::not_he};
    for (auto& state : parked) state.set(WaitPhase::waiting);
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        const auto index = static_cast<std::uint32_t>(i);
        met[i] = meet(pact, Contestant<Env>{active[i], &races[i], index},
                      Contestant<Env>{parked[i], &races[1 - i], index});
      });
    }
    sim.run();
    const int meetings = (met[0] == Met::both) + (met[1] == Met::both);
    sim.check(meetings == 1, "they did not meet once");
    const std::uint32_t where = met[0] == Met::both ? 0 : 1;
    sim.check(races[0].winner() == where && races[1].winner() == where, "the winner is another");
    sim.check(parked[1 - where].phase() == WaitPhase::waiting, "a loser has completed");
  });
}

TEST(PactModel, RacesThatMeetTwiceMeetOnce) {
  expect_clean(crossing<Mutant::none>({.preemptions = 4}));
}

TEST(PactModelMutant, WhoHoldsSeveralVerdictsHoldsTheLock) {
  hunt(crossing<Mutant::pact_no_lock>({.preemptions = 2}));
}

}  // namespace
}  // namespace magpie::model
