// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope.h>
#include <magpie/detail/semaphore_core.h>

#include <gtest/gtest.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// The semaphore and the mutex themselves, with operations of the models' own: every pair of their
// operations against each other, against cancellations and against rivals in a race. No permit is
// lost or made, nobody waits for what is free, nobody overtakes, and nobody touches an operation
// that has ended, or a semaphore that the last one who used it has destroyed.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::PermitCore;
using detail::SemaphoreCore;

template <class Env>
struct AcquireOp : Wait<Env> {
  AcquireOp(Strand<Env>& its_strand, BasicScope<Env>& its_scope, BasicArbiter<Env>* its_race,
            std::size_t its_count)
      : Wait<Env>(its_strand, its_scope, its_race), count(its_count) {}
  std::size_t count;
};

template <class Environment>
struct ModelTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Acquire = AcquireOp<Env>;
  using Word = std::uint8_t;
  static Word count(const Acquire& op) { return static_cast<Word>(op.count); }
  static Word count(const BasicWaiter<Env>& w) { return count(static_cast<const Acquire&>(w)); }
  static bool asks(const Acquire& op) { return op.race != nullptr; }
};

// How the mutex has them: of a core with one permit, to which none are added.
template <class Env>
struct MutexCore : PermitCore<ModelTraits<Env>> {
  explicit MutexCore(std::uint8_t permits, std::uint8_t) : PermitCore<ModelTraits<Env>>(permits) {}
  bool add(std::uint8_t) {
    Sim::current().fail("a mutex has one permit");
    return false;
  }
};

constexpr std::uint8_t word(std::size_t n) {
  return static_cast<std::uint8_t>(n);
}

template <class Env>
using OfSemaphore = SemaphoreCore<ModelTraits<Env>>;

enum class Does : std::uint8_t {
  nothing,
  acquires,
  relocks,  // as a condition's waiter takes its mutex back
  tries,
  gives_back,
  adds,
  cancels,  // the first operation
  wins      // the race of the first operation
};

struct Role {
  Does does = Does::nothing;
  std::size_t count = 1;
  bool waits = false;       // it is parked before anything else happens
  bool cancelled = false;   // meanwhile
  bool races = false;       // against a rival that cancels it when it wins
  bool either_way = false;  // others cancel it, or win its race
  bool keeps = false;       // what it gets; others give it back
  bool apart = false;       // who starts it is still on his way out when it goes on
};

struct Play {
  std::size_t free = 0;
  std::size_t held = 0;  // to be given back
  std::array<Role, 4> roles;
  bool supplied = false;  // when two have done what they do, there is enough for everybody
};

