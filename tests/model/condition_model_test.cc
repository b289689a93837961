// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-labels: soak
// ctest-timeout: 3600

#include <magpie/detail/condition_core.h>
#include <magpie/detail/permit_core.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// The condition itself with the mutex itself, and with operations of the models' own: of their
// operations every pair, while somebody waits who may be notified, cancelled, or lose its race.
// Whoever waits ends holding the mutex, alone; a notification wakes somebody if anybody is left to
// wake; and nobody touches a wait that has ended.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicScope;
using detail::BasicWaiter;
using detail::ConditionCore;
using detail::ConditionPart;
using detail::ConditionStage;
using detail::PermitCore;

template <class Env>
struct MutexTraits;

// Waits for the mutex, or for the condition; as a strand it does the one, then the other.
template <class Env>
struct Op : Wait<Env> {
  using Wait<Env>::Wait;
  ConditionPart<Env> part;
  PermitCore<MutexTraits<Env>>* mutex = nullptr;
  bool holds = true;       // its lock
  bool cancelled = false;  // the outcome
};

template <class Environment>
struct MutexTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Acquire = Op<Env>;
  using Word = std::uint8_t;
  template <class Waiter>
  static Word count(const Waiter&) {
    return 1;
  }
  static bool asks(const Acquire&) { return false; }
};

template <class Environment>
struct ConditionTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Wait = Op<Env>;
  static Wait& wait(BasicWaiter<Env>& w) { return static_cast<Wait&>(w); }
  static ConditionPart<Env>& part(Wait& w) { return w.part; }
  static BasicScope<Env>& scope(Wait& w) { return w.scope; }
  static auto& mutex(Wait& w) { return *w.mutex; }
  static void lets_go(Wait& w) { w.holds = false; }
  static void cancelled(Wait& w) { w.cancelled = true; }
  static void leaves_race(Wait& w) { w.race = nullptr; }
  static bool destroyed(Wait&) { return false; }
  static void leave_mask(Wait& w) { w.part.mask.exit(); }
  static void runs_again(Wait& w) { w.waits_here(); }
};

enum class Does : std::uint8_t {
  nothing,
  notifies_one,
  notifies_all,
  locks,    // and unlocks
  tries,    // to lock, and unlocks
  waits,    // locks, waits, and unlocks
  changes,  // what the waits with a predicate wait for, with the mutex; then notifies one
  cancels,  // the first wait
  wins      // the race of the first wait
};

struct Play {
  std::array<Does, 3> roles;
  std::size_t parked = 1;
  bool passes_on = false;  // the first one notifies the next, if it was notified itself
  bool predicate = false;  // waits are for a change
  bool in_the_end = true;  // when all have done what they do, whoever still waits is notified

  bool has(Does what) const { return std::find(roles.begin(), roles.end(), what) != roles.end(); }
  int acting() const {
    return static_cast<int>(
        std::count_if(roles.begin(), roles.end(), [](Does does) { return does != Does::nothing; }));
  }
};

template <class Env>
class World {
 public:
  using Core = ConditionCore<ConditionTraits<Env>>;
  using Resumed = typename Core::Resumed;

  World(Sim& sim, const Play& play) : sim_(sim), play_(play) {}

  // Locks the mutex for the operation of this strand.
  void lock(std::size_t i) {
    auto& actor = stage[i];
    actor.op->mutex = &mutex;
    if (mutex.start(*actor.op)) actor.strand.resumed();
    sim_.check(finish_wait(*actor.op, [&] { mutex.leave(*actor.op); }), "a lock was not given");
    actor.strand.suspends_again();
    actor.op->waits_here();  // what comes next is another operation
    comes_in();
  }
  void unlock() {
    --inside_;
    mutex.give_back(1);
  }

