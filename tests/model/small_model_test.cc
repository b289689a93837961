// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/frame_depot.h>
#include <magpie/detail/injection_queue.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/timer_queue.h>
#include <magpie/detail/timers.h>

#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <optional>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// The small ones on a machine with store buffers: SpinLock, TimerWord, InjectionQueue, the depot of
// frames, with a look
// at who may be gone by the time that somebody touches them. Orders: small_relacy_test.cc.

namespace magpie::model {
namespace {

using detail::BasicFirings;
using detail::BasicTimerPlan;
using detail::BasicTimerShard;
using detail::FrameDepot;
using detail::InjectionQueue;
using detail::Magazine;
using detail::Runnable;
using detail::SpinLock;
using detail::TimerNode;
using detail::TimerWord;

template <Mutant kMutant>
Report exclude(std::size_t threads, unsigned preemptions) {
  return explore({.preemptions = preemptions}, [=](Sim& sim) {
    SpinLock<SimEnv<kMutant>> lock;
    int inside = 0;
    sim.spawn_alike(threads, [&](std::size_t) {
      for (int n = 0; n < 2; ++n) {
        std::lock_guard hold(lock);
        sim.check(++inside == 1, "two threads are inside");
        sim.pass();
        --inside;
      }
    });
    sim.run();
  });
}

TEST(SpinLockModel, OneThreadIsInsideAtATime) {
  expect_clean(exclude<Mutant::none>(2, bound(4)));
  expect_clean(exclude<Mutant::none>(3, bound(3)));
}

TEST(SpinLockModelMutant, ALoadAndAStoreAreNotALock) {
  hunt(exclude<Mutant::spin_lock_plain_lock>(2, 2));
}

TEST(SpinLockModel, WhoeverLocksLastMayDestroyIt) {
  expect_clean(explore({.preemptions = bound(4)}, [](Sim& sim) {
    std::optional<SpinLock<SimEnv<>>> lock(std::in_place);
    int users = 2;
    for (int i = 0; i < 2; ++i) {
      sim.spawn([&] {
        lock->lock();
        const bool last = --users == 0;
        lock->unlock();
        if (last) lock.reset();
      });
    }
    sim.run();
  }));
}

// A monitor fires due timers under the queue's lock; the frame leaves and is gone.
template <Mutant kMutant>
Report fire_against_leave(unsigned preemptions) {
  return explore({.preemptions = preemptions}, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct Frame {
      TimerWord<Env> word;
      typename Env::template Atomic<int> touched{0};
    };
    SpinLock<Env> queue;
    std::optional<Frame> frame(std::in_place);
    bool queued = true;
    bool fired = false;
    bool unfired = false;
    sim.spawn([&] {
      queue.lock();
      const bool mine = queued && frame->word.begin_fire();
      queued = false;
      queue.unlock();
      if (!mine) return;
      frame->touched.store(1, std::memory_order_relaxed);
      fired = true;
      frame->word.end_fire();
    });
    sim.spawn([&] {
      queue.lock();
      queued = false;
      queue.unlock();
      unfired = frame->word.disarm();
      sim.check(fired || frame->touched.load(std::memory_order_relaxed) == 0, "fired too late");
      frame.reset();
    });
    sim.run();
    sim.check(fired != unfired, "both or neither believe that it fired");
  });
}

TEST(TimerWordModel, AFrameThatLeavesIsNotTouchedAgain) {
  expect_clean(fire_against_leave<Mutant::none>(bound(4)));
}

TEST(TimerWordModelMutant, WithoutTheWaitTheFrameIsGoneWhileTheTimerFires) {
  hunt(fire_against_leave<Mutant::timer_word_no_wait>(3));
}

TEST(TimerWordModelMutant, AnEndThatIsNoSingleStepLeavesTheFrameAsleep) {
  hunt(fire_against_leave<Mutant::timer_word_plain_end>(3));
}

// A timer is armed while the monitor, which has served one, plans its sleep: it wakes in time, or
// is told.
template <Mutant kMutant>
Report arm_against_plan(unsigned preemptions, bool another) {
  return explore({.preemptions = preemptions}, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    BasicTimerShard<Env> shard;
    BasicTimerPlan<Env> plan;
    const auto look = [&] { return shard.earliest.load(std::memory_order_seq_cst); };
    TimerNode served;
    served.deadline_ns = 1;
    shard.insert(served);
    sim.check(plan.make(look) == 1, "the first plan is another");
    sim.check(shard.queue.pop_due(1) == &served, "the first timer is not due");
    shard.note_earliest();

    std::array<TimerNode, 2> timers;
    timers[0].deadline_ns = 7;
    timers[1].deadline_ns = 5;
    std::int64_t planned = 0;
    bool told = false;
    sim.spawn([&] { planned = plan.make(look); });
    for (std::size_t i = 0; i < (another ? 2U : 1U); ++i) {
      sim.spawn([&, i] {
        {
          std::lock_guard guard(shard.lock);
          shard.insert(timers[i]);
        }
        if (!plan.told_of(timers[i].deadline_ns)) told = true;
      });
    }
    sim.run();
    sim.check(told || planned <= (another ? 5 : 7), "the monitor sleeps longer than a timer");
  });
}

