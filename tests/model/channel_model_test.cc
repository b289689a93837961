// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/channel_core.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/scope.h>

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <optional>

#include "expect.h"
#include "operation.h"
#include "sim.h"
#include "strand.h"

// The channel itself, with operations of the models' own: sends, receives, their attempts and the
// end against each other, against cancellations and against rivals in a race. An item is with
// exactly one owner, whoever can go on does, and nobody touches an operation that has ended.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::ChannelCore;
using detail::Contestant;
using detail::SpinLock;

// ---- operations ----

template <class Env>
struct SendOp : Wait<Env> {
  SendOp(Strand<Env>& its_strand, BasicScope<Env>& its_scope, BasicArbiter<Env>* its_race,
         unsigned what)
      : Wait<Env>(its_strand, its_scope, its_race), item(what) {}
  unsigned item;
  bool failed = false;
};

template <class Env>
struct ReceiveOp : Wait<Env> {
  using Wait<Env>::Wait;
  std::optional<unsigned> item;
};

template <class Environment>
struct ModelTraits : WaitTraits<Environment> {
  using Env = Environment;
  using Item = unsigned;
  using Waiter = BasicWaiter<Env>;
  using Send = SendOp<Env>;
  using Receive = ReceiveOp<Env>;

  static Send& sender(Waiter& w) { return static_cast<Send&>(w); }
  static Receive& receiver(Waiter& w) { return static_cast<Receive&>(w); }
  static Contestant<Env> contestant(Waiter& w) {
    auto& wait = static_cast<Wait<Env>&>(w);
    return {wait.state, wait.race, 0};
  }
  static SpinLock<Env>& pact_lock() { return *pact; }
  static auto& item(Send& op) { return op.item; }
  static auto& item(Receive& op) { return op.item; }
  static void fail(Send& op) { op.failed = true; }

  static inline SpinLock<Env>* pact = nullptr;
};

template <class Env, class Op>
bool finish(ChannelCore<ModelTraits<Env>>& channel, Op& op) {
  return finish_wait(op, [&] { return channel.leave(op); });
}

// ---- plays ----

enum class Does : std::uint8_t {
  nothing,
  sends,
  receives,
  tries_to_send,
  tries_to_receive,
  closes
};

struct Role {
  Does does = Does::nothing;
  bool waits = false;      // it is parked before anything else happens
  bool cancelled = false;  // meanwhile
  bool races = false;      // against a rival that cancels it when it wins
  bool apart = false;      // who starts it is still on his way out when it goes on
};

struct Play {
  std::size_t capacity = 0;
  unsigned filled = 0;  // so many items are there
  std::array<Role, 4> roles;
  bool ends = false;  // it is closed when two have done what they do
};