  // From holding the mutex: true if it is parked.
  bool wait(std::size_t i) {
    auto& op = *stage[i].op;
    const bool had_changed = changed;
    --inside_;  // when it is parked, somebody else may be in at once
    if (!(play_.predicate && had_changed) && !op.refused() && condition.wait(op)) return true;
    ++inside_;
    op.cancelled = !(play_.predicate && had_changed);
    return false;
  }
  // On the strand, which was parked: until the wait has ended, holding the mutex.
  void finish(std::size_t i) {
    auto& actor = stage[i];
    for (;;) {
      actor.strand.resumed();
      actor.strand.suspends_again();
      const Resumed resumed = condition.resume(*actor.op);
      if (resumed == Resumed::waiting) continue;
      sim_.check(resumed == Resumed::holding, "a wait ended without the mutex");
      comes_in();
      actor.op->holds = true;
      const bool done = !play_.predicate || changed || actor.op->cancelled;
      if (done || !wait(i)) break;
    }
  }
  // With the mutex, after its end.
  void end(std::size_t i) {
    auto& actor = stage[i];
    const bool cancelled = actor.op->cancelled;
    const bool may_be = i == 0 && (play_.has(Does::cancels) || play_.has(Does::wins));
    sim_.check(!cancelled || may_be, "a wait was cancelled for no reason");
    sim_.check(cancelled || !play_.predicate || changed, "a wait ended before the change");
    if (i == 0 && play_.has(Does::wins) && !play_.has(Does::cancels))
      sim_.check(cancelled == (actor.race.winner() == 1), "a wait has ended without its race");
    const bool passes_on = i == 0 && play_.passes_on && !cancelled;
    actor.op.destroy();
    unlock();
    if (passes_on) condition.notify_one();
  }
  void comes_in() { sim_.check(++inside_ == 1, "two hold the mutex"); }

  // Whether it waits to be notified.
  bool waits(std::size_t i) {
    return stage.has(i) && stage[i].op.alive() &&
           stage[i].op->part.stage == ConditionStage::condition && !stage[i].strand.scheduled();
  }

  Stage<Env, Op<Env>, 4> stage;
  PermitCore<MutexTraits<Env>> mutex{1};
  Core condition;
  bool changed = false;

 private:
  Sim& sim_;
  const Play& play_;
  int inside_ = 0;
};

template <Mutant kMutant>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    World<Env> world(sim, play);
    auto& stage = world.stage;
    typename Env::template Atomic<int> done{0};
    int notifications = 0;
    const auto is_done = [&] {
      if (done.fetch_add(1, std::memory_order_acq_rel) + 1 != play.acting()) return;
      // Who was there before all others is notified before them.
      for (std::size_t i = 0; i < play.parked && !play.predicate; ++i) {
        const bool for_sure = i != 0 || !(play.has(Does::cancels) || play.has(Does::wins));
        sim.check(!for_sure || notifications <= static_cast<int>(i) || !world.waits(i),
                  "a notification was lost");
      }
      if (play.in_the_end) world.condition.notify_all();
    };
    for (std::size_t i = 0; i < play.parked; ++i) {
      auto& actor = stage.enter(i, i == 0 && play.has(Does::wins) ? &stage[0].race : nullptr);
      auto* const race = std::exchange(actor.op->race, nullptr);
      world.lock(i);
      actor.op->race = race;
      sim.check(world.wait(i), "a wait did not park");
      sim.spawn([&, i] {
        world.finish(i);
        world.end(i);
      });
    }
    for (std::size_t n = 0; n < play.roles.size(); ++n) {
      const std::size_t i = play.parked + n;
      const auto act = [&](auto does) {
        sim.spawn([&, does] {
          does();
          is_done();
        });
      };
      switch (play.roles[n]) {
        case Does::nothing:
          break;
        case Does::notifies_one:
          act([&] {
            world.condition.notify_one();
            ++notifications;
          });
          break;
        case Does::notifies_all:
          act([&] {
            world.condition.notify_all();
            notifications += 4;
          });
          break;
        case Does::tries:
          act([&] {
            if (!world.mutex.try_take(1)) return;
            world.comes_in();
            sim.pass();
            world.unlock();
          });
          break;
        case Does::locks:
        case Does::changes:
          stage.enter(i, nullptr);
          act([&, i, changes = play.roles[n] == Does::changes] {
            world.lock(i);
            sim.pass();
            if (changes) world.changed = true;
            stage[i].op.destroy();
            world.unlock();
            if (changes) world.condition.notify_one();
          });
          break;
        case Does::waits:
          stage.enter(i, nullptr);
          sim.spawn([&, i] {
            world.lock(i);
            const bool parked = world.wait(i);
            is_done();
            if (parked) world.finish(i);
            world.end(i);
          });
          break;
        case Does::cancels:
          act([&] { stage[0].cancel(); });
          break;
        case Does::wins:
          act([&] { stage[0].lose(); });
          break;
      }
    }
    sim.run();
    stage.check_end();
    sim.check(world.mutex.available() == 1, "the mutex is lost");
  });
}