TEST(TimerPlanModel, TheMonitorWakesInTimeOrIsTold) {
  expect_clean(arm_against_plan<Mutant::none>(bound(4), false));
  expect_clean(arm_against_plan<Mutant::none>(bound(3), true));
}

TEST(TimerPlanModelMutant, ADeadlineIsShownBeforeThePlanIsRead) {
  hunt(arm_against_plan<Mutant::timer_relaxed_earliest>(3, false));
}

TEST(TimerPlanModelMutant, APlanIsShownBeforeTheSecondLook) {
  hunt(arm_against_plan<Mutant::timer_relaxed_plan>(3, false));
}

// The monitor did so once where no timer was left to wait for.
TEST(TimerPlanModelMutant, APlanIsLookedAtAgain) {
  hunt(arm_against_plan<Mutant::timer_single_look>(3, false));
}

// As a rate limiter has it: one thread serves the timers, another arms the timer (again) as long as
// the operation is in the queue, and the operation leaves: then its frame is gone.
template <Mutant kMutant>
Report serve_against_leave(unsigned preemptions) {
  return explore({.preemptions = preemptions, .store_buffers = false}, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct Operation {
      TimerNode timer;
      BasicFirings<Env> firings;
      bool armed = false;  // under the limiter's lock
    };
    SpinLock<Env> limiter;
    BasicTimerShard<Env> shard;
    Frame<Operation> frame;
    frame.make();
    bool queued = true;  // likewise: only in its queue does the limiter find it
    const auto arm = [&] {
      if (!queued || frame->armed) return;
      frame->armed = true;
      frame->timer.deadline_ns = 1;
      std::lock_guard guard(shard.lock);
      shard.insert(frame->timer);
    };
    arm();
    sim.spawn([&] {
      for (int round = 0; round < 2; ++round) {
        {
          std::lock_guard guard(shard.lock);
          if (shard.queue.pop_due(1) == nullptr) continue;
          frame->firings.claimed();
          shard.note_earliest();
        }
        {
          std::lock_guard guard(limiter);
          frame->armed = false;
          arm();
        }
        frame->firings.fired();
      }
    });
    sim.spawn([&] {
      std::lock_guard guard(limiter);
      arm();
    });
    sim.spawn([&] {
      {
        std::lock_guard guard(limiter);
        queued = false;
      }
      {
        std::lock_guard guard(shard.lock);
        if (shard.queue.contains(frame->timer)) shard.queue.remove(frame->timer);
        shard.note_earliest();
      }
      frame->firings.wait_for_the_end();
      frame.destroy();
    });
    sim.run();
    sim.check(frame.gone_and_untouched(), "an operation was touched after its end");
    sim.check(shard.queue.size() == 0, "its timer is still there");
  });
}

TEST(FiringsModel, AnOperationThatLeavesIsNotTouchedAgain) {
  expect_clean(serve_against_leave<Mutant::none>(2));
}

TEST(FiringsModelMutant, WithoutTheWaitTheFrameIsGoneWhileItsTimerFires) {
  hunt(serve_against_leave<Mutant::timer_firings_no_wait>(2));
}

template <class Env>
struct Linked {
  typename Env::template Atomic<Linked*> next{nullptr};
};