template <Mutant kMutant>
Report perform(Options options, Play play) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Traits = ModelTraits<Env>;
    struct Actor {
      BasicScope<Env> scope;
      BasicArbiter<Env> race;
      Strand<Env> strand;
      Flag<Env> rid;  // nobody cancels it any more
      Frame<SendOp<Env>> send;
      Frame<ReceiveOp<Env>> receive;
    };
    SpinLock<Env> pact;
    Traits::pact = &pact;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    ChannelCore<Traits> channel(play.capacity);
    // So that it has its memory: threads own none.
    std::optional<unsigned> first;
    if (channel.try_send([] { return 0U; })) channel.try_receive(first);

    unsigned sent = 0;  // items are bits
    unsigned received = 0;
    const auto give = [&](unsigned item) {
      sim.check((sent & item) == 0, "an item was sent twice");
      sent |= item;
    };
    const auto take = [&](unsigned item) {
      sim.check((received & item) == 0, "an item was received twice");
      received |= item;
    };
    for (unsigned i = 0; i < play.filled; ++i) {
      give(1U << i);
      channel.try_send([i] { return 1U << i; });
    }

    typename Env::template Atomic<int> done{0};
    const auto is_done = [&] {
      if (play.ends && done.fetch_add(1, std::memory_order_acq_rel) == 1) channel.close();
    };
    std::array<Actor, 4> actors;
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Role role = play.roles[i];
      Actor& actor = actors[i];
      const unsigned item = 16U << i;
      BasicArbiter<Env>* const race = role.races ? &actor.race : nullptr;
      const auto begin = [&, role] {
        bool parked = false;
        if (role.does == Does::sends) {
          parked = !actor.send->refused() && channel.start(*actor.send);
        } else {
          parked = !actor.receive->refused() && channel.start(*actor.receive);
        }
        if (!parked) actor.strand.schedule();
      };
      const auto end = [&, role, item] {
        actor.strand.resumed();
        bool completed = false;
        if (role.does == Does::sends) {
          completed = finish(channel, *actor.send);
          if (completed && !actor.send->failed) give(item);
          actor.send.destroy();
        } else {
          completed = finish(channel, *actor.receive);
          if (completed && actor.receive->item) take(*actor.receive->item);
          actor.receive.destroy();
        }
        sim.check(completed || role.cancelled || role.races, "an operation ended for no reason");
        if (role.races) {
          sim.check(completed == (actor.race.winner() == 0) || role.does == Does::sends,
                    "it took something without its race");
        }
        if (role.cancelled || role.races) actor.rid.wait();
        actor.scope.exit();
      };
      switch (role.does) {
        case Does::nothing:
          continue;
        case Does::sends:
        case Does::receives:
          actor.scope.enter(&root, &task);
          if (role.does == Does::sends) {
            actor.send.make(actor.strand, actor.scope, race, item);
          } else {
            actor.receive.make(actor.strand, actor.scope, race);
          }
          if (role.waits) {
            begin();
          } else if (role.apart) {
            sim.spawn(begin);
          }
          sim.spawn([=, &is_done] {
            if (!role.waits && !role.apart) {
              begin();
              is_done();
            }
            end();
          });
          break;
        case Does::tries_to_send:
          sim.spawn([&, item] {
            if (channel.try_send([item] { return item; })) give(item);
            is_done();
          });
          break;
        case Does::tries_to_receive:
          sim.spawn([&] {
            std::optional<unsigned> got;
            channel.try_receive(got);
            if (got) take(*got);
            is_done();
          });
          break;
        case Does::closes:
          sim.spawn([&] {
            channel.close();
            is_done();
          });
          break;
      }
      if (role.cancelled || role.races) {
        sim.spawn([&, role] {
          if (!role.races || actor.race.win(1)) cancel_now(actor.scope);
          actor.rid.raise();
        });
      }
    }
    sim.run();
    for (std::size_t i = 0; i < actors.size(); ++i) {
      const Does does = play.roles[i].does;
      sim.check(does != Does::sends || actors[i].send.gone_and_untouched(),
                "a sender was touched after its end");
      sim.check(does != Does::receives || actors[i].receive.gone_and_untouched(),
                "a receiver was touched after its end");
    }
    for (std::optional<unsigned> left;; take(*left)) {
      left.reset();
      channel.try_receive(left);
      if (!left) break;
    }
    sim.check(sent == received, "an item was lost, or came from nowhere");
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

constexpr Role kSends{.does = Does::sends};
constexpr Role kReceives{.does = Does::receives};
constexpr Role kSendsApart{.does = Does::sends, .apart = true};
constexpr Role kReceivesApart{.does = Does::receives, .apart = true};
constexpr Role kSender{.does = Does::sends, .waits = true};
constexpr Role kReceiver{.does = Does::receives, .waits = true};
constexpr Role kCancelledSender{.does = Does::sends, .waits = true, .cancelled = true};
constexpr Role kCancelledReceiver{.does = Does::receives, .waits = true, .cancelled = true};
constexpr Role kRacingSender{.does = Does::sends, .waits = true, .races = true};
constexpr Role kRacingReceiver{.does = Does::receives, .waits = true, .races = true};
constexpr Role kTriesToSend{.does = Does::tries_to_send};
constexpr Role kTriesToReceive{.does = Does::tries_to_receive};
constexpr Role kCloses{.does = Does::closes};

