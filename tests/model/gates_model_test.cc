// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 3600

#include <magpie/detail/barrier_core.h>
#include <magpie/detail/event_core.h>
#include <magpie/detail/latch_core.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// Event, latch and barrier themselves, with operations of the models' own: of their operations
// every pair, while somebody waits who may be let through, cancelled, or lose its race. Nobody
// stays behind, nobody goes too early, a phase is complete for all of its parties or for none, and
// nobody touches an operation that has ended.

namespace magpie::model {
namespace {

using detail::BarrierCore;
using detail::BarrierPart;
using detail::BasicArbiter;
using detail::BasicScope;
using detail::BasicWaiter;
using detail::Contestant;
using detail::EventCore;
using detail::LatchCore;
using detail::LatchStart;
using detail::SpinLock;
using detail::WaitPhase;

enum class Does : std::uint8_t {
  nothing,
  waits,
  arrives,  // and waits
  opens,    // sets the event, counts the latch down
  clears,   // the event
  looks,
  cancels,   // the first operation
  competes,  // arrives as the rival of the first operation
  races,     // arrives, and has a rival
  wins       // the race of the first operation
};

// `parked` wait when the others come, which are one thread each.
struct Play {
  std::array<Does, 2> roles;
  std::size_t parked = 1;
  std::size_t count = 2;   // of the latch; the barrier's parties
  bool in_the_end = true;  // when all have done what they do, whoever still waits is let through
  // Who starts an operation is still on his way out when that goes on; else it goes on when all is
  // over.
  bool apart = false;

  bool has(Does what) const { return std::find(roles.begin(), roles.end(), what) != roles.end(); }
};

// What event and latch have in common: who waits, and how he goes on.
template <class Env, class Core>
class Gate {
 public:
  Gate(Sim& sim, const Play& play, Core& core) : sim_(sim), play_(play), core_(core) {}

  // start(op): true if it is parked. may_pass(): whether the gate is, or was, open.
  template <class Start, class MayPass>
  void wait(std::size_t i, Start start, MayPass may_pass) {
    auto& actor = stage.enter(i, nullptr);
    const auto begin = [&actor, start] {
      if (actor.op->refused() || !start(*actor.op)) actor.strand.schedule();
    };
    ends_[i] = [this, &actor, i, may_pass] {
      actor.strand.resumed();
      const bool passed = finish_wait(*actor.op, [&] { core_.leave(*actor.op); });
      sim_.check(passed || (i == 0 && play_.has(Does::cancels)), "a wait ended for no reason");
      sim_.check(!passed || may_pass(), "a wait ended too early");
      actor.op.destroy();
    };
    if (i < play_.parked) {
      begin();
    } else {
      act(begin);
    }
    if (i < play_.parked || play_.apart) sim_.spawn(std::exchange(ends_[i], nullptr));
  }
  template <class F>
  void act(F does) {
    sim_.spawn([this, does] {
      does();
      if (done_.fetch_add(1, std::memory_order_acq_rel) == 1) all_are_done();
    });
  }
  bool waits(std::size_t i) const { return stage.has(i) && !stage[i].strand.scheduled(); }
  void check_end() {
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      if (ends_[i] == nullptr) continue;
      sim_.check(stage[i].strand.scheduled(), "somebody is left behind");
      ends_[i]();
    }
    stage.check_end();
  }

  Stage<Env, Wait<Env>, 4> stage;
  std::function<void()> all_are_done;

 private:
  Sim& sim_;
  const Play& play_;
  Core& core_;
  typename Env::template Atomic<int> done_{0};
  std::array<std::function<void()>, 4> ends_;  // of those who go on when all is over
};

// ---- event ----

template <Mutant kMutant>
Report perform_event(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    EventCore<WaitTraits<Env>> event;
    Gate<Env, EventCore<WaitTraits<Env>>> gate(sim, play, event);
    bool was_set = false;
    const auto start = [&](Wait<Env>& op) { return event.start(op); };
    const auto may_pass = [&] { return was_set; };
    const auto set = [&] {
      was_set = true;
      event.set();
    };
    gate.all_are_done = [&] {
      for (std::size_t i = 0; i < play.parked && play.has(Does::opens); ++i)
        sim.check(!gate.waits(i), "somebody waits who was there when it was set");
      if (play.in_the_end) set();
    };
    for (std::size_t i = 0; i < play.parked; ++i) gate.wait(i, start, may_pass);
    for (std::size_t i = 0; i < play.roles.size(); ++i) {
      switch (play.roles[i]) {
        case Does::waits:
          gate.wait(play.parked + i, start, may_pass);
          break;
        case Does::opens:
          gate.act(set);
          break;
        case Does::clears:
          gate.act([&] { event.clear(); });
          break;
        case Does::looks:
          gate.act([&] { sim.check(!event.is_set() || was_set, "it is set for no reason"); });
          break;
        case Does::cancels:
          gate.act([&] { gate.stage[0].cancel(); });
          break;
        default:
          break;
      }
    }
    sim.run();
    gate.check_end();
  });
}