TEST(ConditionModel, EveryPairOfOperations) {
  constexpr Does kOperations[] = {Does::notifies_one, Does::notifies_all, Does::locks, Does::tries,
                                  Does::waits,        Does::cancels,      Does::wins};
  expect_clean_pairs(kOperations, [](Does a, Does b) {
    const bool longer = a == Does::waits || b == Does::waits;  // locks, waits and unlocks
    return perform<Mutant::none>(longer ? locked_for_long() : locked(2), {.roles = {a, b}});
  });
}

constexpr Play kNotifiedAndCancelled{.roles = {Does::notifies_one, Does::cancels}, .parked = 2};
constexpr Play kNotifiedAndBeaten{.roles = {Does::notifies_one, Does::wins}, .parked = 2};
constexpr Play kWithAHolder{.roles = {Does::notifies_one, Does::locks, Does::cancels}};
constexpr Play kPassedOn{.roles = {Does::notifies_one, Does::cancels},
                         .parked = 2,
                         .passes_on = true,
                         .in_the_end = false};
constexpr Play kChange{
    .roles = {Does::waits, Does::changes}, .parked = 0, .predicate = true, .in_the_end = false};
constexpr Play kChangeForTwo{
    .roles = {Does::notifies_one, Does::changes}, .predicate = true, .in_the_end = false};

TEST(ConditionModel, AWaitEndsHoldingTheMutexNotifiedOrCancelled) {
  for (const Play& play : {kNotifiedAndCancelled, kNotifiedAndBeaten, kWithAHolder, kPassedOn}) {
    expect_clean(perform<Mutant::none>(locked(1), play));
    expect_clean_in_random_schedules(
        [&](Options options) { return perform<Mutant::none>(options, play); });
  }
}

TEST(ConditionModel, NoChangeIsOverlooked) {
  for (const Play& play : {kChange, kChangeForTwo}) {
    expect_clean(perform<Mutant::none>(locked(2), play));
    expect_clean_in_random_schedules(
        [&](Options options) { return perform<Mutant::none>(options, play); });
  }
}

TEST(ConditionModelMutant, WhoWaitsIsInTheQueueBeforeTheMutexIsFree) {
  hunt(perform<Mutant::condition_early_release>(locked(2), kChange));
}

TEST(ConditionModelMutant, TheSecondStageIsBehindAMask) {
  hunt(perform<Mutant::condition_no_mask>(locked(2), kWithAHolder));
}

TEST(ConditionModelMutant, WhoIsNotifiedLeavesTheFirstStagesScope) {
  hunt(perform<Mutant::condition_stays_in_its_scope>(locked(2), kNotifiedAndCancelled));
}

TEST(ConditionModelMutant, TheMutexDecidesNoRace) {
  hunt(perform<Mutant::condition_stays_in_its_race>(locked(2), kNotifiedAndBeaten));
}

TEST(ConditionModelMutant, ANotificationIsNotSpentOnACancelledWaiter) {
  hunt(perform<Mutant::condition_spends_on_the_cancelled>(locked(2), kPassedOn));
}

TEST(ConditionModelMutant, WhoIsCancelledSaysAgainWhereHeGoesOn) {
  hunt(perform<Mutant::condition_forgets_its_executor>(locked(2), kNotifiedAndCancelled));
}

TEST(ConditionModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform<Mutant::condition_leave_unlocked>(locked(2), kNotifiedAndCancelled));
}

}  // namespace
}  // namespace magpie::model
