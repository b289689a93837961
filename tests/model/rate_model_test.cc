// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/rate_core.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/timers.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// The rate limiter itself with its bucket and the timers' queue, and with operations of the models'
// own: every pair of its operations while the timer of somebody who waits may fire. No token is
// lost or made, everybody is served when his time has come, nobody overtakes, and nobody touches an
// operation that has ended.
//
// A token flows in every nanosecond. Time moves when a timer fires, and at no other moment.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicFirings;
using detail::BasicScope;
using detail::BasicTimerShard;
using detail::BasicWaiter;
using detail::RateCore;
using detail::TimerNode;

template <class Env>
struct AcquireOp : Wait<Env>, TimerNode {
  AcquireOp(Strand<Env>& its_strand, BasicScope<Env>& its_scope, BasicArbiter<Env>* its_race,
            std::size_t its_count)
      : Wait<Env>(its_strand, its_scope, its_race), count(its_count) {}
  std::size_t count;
  bool armed = false;
  bool early = false;  // its first timer is
  bool has_timer = false;
  BasicFirings<Env> firings;
};

template <class Environment>
struct ModelTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Acquire = AcquireOp<Env>;
  struct Clock {};
  struct Armed {
    void tell() {}
  };
  static Acquire& acquire(BasicWaiter<Env>& w) { return static_cast<Acquire&>(w); }
  static std::size_t count(const Acquire& op) { return op.count; }
  static bool& armed(Acquire& op) { return op.armed; }
  // As RateTraits, and RateOperation::set_timer().
  static void arm(Acquire& head, const Clock&, std::int64_t deadline, std::int64_t, Armed&) {
    head.armed = true;
    head.early = !head.has_timer && early_timers;
    head.has_timer = true;
    head.deadline_ns = deadline;
    std::lock_guard guard(shard->lock);
    shard->insert(head);
  }
  static void fired(Acquire& head) { head.firings.fired(); }

  static inline BasicTimerShard<Env>* shard = nullptr;
  static inline bool early_timers = false;
};

enum class Does : std::uint8_t {
  nothing,
  acquires,
  tries,
  cancels,  // the first operation
  wins,     // the race of the first operation
  fires     // the timer of whoever has one
};

struct Role {
  Does does = Does::nothing;
  std::size_t count = 1;
  bool waits = false;       // it is parked before anything else happens
  bool either_way = false;  // others cancel it, or win its race
};

struct Play {
  std::array<Role, 4> roles;
  bool early = false;  // timers come a nanosecond too early at first
  // Who serves the timers until all is over; nobody: they come at the end, but for what fires.
  unsigned servants = 1;
};

template <Mutant kMutant>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Traits = ModelTraits<Env>;
    constexpr std::size_t kBurst = 100;
    BasicTimerShard<Env> shard;
    Traits::shard = &shard;
    Traits::early_timers = play.early;
    const typename Traits::Clock clock;
    RateCore<Traits> core(1e9, kBurst);
    std::int64_t now = 0;
    sim.check(core.try_take(kBurst, clock, now), "the bucket is full at first");
    std::size_t taken = 0;
    std::size_t in_front = 0;  // what those want who waited before anybody tried

    Stage<Env, AcquireOp<Env>, 4> actors;
    int threads = 0;
    typename Env::template Atomic<int> over{0};
    const auto is_over = [&] { over.fetch_add(1, std::memory_order_acq_rel); };
    const auto end = [&](std::size_t i) {
      const Role role = play.roles[i];
      auto& actor = actors[i];
      const bool has_them = finish_wait(*actor.op, [&] { core.leave(*actor.op, clock, now); });
      if (actor.op->has_timer) {  // as RateOperation::end_timer()
        {
          std::lock_guard guard(shard.lock);
          if (shard.queue.contains(*actor.op)) shard.queue.remove(*actor.op);
          shard.note_earliest();
        }
        actor.op->firings.wait_for_the_end();
      }
      if (has_them && actor.op->race != nullptr)
        sim.check(actor.race.winner() == 0, "it took something without its race");
      sim.check(has_them || role.either_way, "an operation ended for no reason");
      actor.op.destroy();
      if (has_them) taken += role.count;
      sim.check(static_cast<std::int64_t>(taken) <= now, "tokens were given before they flowed in");
    };
    // As Timers does it: claimed under the shard's lock, fired with none.
    const auto fire_one = [&] {
      AcquireOp<Env>* due = nullptr;
      {
        std::lock_guard guard(shard.lock);
        due = static_cast<AcquireOp<Env>*>(shard.queue.pop_due(INT64_MAX));
        if (due == nullptr) return false;
        due->firings.claimed();
        now = std::max(now, due->deadline_ns - (due->early ? 1 : 0));
        shard.note_earliest();
      }
      core.timer_fired(*due, clock, now);
      return true;
    };
    // Whether it is sure that the first operation ends before all is over.
    const bool ends = play.servants != 0 || play.roles[1].does >= Does::cancels ||
                      play.roles[2].does >= Does::cancels;
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      auto& actor = actors[i];
      const auto begin = [&] {
        if (actor.op->refused() || !core.start(*actor.op, clock, now)) actor.strand.schedule();
      };
      if (role.does == Does::nothing) continue;
      ++threads;
      switch (role.does) {
        case Does::nothing:
          break;
        case Does::acquires:
          actors.enter(i, role.either_way ? &actor.race : nullptr, role.count);
          if (role.waits) {
            begin();
            if (!role.either_way) in_front += role.count;
            if (!ends) continue;
            sim.spawn([&, i] {
              actor.strand.resumed();
              end(i);
              is_over();
            });
          } else {
            sim.spawn([=, &is_over] {
              begin();
              is_over();
            });
          }
          break;
        case Does::tries:
          sim.spawn([&, role] {
            if (core.try_take(role.count, clock, now)) {
              sim.check(static_cast<std::int64_t>(in_front + role.count) <= now,
                        "an attempt has overtaken somebody");
              taken += role.count;
            }
            is_over();
          });
          break;
        case Does::cancels:
        case Does::wins:
          sim.spawn([&, role] {
            if (role.does == Does::cancels || actors[0].race.win(1)) cancel_now(actors[0].scope);
            is_over();
          });
          break;
        case Does::fires:
          sim.spawn([&] {
            fire_one();
            is_over();
          });
          break;
      }
    }
    for (unsigned i = 0; i < play.servants; ++i) {
      sim.spawn([&, threads] {
        for (;;) {
          const bool all_over = over.load(std::memory_order_acquire) == threads;
          if (fire_one()) continue;
          if (all_over) return;
          Env::yield_thread();
        }
      });
    }
    sim.run();
    while (fire_one()) {
    }
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      if (role.does != Does::acquires) continue;
      if (!role.waits || !ends) end(i);
    }
    sim.check(shard.queue.size() == 0, "a timer is left");
    const std::size_t left = static_cast<std::size_t>(now) - taken;
    sim.check(left == 0 || core.try_take(left, clock, now), "a token was lost");
    sim.check(!core.try_take(1, clock, now), "a token came from nowhere");
    actors.check_end();
  });
}