template <Mutant kMutant, template <class> class CoreOf = OfSemaphore>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Core = CoreOf<Env>;
    constexpr bool kIsMutex = std::same_as<Core, MutexCore<Env>>;
    Core core(word(play.free + play.held), 100);
    sim.check(play.held == 0 || core.try_take(word(play.held)), "it begins without permits");
    std::size_t permits = play.free + play.held;
    std::size_t still_held = play.held;
    typename Env::template Atomic<int> done{0};
    const auto is_done = [&] {
      if (!play.supplied || done.fetch_add(1, std::memory_order_acq_rel) != 1) return;
      if constexpr (kIsMutex) {
        if (still_held == 0) return;  // a mutex's only permit is given back already
        still_held = 0;
        core.give_back(1);
      } else {
        permits += 8;
        sim.check(core.add(8), "there is room for more");
      }
    };
    unsigned in_front = 0;  // who waited before anybody tried, and has not had his permits yet

    Stage<Env, AcquireOp<Env>, 4> actors;
    std::array<bool, 4> left{};  // to go on when all is over
    // Whoever has got permits gives them back: so everybody is served in the end.
    const auto end = [&](std::size_t i) {
      const Role role = play.roles[i];
      auto& actor = actors[i];
      const bool has_them = finish_wait(*actor.op, [&] { core.leave(*actor.op); });
      const bool for_sure = !role.cancelled && !role.races && !role.either_way;
      if (has_them && actor.op->race != nullptr)
        sim.check(actor.race.winner() == 0, "it took something without its race");
      sim.check(has_them || !for_sure, "an operation ended for no reason");
      actor.op.destroy();
      if (role.waits && for_sure) --in_front;
      if (!has_them) return;
      if (role.keeps) {
        still_held += role.count;
      } else {
        core.give_back(word(role.count));
      }
    };
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      auto& actor = actors[i];
      const auto begin = [&, role] {
        if (role.does == Does::relocks) {
          if (!core.take_or_queue(*actor.op, [&] { ModelTraits<Env>::park(*actor.op); })) return;
          actor.op->state.set(detail::WaitPhase::done_at_once);
        } else if (!actor.op->refused() && core.start(*actor.op)) {
          return;
        }
        actor.strand.schedule();
      };
      switch (role.does) {
        case Does::nothing:
          continue;
        case Does::acquires:
        case Does::relocks:
          actors.enter(i, role.races || role.either_way ? &actor.race : nullptr, role.count);
          if (role.waits) {
            begin();
            if (!role.cancelled && !role.races && !role.either_way) ++in_front;
          } else if (role.apart) {
            sim.spawn(begin);
          }
          sim.spawn([=, &actor, &left, &end, &is_done] {
            if (!role.waits && !role.apart) {
              begin();
              is_done();
              left[i] = play.supplied;
              if (play.supplied) return;
            }
            actor.strand.resumed();
            end(i);
          });
          break;
        case Does::tries:
          sim.spawn([&, role] {
            if (core.try_take(word(role.count))) {
              // There are no more permits than the first one who waits wants: see the plays.
              sim.check(in_front == 0, "an attempt has overtaken somebody");
              core.give_back(word(role.count));
            }
            is_done();
          });
          break;
        case Does::gives_back:
          still_held -= role.count;
          sim.spawn([&, role] {
            core.give_back(word(role.count));
            is_done();
          });
          break;
        case Does::adds:
          permits += role.count;
          sim.spawn([&, role] {
            sim.check(core.add(word(role.count)), "there is room for more");
            is_done();
          });
          break;
        case Does::cancels:
        case Does::wins:
          sim.spawn([&, role] {
            if (role.does == Does::cancels || actors[0].race.win(1)) cancel_now(actors[0].scope);
            is_done();
          });
          break;
      }
      if (role.cancelled || role.races) {
        sim.spawn([&, role] {
          if (!role.races || actor.race.win(1)) cancel_now(actor.scope);
        });
      }
    }
    sim.run();
    // Those that have not gone on yet got what they want, or get it from one another.
    for (std::size_t round = 0; round < left.size(); ++round) {
      for (std::size_t i = 0; i < left.size(); ++i) {
        if (!left[i] || actors[i].op->state.phase() == detail::WaitPhase::waiting) continue;
        left[i] = false;
        end(i);
      }
    }
    sim.check(core.available() == permits - still_held, "a permit was lost, or came from nowhere");
    actors.check_end();
  });
}

constexpr Role kAcquires{.does = Does::acquires};
constexpr Role kApart{.does = Does::acquires, .apart = true};
constexpr Role kWaiter{.does = Does::acquires, .waits = true};
constexpr Role kKeeper{.does = Does::acquires, .waits = true, .keeps = true};
constexpr Role kWaiterForTwo{.does = Does::acquires, .count = 2, .waits = true};
constexpr Role kCancelled{.does = Does::acquires, .waits = true, .cancelled = true};
constexpr Role kCancelledForTwo{
    .does = Does::acquires, .count = 2, .waits = true, .cancelled = true};
constexpr Role kCancelledSoon{.does = Does::acquires, .cancelled = true};
constexpr Role kRacing{.does = Does::acquires, .waits = true, .races = true};
constexpr Role kRacingSoon{.does = Does::acquires, .races = true};
constexpr Role kEitherWay{.does = Does::acquires, .waits = true, .either_way = true};
constexpr Role kAcquiresTwo{.does = Does::acquires, .count = 2};
constexpr Role kCancels{.does = Does::cancels};
constexpr Role kWins{.does = Does::wins};
constexpr Role kRelocks{.does = Does::relocks};
constexpr Role kTries{.does = Does::tries};
constexpr Role kGivesBack{.does = Does::gives_back};
constexpr Role kGivesTwoBack{.does = Does::gives_back, .count = 2};
constexpr Role kAdds{.does = Does::adds};