TEST(EventModel, EveryPairOfOperations) {
  constexpr Does kOperations[] = {Does::waits, Does::opens, Does::clears, Does::looks,
                                  Does::cancels};
  expect_clean_pairs(kOperations, [](Does a, Does b) {
    return perform_event<Mutant::none>(locked(2), {.roles = {a, b}});
  });
}

constexpr Play kSetAndClear{.roles = {Does::opens, Does::clears}, .parked = 2, .in_the_end = false};
constexpr Play kSetAndCancel{
    .roles = {Does::opens, Does::cancels}, .parked = 2, .in_the_end = false};
constexpr Play kWaitAndSet{
    .roles = {Does::waits, Does::opens}, .parked = 0, .in_the_end = false, .apart = true};

TEST(EventModel, WhoWaitsWakesAlsoIfItIsClearedAtOnce) {
  for (const Play& play : {kSetAndClear, kSetAndCancel, kWaitAndSet}) {
    expect_clean(perform_event<Mutant::none>(locked(play.parked == 2 ? 1 : 2), play));
    expect_clean_in_random_schedules(
        [&](Options options) { return perform_event<Mutant::none>(options, play); });
  }
}

TEST(EventModelMutant, AllWhoWaitAreWoken) {
  hunt(perform_event<Mutant::event_wakes_one>(locked(1), kSetAndClear));
}

TEST(EventModelMutant, TheFlagIsLookedAtUnderTheLock) {
  hunt(perform_event<Mutant::event_early_look>(locked(1), kWaitAndSet));
}

TEST(EventModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform_event<Mutant::event_leave_unlocked>(locked(2),
                                                   {.roles = {Does::opens, Does::cancels}}));
}

TEST(EventModelMutant, AWaitIsDecidedInOneStep) {
  hunt(perform_event<Mutant::waiter_plain_decide>(locked(2), kSetAndCancel));
}

// ---- latch ----

template <Mutant kMutant>
Report perform_latch(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    LatchCore<WaitTraits<Env>> latch(play.count);
    Gate<Env, LatchCore<WaitTraits<Env>>> gate(sim, play, latch);
    std::size_t arrived = 0;
    const auto start = [&](std::size_t arrives) {
      return [&, arrives](Wait<Env>& op) {
        arrived += arrives;
        const LatchStart started = latch.start(op, arrives);
        sim.check(started != LatchStart::too_many, "an arrival is refused");
        return started == LatchStart::parked;
      };
    };
    const auto may_pass = [&] { return arrived == play.count; };
    gate.all_are_done = [&] {
      for (std::size_t i = 0; i < play.parked + 2 && arrived == play.count; ++i)
        sim.check(!gate.waits(i), "somebody waits although the count is 0");
      const std::size_t left = play.count - arrived;
      arrived += left;
      sim.check(latch.count_down(left), "the count is too low");
      sim.check(!latch.count_down(1), "the count is too high");
    };
    for (std::size_t i = 0; i < play.parked; ++i) gate.wait(i, start(0), may_pass);
    for (std::size_t i = 0; i < play.roles.size(); ++i) {
      switch (play.roles[i]) {
        case Does::waits:
        case Does::arrives:
          gate.wait(play.parked + i, start(play.roles[i] == Does::arrives ? 1 : 0), may_pass);
          break;
        case Does::opens:
          gate.act([&] {
            ++arrived;
            sim.check(latch.count_down(1), "an arrival is refused");
          });
          break;
        case Does::looks:
          gate.act([&] { sim.check(!latch.open() || may_pass(), "it is open too early"); });
          break;
        case Does::cancels:
          gate.act([&] { gate.stage[0].cancel(); });
          break;
        default:
          break;
      }
    }
    sim.run();
    gate.check_end();
  });
}

TEST(LatchModel, EveryPairOfOperations) {
  constexpr Does kOperations[] = {Does::waits, Does::arrives, Does::opens, Does::looks,
                                  Does::cancels};
  expect_clean_pairs(kOperations, [](Does a, Does b) {
    return perform_latch<Mutant::none>(locked(2), {.roles = {a, b}});
  });
}

constexpr Play kTwoWait{.roles = {Does::opens, Does::opens}, .parked = 2};
constexpr Play kLastAndCancel{.roles = {Does::arrives, Does::cancels}, .parked = 2, .count = 1};
constexpr Play kTwoArrive{.roles = {Does::arrives, Does::opens}, .parked = 0, .apart = true};