// Two push, and one takes while they do, as who has something else to do, or as who has not.
template <Mutant kMutant, bool kPatient>
Report two_who_push() {
  return explore({.preemptions = bound(3)}, [](Sim& sim) {
    using Node = Linked<SimEnv<kMutant>>;
    InjectionQueue<SimEnv<kMutant>, Node> queue;
    std::array<Node, 4> runnables{};
    std::array<int, 4> out{};
    int order = 0;
    const auto take = [&](Node* runnable) {
      if (runnable == nullptr) return;
      const auto index = static_cast<std::size_t>(runnable - runnables.data());
      sim.check(index < runnables.size(), "a mark came out");
      sim.check(out[index] == 0, "a runnable came out twice");
      out[index] = ++order;
    };
    sim.spawn([&] {
      queue.push(runnables[0]);
      queue.push(runnables[1]);
    });
    sim.spawn([&] {
      queue.push(runnables[2]);
      queue.push(runnables[3]);
    });
    sim.spawn([&] {
      take(kPatient ? queue.pop() : queue.try_pop());
      take(kPatient ? queue.pop() : queue.try_pop());
    });
    sim.run();
    while (Node* const rest = queue.pop()) take(rest);
    sim.check(order == 4 && queue.empty(), "a runnable was lost");
    sim.check(out[0] < out[1] && out[2] < out[3], "runnables came out in a wrong order");
  });
}

TEST(InjectionQueueModel, EveryRunnableComesOutOnceAndInOrder) {
  expect_clean(two_who_push<Mutant::none, true>());
}

TEST(InjectionQueueModel, WhoWaitsForNobodyLosesNothing) {
  expect_clean(two_who_push<Mutant::none, false>());
}

TEST(InjectionQueueModelMutant, WhoFindsNothingBehindAMarkLeavesItThere) {
  hunt(two_who_push<Mutant::injection_takes_mark, false>());
}

template <Mutant kMutant, bool kPatient>
Report two_who_take() {
  return explore({.preemptions = bound(3)}, [](Sim& sim) {
    using Node = Linked<SimEnv<kMutant>>;
    InjectionQueue<SimEnv<kMutant>, Node> queue;
    std::array<Node, 3> runnables{};
    std::array<int, 3> out{};
    const auto take = [&] {
      std::array<Node*, 2> taken{};
      const std::size_t count = queue.pop_batch(taken.data(), taken.size());
      for (std::size_t i = 0; i < count; ++i)
        ++out[static_cast<std::size_t>(taken[i] - runnables.data())];
    };
    sim.spawn([&] {
      for (Node& runnable : runnables) queue.push(runnable);
    });
    const auto try_to_take = [&] {
      for (int i = 0; i < 2; ++i) {
        Node* const node = queue.try_pop();
        if (node != nullptr) ++out[static_cast<std::size_t>(node - runnables.data())];
      }
    };
    sim.spawn(take);
    kPatient ? sim.spawn(take) : sim.spawn(try_to_take);
    sim.run();
    while (!queue.empty()) take();
    for (const int times : out) sim.check(times == 1, "a runnable came out another time than once");
  });
}

TEST(InjectionQueueModel, TwoWhoTakeGetEachRunnableOnce) {
  expect_clean(two_who_take<Mutant::none, true>());
}

TEST(InjectionQueueModel, WhoTakesAndWhoTriesToGetEachRunnableOnce) {
  expect_clean(two_who_take<Mutant::none, false>());
}

TEST(InjectionQueueModelMutant, TwoWhoTakeWithoutTheLockGetTheSame) {
  hunt(two_who_take<Mutant::injection_no_lock, true>());
}

TEST(InjectionQueueModelMutant, AnEndMarkCannotLieBehindItself) {
  hunt(two_who_take<Mutant::injection_one_end, true>());
}

// One pushes some and then looks for sleepers, as inject() does; another one takes all but one; and
// a third, who has said that he will sleep, looks whether something is left.
template <Mutant kMutant, std::size_t kPushes, bool kPatient = true>
Report push_mark_and_look() {
  return explore({.preemptions = bound(3)}, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    using Node = Linked<Env>;
    InjectionQueue<Env, Node> queue;
    typename Env::template Atomic<int> sleeps{0};
    std::array<Node, kPushes> runnables{};
    bool seen_to = false;
    bool found = false;
    sim.spawn([&] {
      for (Node& runnable : runnables) queue.push(runnable);
      Env::fence_seq_cst();
      seen_to = sleeps.load(std::memory_order_relaxed) != 0;
    });
    sim.spawn([&] {
      for (std::size_t i = 1; i < kPushes; ++i) (void)(kPatient ? queue.pop() : queue.try_pop());
    });
    sim.spawn([&] {
      sleeps.fetch_add(1, std::memory_order_seq_cst);
      found = !queue.still_empty();
    });
    sim.run();
    sim.check(seen_to || found, "something is left, and who sleeps is not woken");
  });
}