// Of two operations each pair that there is, while one waits; then there is enough for all.
TEST(SemaphoreModel, EveryPairOfOperations) {
  constexpr Role kOperations[] = {kAcquires, kAcquiresTwo, kTries, kGivesBack,
                                  kAdds,     kCancels,     kWins};
  std::uint64_t executions = 0;
  for (const Role& a : kOperations) {
    for (const Role& b : kOperations) {
      if (&b < &a) continue;
      const Report report = perform<Mutant::none>(
          locked(2), {.held = 2, .roles = {kEitherWay, a, b}, .supplied = true});
      EXPECT_TRUE(report.passed() && report.exhausted) << report;
      executions += report.executions;
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

// The same of a mutex, which somebody else gives back if none of the two does.
TEST(MutexModel, EveryPairOfOperations) {
  constexpr Role kOperations[] = {kAcquires, kRelocks, kTries, kGivesBack, kCancels, kWins};
  std::uint64_t executions = 0;
  for (const Role& a : kOperations) {
    for (const Role& b : kOperations) {
      if (&b < &a || (a.does == Does::gives_back && b.does == Does::gives_back)) continue;
      const Report report = perform<Mutant::none, MutexCore>(
          locked(2), {.held = 1, .roles = {kEitherWay, a, b}, .supplied = true});
      EXPECT_TRUE(report.passed() && report.exhausted) << report;
      executions += report.executions;
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

TEST(MutexModel, OneIsFreeAndTwoWantIt) {
  for (const Role& other : {kAcquires, kRelocks, kCancelledSoon, kRacingSoon, kTries}) {
    const unsigned preemptions = other.does == Does::tries ? 2 : 1;
    expect_clean(perform<Mutant::none, MutexCore>(locked(preemptions),
                                                  {.free = 1, .roles = {kApart, other}}));
  }
}

TEST(SemaphoreModel, APermitIsFreeAndTwoWantIt) {
  for (const Role& other : {kAcquires, kCancelledSoon, kRacingSoon, kTries}) {
    const unsigned preemptions = other.does == Does::tries ? 2 : 1;
    expect_clean(perform<Mutant::none>(locked(preemptions), {.free = 1, .roles = {kApart, other}}));
  }
}

constexpr Play kLargeRequest{.free = 1, .roles = {kCancelledForTwo, kWaiter, kTries}};
constexpr Play kTwoBack{.held = 2, .roles = {kKeeper, kKeeper, kGivesTwoBack}};
constexpr Play kOneOfTwo{.held = 1, .roles = {kCancelled, kWaiter, kGivesBack}};
constexpr Play kOvertaken{.free = 1, .held = 1, .roles = {kWaiterForTwo, kTries, kGivesBack}};
constexpr Play kRacingForOne{.held = 1, .roles = {kRacing, kWaiter, kGivesBack}};

TEST(SemaphoreModel, ALargeRequestThatIsCancelledMakesWay) {
  expect_clean(perform<Mutant::none>(locked(2), kLargeRequest));
}

TEST(SemaphoreModel, SeveralAreServedAtOnce) {
  expect_clean(perform<Mutant::none>(locked(bound(3)), kTwoBack));
}

TEST(SemaphoreModel, NobodyOvertakesALargeRequest) {
  expect_clean(perform<Mutant::none>(locked(bound(3)), kOvertaken));
}

TEST(SemaphoreModel, ManyMoreInRandomSchedulesWithStoreBuffers) {
  for (const Play& play : {kLargeRequest, kTwoBack, kOneOfTwo, kOvertaken, kRacingForOne}) {
    for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
      const Report report = perform<Mutant::none>(
          {.strategy = strategy, .executions = 5'000, .pct_depth = 4, .pct_length = 200}, play);
      EXPECT_TRUE(report.passed()) << report;
    }
  }
}

TEST(SemaphoreModelMutant, AnAttemptDoesNotOvertake) {
  hunt(perform<Mutant::permit_barging>(locked(1), kOvertaken));
}

constexpr Play kTwoWant{.free = 1, .roles = {kApart, kTries}};
constexpr Play kComesBack{.held = 1, .roles = {kAcquires, kGivesBack}};
constexpr Play kWaits{.held = 1, .roles = {kWaiter, kGivesBack}};
constexpr Play kEitherEnd{.held = 1, .roles = {kEitherWay, kGivesBack, kCancels}, .supplied = true};

// hunt() takes any failure for the mutant's: so without one there must be none.
TEST(SemaphoreModel, ThePlaysInWhichMutantsAreFoundAreSoundWithoutThem) {
  for (const Play& play : {kTwoWant, kComesBack, kWaits, kOneOfTwo, kRacingForOne, kEitherEnd})
    expect_clean(perform<Mutant::none>(locked(2), play));
}

TEST(SemaphoreModelMutant, ALoadAndAStoreTakeNoPermit) {
  hunt(perform<Mutant::permit_plain_take>(locked(2), kTwoWant));
}

TEST(SemaphoreModelMutant, WhoGivesBackLooksForThoseWhoWait) {
  hunt(perform<Mutant::permit_back_to_the_closed>(locked(1), kWaits));
}

TEST(SemaphoreModelMutant, WhoWillWaitClosesItBeforeHeLooks) {
  hunt(perform<Mutant::permit_late_close>(locked(2), kComesBack));
}

// One has the permit, two want it, the last one who has it destroys the semaphore.
template <Mutant kMutant>
Report destroyed_by_the_last(Options options, bool one_gives_up) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct User {
      BasicScope<Env> scope;
      Strand<Env> strand;
      Frame<AcquireOp<Env>> op;
    };
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Frame<MutexCore<Env>> core;
    core.make(word(1), word(1));
    sim.check(core->try_take(1), "it begins without a permit");
    std::array<User, 2> users;
    int left = 3;
    bool destroyed = false;
    const auto leaves = [&](bool has_it) {
      const bool last = --left == 0 && has_it;  // else somebody may not have given back yet
      if (has_it) core->give_back(1);
      if (last) core.destroy();
      destroyed = destroyed || last;
    };
    sim.spawn([&] { leaves(true); });
    for (User& user : users) {
      user.scope.enter(&root, &task);
      user.op.make(user.strand, user.scope, nullptr, std::size_t{1});
      const bool gives_up = one_gives_up && &user == &users[0];
      sim.spawn([&, gives_up] {
        if (!core->start(*user.op)) user.strand.schedule();
        if (gives_up) cancel_now(user.scope);
        user.strand.resumed();
        const bool has_it = finish_wait(*user.op, [&] { core->leave(*user.op); });
        sim.check(has_it || gives_up, "an operation ended for no reason");
        leaves(has_it);
      });
    }
    sim.run();
    if (!destroyed) core.destroy();
    sim.check(core.gone_and_untouched(), "it was touched after its end");
    for (User& user : users) user.scope.exit();
  });
}

TEST(SemaphoreModel, TheLastOneWhoUsedItMayDestroyIt) {
  expect_clean(destroyed_by_the_last<Mutant::none>(locked(1), false));
  expect_clean(destroyed_by_the_last<Mutant::none>(locked(2), true));
}

TEST(SemaphoreModelMutant, PermitsComeBackWhenTheLockIsReleased) {
  hunt(destroyed_by_the_last<Mutant::permit_early_return>(locked(2), true));
}

TEST(SemaphoreModelMutant, WhoLeavesNobodyBehindOpensIt) {
  hunt(perform<Mutant::permit_stays_closed>(locked(1), kWaits));
}

// Two add at once where there is room for one, while what is held comes back.
template <Mutant kMutant>
Report adds(Options options) {
  return explore(options, [=](Sim& sim) {
    SemaphoreCore<ModelTraits<SimEnv<kMutant>>> core(2, 3);
    sim.check(core.try_take(2), "it begins without permits");
    int added = 0;
    sim.spawn_alike(2, [&](std::size_t) {
      if (core.add(1)) ++added;
    });
    sim.spawn([&] { core.give_back(2); });
    sim.run();
    sim.check(added == 1 && core.available() == 3, "there are too many permits");
    sim.check(!core.add(1) && !core.add(127) && core.add(0), "there was room for none");
  });
}

TEST(SemaphoreModel, TooManyPermitsAreRefused) {
  expect_clean(adds<Mutant::none>(locked(3)));
}

TEST(SemaphoreModelMutant, ALoadAndAStoreCountNoPermits) {
  hunt(adds<Mutant::semaphore_plain_add>(locked(2)));
}

TEST(SemaphoreModelMutant, ThoseThatAreHeldCountToo) {
  hunt(adds<Mutant::semaphore_adds_to_the_free>(locked(2)));
}

TEST(SemaphoreModelMutant, APermitIsNotSpentOnACancelledWaiter) {
  hunt(perform<Mutant::permit_for_the_cancelled>(locked(2), kOneOfTwo));
}

TEST(SemaphoreModelMutant, APermitIsNotSpentOnWhoHasLostItsRace) {
  hunt(perform<Mutant::permit_for_the_cancelled>(locked(2), kRacingForOne));
}

TEST(SemaphoreModelMutant, WhoeverCanBeServedIs) {
  hunt(perform<Mutant::permit_serves_one>(locked(1), kTwoBack));
}

TEST(SemaphoreModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform<Mutant::permit_leave_unlocked>(locked(3), kOneOfTwo));
}

TEST(SemaphoreModelMutant, WhoLeavesMakesWay) {
  hunt(perform<Mutant::permit_leave_unserved>(locked(1), kLargeRequest));
}

TEST(SemaphoreModelMutant, AWaitIsDecidedInOneStep) {
  hunt(perform<Mutant::waiter_plain_decide>(locked(2), kEitherEnd));
}

}  // namespace
}  // namespace magpie::model