TEST(LatchModel, TheLastArrivalLetsAllThrough) {
  for (const Play& play : {kTwoWait, kLastAndCancel, kTwoArrive}) {
    expect_clean(perform_latch<Mutant::none>(locked(play.parked == 2 ? 1 : 2), play));
    expect_clean_in_random_schedules(
        [&](Options options) { return perform_latch<Mutant::none>(options, play); });
  }
}

TEST(LatchModelMutant, AllWhoWaitAreWoken) {
  hunt(perform_latch<Mutant::latch_wakes_one>(locked(1), kTwoWait));
}

TEST(LatchModelMutant, BetweenTheLookAndTheQueueTheLockIsHeld) {
  hunt(perform_latch<Mutant::latch_parks_late>(locked(1), kTwoArrive));
}

TEST(LatchModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform_latch<Mutant::latch_leave_unlocked>(
      locked(2), {.roles = {Does::opens, Does::cancels}, .count = 1}));
}

TEST(LatchModelMutant, AWaitIsDecidedInOneStep) {
  hunt(perform_latch<Mutant::waiter_plain_decide>(locked(2), kLastAndCancel));
}

// ---- barrier ----

template <class Env>
struct PartyOp : Wait<Env> {
  PartyOp(Strand<Env>& its_strand, BasicScope<Env>& its_scope, BasicArbiter<Env>* its_race,
          std::uint32_t its_index)
      : Wait<Env>(its_strand, its_scope, its_race) {
    this->index = its_index;
  }
  BarrierPart part;
};

template <class Environment>
struct BarrierTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Party = PartyOp<Env>;
  static Party& party(BasicWaiter<Env>& w) { return static_cast<Party&>(w); }
  static Contestant<Env> contestant(Party& party) { return {party.state, party.race, party.index}; }
  static SpinLock<Env>& pact_lock() { return *pact; }

  static inline SpinLock<Env>* pact = nullptr;
};

// The parties of one barrier or several, and what has become of them.
template <class Env>
class Parties {
 public:
  using Traits = BarrierTraits<Env>;
  using Core = BarrierCore<Traits>;

  explicit Parties(Sim& sim) : sim_(sim) { Traits::pact = &pact_; }

  // Arrives here and now, and goes on in a thread of its own.
  void park(Core& barrier, std::size_t i, BasicArbiter<Env>* race) {
    enter(barrier, i, race, 0, true);
    begin(barrier, i);
  }
  // Will arrive. `apart`: and go on in another thread; else it goes on when all is over.
  void enter(Core& barrier, std::size_t i, BasicArbiter<Env>* race, std::uint32_t index,
             bool apart) {
    auto& actor = stage.enter(i, race, index);
    ends_[i] = [this, &barrier, &actor, i] {
      actor.strand.resumed();
      passed[i] = finish_wait(*actor.op, [&] { return barrier.leave(*actor.op); });
      last += passed[i] && actor.op->part.last;
      if (actor.op->race != nullptr) {
        sim_.check(passed[i] == (actor.op->race->winner() == actor.op->index),
                   "a party has passed without its race");
      }
      actor.op.destroy();
    };
    if (apart) sim_.spawn(std::exchange(ends_[i], nullptr));
  }
  void begin(Core& barrier, std::size_t i) {
    if (stage[i].op->refused() || !barrier.start(*stage[i].op)) stage[i].strand.schedule();
  }
  // Whoever waits for good.
  void cancel_all(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      if (stage.has(i)) stage[i].cancel();
    }
  }
  void check_end() {
    for (std::size_t i = 0; i < ends_.size(); ++i) {
      if (ends_[i] == nullptr) continue;
      sim_.check(stage[i].strand.scheduled(), "somebody is left behind");
      ends_[i]();
    }
  }
  std::size_t passed_in_all() const {
    return static_cast<std::size_t>(std::count(passed.begin(), passed.end(), true));
  }

  Stage<Env, PartyOp<Env>, 4> stage;
  std::array<bool, 4> passed{};
  int last = 0;

 private:
  Sim& sim_;
  SpinLock<Env> pact_;
  std::array<std::function<void()>, 4> ends_;  // of those who go on when all is over
};