constexpr Play kFullChannel{1, 1, {kCancelledSender, kReceives}};
constexpr Play kFullChannelTried{1, 1, {kCancelledSender, kSender, kTriesToReceive, kReceives}};
constexpr Play kParking{0, 0, {kSendsApart, kReceivesApart}};
constexpr Play kEmptyChannel{1, 0, {kCancelledReceiver, kSends}};
constexpr Play kTwoReceivers{1, 0, {kCancelledReceiver, kReceiver, kSends, kCloses}};
constexpr Play kEndOfAFullChannel{1, 1, {kCancelledSender, kReceives, kCloses}};
constexpr Play kMeetingTried{0, 0, {kCancelledReceiver, kTriesToSend}};
constexpr Play kRacingMeetingTried{0, 0, {kRacingReceiver, kTriesToSend}};
constexpr Play kMeetingASender{0, 0, {kCancelledSender, kReceives, kCloses}};
constexpr Play kMeetingAReceiver{0, 0, {kCancelledReceiver, kSends, kCloses}};
constexpr Play kMeetingInARace{0, 0, {kRacingSender, kReceives, kCloses}};
constexpr Play kBufferInARace{1, 0, {kRacingReceiver, kSends, kTriesToReceive}};

void expect_clean_in_random_schedules(const Play& play) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = perform<Mutant::none>(
        {.strategy = strategy, .executions = 3'000, .pct_depth = 4, .pct_length = 200}, play);
    EXPECT_TRUE(report.passed()) << report;
  }
}
void expect_clean_always(const Play& play, unsigned preemptions) {
  expect_clean(perform<Mutant::none>(locked(bound(preemptions)), play));
  expect_clean_in_random_schedules(play);
}

// Of two operations each pair that there is; then it is closed.
TEST(ChannelModel, EveryPairOfOperations) {
  constexpr Role kOperations[] = {kSends, kReceives, kTriesToSend, kTriesToReceive, kCloses};
  std::uint64_t executions = 0;
  for (const Role& a : kOperations) {
    for (const Role& b : kOperations) {
      if (&b < &a) continue;
      for (const unsigned places : {0U, 1U, 2U}) {  // no buffer, an empty one, a full one
        const Report report = perform<Mutant::none>(locked(2), {.capacity = places == 0 ? 0U : 1U,
                                                                .filled = places == 2 ? 1U : 0U,
                                                                .roles = {a, b},
                                                                .ends = true});
        EXPECT_TRUE(report.passed() && report.exhausted) << report;
        executions += report.executions;
      }
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

TEST(ChannelModel, AnItemIsWithOneOwnerWhateverIsCancelled) {
  expect_clean_always(kFullChannel, 2);
  expect_clean_always(kEmptyChannel, 2);
  expect_clean_always(kParking, 1);
  expect_clean_in_random_schedules(kFullChannelTried);
}

TEST(ChannelModel, TheEndReachesWhoeverWaits) {
  expect_clean_always(kEndOfAFullChannel, 1);
  expect_clean_in_random_schedules(kTwoReceivers);
}

TEST(ChannelModel, WithoutABufferBothCompleteOrNone) {
  expect_clean_always(kMeetingTried, 3);
  expect_clean_always(kMeetingASender, 1);
  expect_clean_always(kMeetingAReceiver, 1);
}

TEST(ChannelModel, WhoLosesARaceTakesNothing) {
  expect_clean_always(kRacingMeetingTried, 2);
  expect_clean_always(kMeetingInARace, 1);
  expect_clean_always(kBufferInARace, 1);
}

TEST(ChannelModelMutant, WhoIsCancelledLeavesUnderTheLock) {
  hunt(perform<Mutant::channel_leave_unlocked>(locked(2), kMeetingTried));
}

TEST(ChannelModelMutant, AFreePlaceIsFilledFromTheSenders) {
  hunt(perform<Mutant::channel_no_refill>(locked(2), kFullChannelTried));
}

TEST(ChannelModelMutant, WhatWasHandedOverIsDelivered) {
  hunt(perform<Mutant::channel_forgotten_item>(locked(2), kMeetingTried));
}

TEST(ChannelModelMutant, TheEndDoesNotWakeWhoIsCancelled) {
  hunt(perform<Mutant::channel_close_wakes_cancelled>(locked(2), kEndOfAFullChannel));
}

TEST(ChannelModelMutant, TheEndWakesTheReceivers) {
  hunt(perform<Mutant::channel_close_forgets_receivers>(locked(2), kTwoReceivers));
}

TEST(ChannelModelMutant, AWaitIsDecidedInOneStep) {
  hunt(perform<Mutant::waiter_plain_decide>(locked(2), kFullChannel));
}

}  // namespace
}  // namespace magpie::model
