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
// and cancelled; two meetings that cross; and a barrier's phase. The barrier is combinators/src's
// in small.

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

// ---- a barrier's phase ----

template <class Env>
struct Party : BasicWaiter<Env> {
  BasicArbiter<Env>* race = nullptr;
  std::uint32_t index = 0;
  bool chosen = false;
  bool passed = false;
  bool last = false;
};

// `kAsksAgain`: a party that was cancelled asks whether it has passed when it leaves the queue.
template <class Env, bool kAsksAgain>
class Barrier {
 public:
  using Hold = typename BasicArbiter<Env>::Hold;
  explicit Barrier(std::size_t parties) : parties_(parties) {}

  void park(Party<Env>& party) {  // before anybody else runs
    party.state.set(WaitPhase::waiting);
    queue_.push_back(party);
    ++waiting_;
  }

  // True: the phase is complete. `woken` gets those who are to be scheduled.
  template <class Wake>
  bool arrive(Party<Env>& last, Wake&& wake) {
    std::lock_guard guard(lock_);
    if (waiting_ + 1 < parties_) return false;
    std::lock_guard pact(pact_);
    if (last.race != nullptr && last.race->hold_among_others() != Hold::held) return false;
    std::size_t there = 1;
    for (auto* w = queue_.front(); w != nullptr && there < parties_; w = w->queue_next) {
      auto& party = static_cast<Party<Env>&>(*w);
      if (party.state.phase() != WaitPhase::waiting) continue;
      if (party.race != nullptr && party.race->hold_among_others() != Hold::held) continue;
      party.chosen = true;
      ++there;
    }
    const bool complete = there == parties_;
    BasicWaiter<Env>* next = nullptr;
    for (auto* w = queue_.front(); w != nullptr; w = next) {
      next = w->queue_next;
      auto& party = static_cast<Party<Env>&>(*w);
      if (!std::exchange(party.chosen, false)) continue;
      if (!complete) {
        if (party.race != nullptr) party.race->let_go();
        continue;
      }
      queue_.remove(party);
      --waiting_;
      if (party.race != nullptr) party.race->decide(party.index);
      if (party.state.try_complete()) {
        wake(party);
      } else {
        party.passed = true;
      }
    }
    if (last.race != nullptr) complete ? last.race->decide(last.index) : last.race->let_go();
    last.last = complete;
    return complete;
  }

  bool unqueue(Party<Env>& party) {
    std::lock_guard guard(lock_);
    if (party.queued) {
      queue_.remove(party);
      --waiting_;
    }
    return kAsksAgain && party.passed;
  }

 private:
  const std::size_t parties_;
  SpinLock<Env> lock_;
  SpinLock<Env> pact_;
  BasicWaitQueue<Env> queue_;
  std::size_t waiting_ = 0;
};

// Two wait, the second in a race with another contestant; a third arrives, while both are
// cancelled.
template <Mutant kMutant, bool kAsksAgain = true>
Report last_arrival(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Barrier<Env, kAsksAgain> barrier(3);
    BasicArbiter<Env> race;
    Strand<Env> strands[2];
    Party<Env> parties[2];
    Party<Env> last;
    parties[1].race = &race;
    barrier.park(parties[0]);
    barrier.park(parties[1]);
    bool complete = false;
    bool other_won = false;
    std::array<bool, 2> passed{};
    sim.spawn([&] {
      complete =
          barrier.arrive(last, [&](Party<Env>& party) { strands[&party - parties].schedule(); });
      // Whoever waits for good is cancelled in the end.
      for (std::size_t i = 0; i < 2; ++i) {
        if (parties[i].state.try_cancel()) strands[i].schedule();
      }
    });
    sim.spawn([&] {
      if (parties[0].state.try_cancel()) strands[0].schedule();
    });
    sim.spawn([&] {
      other_won = race.win(1);
      if (other_won && parties[1].state.try_cancel()) strands[1].schedule();
    });
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        strands[i].resumed();
        passed[i] = parties[i].state.phase() == WaitPhase::done || barrier.unqueue(parties[i]);
      });
    }
    sim.run();
    sim.check(passed[0] == complete && passed[1] == complete, "a party passed alone");
    sim.check(other_won == !complete, "a race was won twice, or by nobody");
    sim.check(race.winner() == (complete ? 0u : 1u), "the winner is another");
  });
}

TEST(BarrierModel, APhaseIsCompleteForAllOrForNone) {
  expect_clean(last_arrival<Mutant::none>({.preemptions = 1, .store_buffers = false}));
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = last_arrival<Mutant::none>(
        {.strategy = strategy, .executions = 20'000, .pct_depth = 4, .pct_length = 150});
    EXPECT_TRUE(report.passed()) << report;
  }
}

TEST(BarrierModelMutant, ACancelledPartyAsksWhetherItHasPassed) {
  hunt(last_arrival<Mutant::none, false>({.preemptions = 2, .store_buffers = false}));
}

}  // namespace
}  // namespace magpie::model