template <Mutant kMutant>
Report perform_barrier(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    Parties<Env> parties(sim);
    typename Parties<Env>::Core barrier(play.count);
    auto& stage = parties.stage;
    typename Env::template Atomic<int> done{0};
    const std::size_t all = play.parked + play.roles.size();
    const auto is_done = [&] {
      if (done.fetch_add(1, std::memory_order_acq_rel) == 1) parties.cancel_all(all);
    };
    const bool first_races = play.has(Does::wins) || play.has(Does::competes);
    std::size_t sure = 0;  // so many wait for nothing but the others
    for (std::size_t i = 0; i < play.parked; ++i) {
      const bool races = i == 0 && first_races;
      parties.park(barrier, i, races ? &stage[0].race : nullptr);
      sure += !races && (i != 0 || !play.has(Does::cancels));
    }
    for (std::size_t n = 0; n < play.roles.size(); ++n) {
      const std::size_t i = play.parked + n;
      const auto arrive = [&, i](BasicArbiter<Env>* race, std::uint32_t index) {
        parties.enter(barrier, i, race, index, play.apart);
        sim.spawn([&, i] {
          parties.begin(barrier, i);
          is_done();
        });
      };
      switch (play.roles[n]) {
        case Does::arrives:
          arrive(nullptr, 0);
          ++sure;
          break;
        case Does::competes:
          arrive(&stage[0].race, 1 + static_cast<std::uint32_t>(n));
          break;
        case Does::races:
          arrive(&stage[i].race, 0);
          sim.spawn([&, i] { stage[i].lose(); });
          break;
        case Does::cancels:
        case Does::wins:
          sim.spawn([&, does = play.roles[n]] {
            if (does == Does::cancels || stage[0].race.win(9)) stage[0].cancel();
            is_done();
          });
          break;
        default:
          break;
      }
    }
    sim.run();
    parties.check_end();
    const std::size_t passed = parties.passed_in_all();
    sim.check(passed == 0 || passed == play.count, "a phase is complete for some of its parties");
    sim.check(parties.last == (passed == 0 ? 0 : 1), "not one party is the last");
    sim.check(passed != 0 || sure < play.count, "there were enough, and they did not meet");
    stage.check_end();
  });
}

TEST(BarrierModel, EveryPairOfOperations) {
  constexpr Does kOperations[] = {Does::arrives, Does::races, Does::competes, Does::cancels,
                                  Does::wins};
  for (const std::size_t parties : {2U, 3U}) {
    expect_clean_pairs(kOperations, [=](Does a, Does b) {
      const bool longer = a == Does::races || b == Does::races;  // one thread more for each
      return perform_barrier<Mutant::none>(longer ? locked_for_long() : locked(2),
                                           {.roles = {a, b}, .count = parties});
    });
  }
}

constexpr Play kThirdAndCancel{.roles = {Does::arrives, Does::cancels}, .parked = 2, .count = 3};
constexpr Play kThirdAndRival{.roles = {Does::races, Does::wins}, .parked = 2, .count = 3};

TEST(BarrierModel, APhaseIsCompleteForAllOrForNone) {
  expect_clean(perform_barrier<Mutant::none>(locked(1), kThirdAndCancel));
  expect_clean(perform_barrier<Mutant::none>(locked(1), kThirdAndRival));
  for (const Play& play : {kThirdAndCancel, kThirdAndRival}) {
    expect_clean_in_random_schedules(
        [&](Options options) { return perform_barrier<Mutant::none>(options, play); });
  }
}

// Two races meet at two barriers at the same time, each with a party that waits at one of them and
// one that arrives at the other.
template <Mutant kMutant>
Report crossing(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Core = typename Parties<Env>::Core;
    Parties<Env> parties(sim);
    std::array<Core, 2> barriers{Core(2), Core(2)};
    auto& stage = parties.stage;
    for (std::size_t i = 0; i < 2; ++i) parties.park(barriers[i], i, &stage[i].race);
    for (std::size_t i = 0; i < 2; ++i)
      parties.enter(barriers[i], 2 + i, &stage[1 - i].race, 1, false);
    typename Env::template Atomic<int> done{0};
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        parties.begin(barriers[i], 2 + i);
        if (done.fetch_add(1, std::memory_order_acq_rel) == 1) parties.cancel_all(4);
      });
    }
    sim.run();
    parties.check_end();
    sim.check(parties.passed_in_all() == 2 && parties.last == 1, "they did not meet once");
    stage.check_end();
  });
}

TEST(BarrierModel, RacesThatMeetAtTwoBarriersMeetOnce) {
  expect_clean(crossing<Mutant::none>(locked(1)));
}

TEST(BarrierModelMutant, WhoHoldsSeveralVerdictsHoldsTheLock) {
  hunt(crossing<Mutant::barrier_no_pact>(locked(2)));
}

TEST(BarrierModelMutant, WhoDoesNotCompleteAPhaseLetsGoOfItsRaces) {
  hunt(perform_barrier<Mutant::barrier_keeps_verdicts>(
      locked(2), {.roles = {Does::races, Does::wins}, .count = 2}));
}

TEST(BarrierModelMutant, ACancelledPartyAsksWhetherItHasPassed) {
  hunt(perform_barrier<Mutant::barrier_forgets_passed>(locked(2), kThirdAndCancel));
}

TEST(BarrierModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform_barrier<Mutant::barrier_leave_unlocked>(locked(2), kThirdAndCancel));
}

}  // namespace
}  // namespace magpie::model