constexpr Role kEitherWay{.does = Does::acquires, .waits = true, .either_way = true};
constexpr Role kEitherWayForTwo{
    .does = Does::acquires, .count = 2, .waits = true, .either_way = true};
constexpr Role kWaiter{.does = Does::acquires, .waits = true};
constexpr Role kWaiterForTwo{.does = Does::acquires, .count = 2, .waits = true};
constexpr Role kAcquires{.does = Does::acquires};
constexpr Role kAcquiresTwo{.does = Does::acquires, .count = 2};
constexpr Role kTries{.does = Does::tries};
constexpr Role kCancels{.does = Does::cancels};
constexpr Role kWins{.does = Does::wins};
constexpr Role kFires{.does = Does::fires};

// Of two operations each pair that there is, while one waits: the firing of its timer is one.
TEST(RateModel, EveryPairOfOperations) {
  constexpr Role kOperations[] = {kAcquires, kAcquiresTwo, kTries, kCancels, kWins, kFires};
  std::uint64_t executions = 0;
  for (const Role& a : kOperations) {
    for (const Role& b : kOperations) {
      if (&b < &a) continue;
      const Report report =
          perform<Mutant::none>(locked(2), {.roles = {kEitherWay, a, b}, .servants = 0});
      EXPECT_TRUE(report.passed() && report.exhausted) << report;
      executions += report.executions;
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

constexpr Play kNextInLine{.roles = {kEitherWayForTwo, kWaiter, kCancels}};
constexpr Play kNextInLineRacing{.roles = {kEitherWay, kWaiter, kWins}};
constexpr Play kOvertaken{.roles = {kWaiterForTwo, kTries}, .early = true};
constexpr Play kEarly{.roles = {kEitherWay, kCancels}, .early = true};

TEST(RateModel, WhoIsNextInLineIsServedInTime) {
  expect_clean(perform<Mutant::none>(locked(1), kNextInLine));
  expect_clean(perform<Mutant::none>(locked(1), kNextInLineRacing));
}

TEST(RateModel, NobodyOvertakes) {
  expect_clean(perform<Mutant::none>(locked(1), kOvertaken));
}

TEST(RateModel, ATimerThatComesTooEarlyIsArmedAgain) {
  expect_clean(perform<Mutant::none>(locked(1), kEarly));
}

TEST(RateModel, ManyMoreInRandomSchedulesWithStoreBuffers) {
  for (Play play : {kNextInLine, kNextInLineRacing, kOvertaken, kEarly}) {
    play.servants = 2;
    for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
      const Report report = perform<Mutant::none>(
          {.strategy = strategy, .executions = 5'000, .pct_depth = 4, .pct_length = 200}, play);
      EXPECT_TRUE(report.passed()) << report;
    }
  }
}

TEST(RateModelMutant, AnAttemptDoesNotOvertake) {
  hunt(perform<Mutant::rate_barging>(locked(2), kOvertaken));
}

TEST(RateModelMutant, ATokenIsNotSpentOnACancelledWaiter) {
  hunt(perform<Mutant::rate_token_for_the_cancelled>(locked(2), kEarly));
}

TEST(RateModelMutant, ATokenIsNotSpentOnWhoHasLostItsRace) {
  hunt(perform<Mutant::rate_token_for_the_cancelled>(locked(2), kNextInLineRacing));
}

TEST(RateModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform<Mutant::rate_leave_unlocked>(locked(2), kEarly));
}

TEST(RateModelMutant, WhoLeavesTheHeadSeesToTheNextOnesTimer) {
  hunt(perform<Mutant::rate_leave_unserved>(locked(1), kNextInLine));
}

TEST(RateModelMutant, ATimerThatHasFiredIsNotArmedAnyMore) {
  hunt(perform<Mutant::rate_armed_for_ever>(locked(1), kOvertaken));
}

TEST(RateModelMutant, ATimerIsThroughWithItsOperationInTheEnd) {
  hunt(perform<Mutant::rate_fired_too_early>(locked(2), kEarly));
}

TEST(RateModelMutant, WhoEndsWaitsForItsTimer) {
  hunt(perform<Mutant::timer_firings_no_wait>(locked(2), kEarly));
}

}  // namespace
}  // namespace magpie::model
