// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope.h>
#include <magpie/detail/semaphore_core.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// The semaphore itself, with operations of the models' own: every pair of its operations against
// each other, against cancellations and against rivals in a race. No permit is lost or made, nobody
// waits for what is free, nobody overtakes, and nobody touches an operation that has ended.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::BasicWaiter;
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
  static Acquire& acquire(BasicWaiter<Env>& w) { return static_cast<Acquire&>(w); }
  static std::size_t count(const Acquire& op) { return op.count; }
};

enum class Does : std::uint8_t {
  nothing,
  acquires,
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

template <Mutant kMutant>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Core = SemaphoreCore<ModelTraits<Env>>;
    struct Actor {
      BasicScope<Env> scope;  // that the operation waits in: it is left when all is over
      BasicArbiter<Env> race;
      Strand<Env> strand;
      Frame<AcquireOp<Env>> op;
    };
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Core core(play.free + play.held, 100);
    sim.check(play.held == 0 || core.try_acquire(play.held), "a semaphore begins without permits");
    std::size_t permits = play.free + play.held;
    std::size_t still_held = play.held;
    typename Env::template Atomic<int> done{0};
    const auto is_done = [&] {
      if (!play.supplied || done.fetch_add(1, std::memory_order_acq_rel) != 1) return;
      permits += 8;
      sim.check(core.add(8), "there is room for more");
    };
    unsigned in_front = 0;  // who waited before anybody tried, and has not had his permits yet

    std::array<Actor, 4> actors;
    // Whoever has got permits gives them back: so everybody is served in the end.
    const auto end = [&](std::size_t i) {
      const Role role = play.roles[i];
      Actor& actor = actors[i];
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
        core.give_back(role.count);
      }
    };
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      Actor& actor = actors[i];
      const auto begin = [&] {
        if (actor.op->refused() || !core.start(*actor.op)) actor.strand.schedule();
      };
      switch (role.does) {
        case Does::nothing:
          continue;
        case Does::acquires:
          actor.scope.enter(&root, &task);
          actor.op.make(actor.strand, actor.scope,
                        role.races || role.either_way ? &actor.race : nullptr, role.count);
          if (role.waits) {
            begin();
            if (!role.cancelled && !role.races && !role.either_way) ++in_front;
          } else if (role.apart) {
            sim.spawn(begin);
          }
          sim.spawn([=, &actor, &end, &is_done] {
            if (!role.waits && !role.apart) {
              begin();
              is_done();
              if (play.supplied) return;  // it has what it wants when all is over: below
            }
            actor.strand.resumed();
            end(i);
          });
          break;
        case Does::tries:
          sim.spawn([&, role] {
            if (core.try_acquire(role.count)) {
              // There are no more permits than the first one who waits wants: see the plays.
              sim.check(in_front == 0, "an attempt has overtaken somebody");
              core.give_back(role.count);
            }
            is_done();
          });
          break;
        case Does::gives_back:
          still_held -= role.count;
          sim.spawn([&, role] {
            core.give_back(role.count);
            is_done();
          });
          break;
        case Does::adds:
          permits += role.count;
          sim.spawn([&, role] {
            sim.check(core.add(role.count), "there is room for more");
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
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      if (role.does != Does::acquires) continue;
      if (play.supplied && !role.waits) end(i);
      actors[i].scope.exit();
      sim.check(actors[i].op.gone_and_untouched(), "an operation was touched after its end");
    }
    sim.check(core.available() == permits - still_held, "a permit was lost, or came from nowhere");
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
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
  hunt(perform<Mutant::semaphore_barging>(locked(1), kOvertaken));
}

TEST(SemaphoreModelMutant, APermitIsNotSpentOnACancelledWaiter) {
  hunt(perform<Mutant::semaphore_permit_for_the_cancelled>(locked(2), kOneOfTwo));
}

TEST(SemaphoreModelMutant, APermitIsNotSpentOnWhoHasLostItsRace) {
  hunt(perform<Mutant::semaphore_permit_for_the_cancelled>(locked(2), kRacingForOne));
}

TEST(SemaphoreModelMutant, WhoeverCanBeServedIs) {
  hunt(perform<Mutant::semaphore_serves_one>(locked(1), kTwoBack));
}

TEST(SemaphoreModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform<Mutant::semaphore_leave_unlocked>(locked(3), kOneOfTwo));
}

TEST(SemaphoreModelMutant, WhoLeavesMakesWay) {
  hunt(perform<Mutant::semaphore_leave_unserved>(locked(1), kLargeRequest));
}

TEST(SemaphoreModelMutant, AWaitIsDecidedInOneStep) {
  hunt(perform<Mutant::waiter_plain_decide>(
      locked(2), {.held = 1, .roles = {kEitherWay, kGivesBack, kCancels}, .supplied = true}));
}

}  // namespace
}  // namespace magpie::model