TEST(InjectionQueueModel, WhatIsBeforeTheMarkIsSeenByWhoeverWillSleep) {
  expect_clean(push_mark_and_look<Mutant::none, 2>());
}

// The second mark behind which something may be left is the first one, again.
TEST(InjectionQueueModel, WhatIsBeforeTheSecondMarkIsSeenByWhoeverWillSleep) {
  expect_clean(push_mark_and_look<Mutant::none, 3>());
}

TEST(InjectionQueueModel, WhatSomebodyDidNotWaitForIsSeenByWhoeverWillSleep) {
  expect_clean(push_mark_and_look<Mutant::none, 3, false>());
}

TEST(InjectionQueueModelMutant, TheFirstThatIsTheLastMayBeLeft) {
  hunt(push_mark_and_look<Mutant::injection_any_end, 2>());
}

TEST(InjectionQueueModelMutant, AMarkThatIsTheFirstNowMayBeTheLastAgainLater) {
  hunt(push_mark_and_look<Mutant::injection_first_first, 3>());
}

// ---- the depot of frames ----

struct ModelBounds {
  static constexpr std::size_t kClasses = 1;
  static std::size_t bytes_of(std::size_t) { return 1; }
  static std::size_t bytes(std::size_t threads) { return threads; }
};

// Two put a magazine each, where one lies already and there is room for `room`; `takers` take one
// each.
template <Mutant kMutant>
Report leave_and_take(Options options, unsigned room, int takers) {
  return explore(options, [=](Sim& sim) {
    FrameDepot<SimEnv<kMutant>, ModelBounds> depot;
    std::array<Magazine, 3> magazines{};
    std::array<int, 3> owners{};  // threads that have the magazine
    for (unsigned i = 0; i < room; ++i) depot.thread_opens();
    const auto put = [&](std::size_t i) {
      if (!depot.put(0, &magazines[i])) ++owners[i];
    };
    const auto take = [&] {
      Magazine* const full = depot.take(0);
      if (full == nullptr) return false;
      sim.check(++owners[static_cast<std::size_t>(full - magazines.data())] == 1,
                "a magazine has two owners");
      return true;
    };
    put(2);
    for (std::size_t i = 0; i < 2; ++i) sim.spawn([&, i] { put(i); });
    for (int i = 0; i < takers; ++i) sim.spawn([&] { take(); });
    sim.run();
    sim.check(depot.bytes() <= room, "there is more than its bound allows");
    std::size_t left = 0;
    const std::size_t counted = depot.bytes();
    while (take()) ++left;
    sim.check(left == counted, "what is there was not counted");
    for (const int n : owners) sim.check(n == 1, "a magazine was lost");
  });
}

TEST(DepotModel, AMagazineHasOneOwner) {
  for (const unsigned room : {1U, 2U, 3U}) {
    expect_clean(leave_and_take<Mutant::none>({.preemptions = 2}, room, 0));
    expect_clean(leave_and_take<Mutant::none>({.preemptions = 2}, room, 1));
    expect_clean(leave_and_take<Mutant::none>({.preemptions = 1}, room, 2));
  }
}

TEST(DepotModelMutant, AMagazineIsTakenUnderTheLock) {
  hunt(leave_and_take<Mutant::depot_no_lock>({.preemptions = 2}, 3, 1));
}

TEST(DepotModelMutant, TheBoundIsLookedAtAfterTheCount) {
  hunt(leave_and_take<Mutant::depot_single_look>({.preemptions = 2}, 2, 0));
}

TEST(DepotModelMutant, ARefusedMagazineIsNotCounted) {
  hunt(leave_and_take<Mutant::depot_kept_count>({.preemptions = 2}, 2, 1));
}

}  // namespace
}  // namespace magpie::model
