// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/join.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

#include <gtest/gtest.h>

#include <array>
#include <mutex>
#include <optional>
#include <vector>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// A wait from the moment that it parks: completed or cancelled, resumed on another thread, out of
// its lists, its memory gone at once. The thread that parked it may still be on its way out then.
// Races between waits are here, too.

namespace magpie::model {
namespace {

using detail::BasicArbiter;
using detail::BasicCancelEffects;
using detail::BasicJoinCounter;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::BasicWaitQueue;
using detail::SpinLock;
using detail::WaitPhase;

// How a resumed strand leaves the lists that it was in; the models try what happens without.
enum class Leave { all_lists, not_the_scope, not_the_queue };

// What lies in the frame of a coroutine that waits: in a scope of its own, or in one that goes on
// after it.
template <class Env>
struct Wait : StrandWaiter<Env> {
  Wait(Strand<Env>& its_strand, BasicScope<Env>& parent, BasicTaskCore<Env>& task,
       bool own_scope = true)
      : StrandWaiter<Env>(its_strand), where(own_scope ? &scope : &parent) {
    scope.enter(&parent, &task);
  }
  BasicScope<Env> scope;
  BasicScope<Env>* where;
  BasicArbiter<Env>* arbiter = nullptr;
  std::uint32_t index = 0;
};

// The semaphore of the combinators in small, with what detail/operation.h does for it.
template <class Env, Leave kLeave = Leave::all_lists>
class Semaphore {
 public:
  explicit Semaphore(int permits) : free_(permits) {}

  // True: parked. The wait may be gone by the time that this returns.
  bool start(Wait<Env>& wait) {
    if (wait.where->cancelled()) {
      wait.state.set(WaitPhase::cancelled_at_once);
      return false;
    }
    std::lock_guard hold(lock_);
    if (queue_.empty() && free_ > 0) {
      if (wait.arbiter != nullptr && !wait.arbiter->win(wait.index)) {
        wait.state.set(WaitPhase::cancelled_at_once);
        return false;
      }
      wait.state.set(WaitPhase::done_at_once);
      --free_;
      return false;
    }
    wait.state.set(WaitPhase::waiting);
    if (!wait.where->park(wait)) {
      wait.state.set(WaitPhase::cancelled_at_once);
      return false;
    }
    queue_.push_back(wait);
    return true;
  }

  void release() {
    Woken woken;
    {
      std::lock_guard hold(lock_);
      ++free_;
      serve(woken);
    }
    woken.wake_all();
  }

  // On the resumed strand. True: it has a permit.
  bool finish(Wait<Env>& wait) {
    switch (wait.state.phase()) {
      case WaitPhase::done_at_once:
        return true;
      case WaitPhase::done:
        if (kLeave != Leave::not_the_scope) wait.where->unpark(wait);
        return true;
      case WaitPhase::lost:
        if (kLeave != Leave::not_the_scope) wait.where->unpark(wait);
        return false;
      case WaitPhase::cancelled:
        if (kLeave != Leave::not_the_queue) unqueue(wait);
        return false;
      case WaitPhase::cancelled_at_once:
        return false;
      default:
        Sim::current().fail("a wait ended without an outcome");
        return false;
    }
  }

  int free() const { return free_; }

 private:
  struct Woken {
    BasicWaiter<Env>* first = nullptr;
    BasicWaiter<Env>** tail = &first;

    void add(BasicWaiter<Env>& waiter) {
      waiter.queue_next = nullptr;
      *tail = &waiter;
      tail = &waiter.queue_next;
    }
    void wake_all() {
      while (first != nullptr) {
        BasicWaiter<Env>* const next = first->queue_next;
        schedule(*first);
        first = next;
      }
    }
  };

  void serve(Woken& woken) {
    while (free_ > 0 && !queue_.empty()) {
      auto& wait = static_cast<Wait<Env>&>(*queue_.front());
      queue_.remove(wait);
      if (!wait.state.try_complete()) continue;
      woken.add(wait);
      if (wait.arbiter == nullptr || wait.arbiter->win(wait.index)) {
        --free_;
      } else {
        wait.state.set(WaitPhase::lost);
      }
    }
  }

  void unqueue(Wait<Env>& wait) {
    Woken woken;
    {
      std::lock_guard hold(lock_);
      queue_.forget(wait);
      serve(woken);
    }
    woken.wake_all();
  }

  SpinLock<Env> lock_;
  BasicWaitQueue<Env> queue_;
  int free_;
};

// Every step holds a lock: exhaustive without store buffers, and random schedules with them.
Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

template <class Run>
void expect_clean_in_random_schedules(Run run, std::uint64_t executions = 20'000) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report =
        run({.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 150});
    EXPECT_TRUE(report.passed()) << report;
  }
}

// ---- one wait ----

template <Mutant kMutant, Leave kLeave = Leave::all_lists>
Report release_against_cancel(Options options, bool parked, bool own_scope = true,
                              int permits = 0) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Semaphore<Env, kLeave> semaphore(permits);
    Strand<Env> strand;
    Frame<Wait<Env>> frame;
    frame.make(strand, root, task, own_scope);
    int taken = 0;

    const auto start = [&] {
      if (!semaphore.start(*frame)) strand.schedule();
    };
    if (parked) {
      start();
    } else {
      sim.spawn(start);
    }
    sim.spawn([&] {
      strand.resumed();
      taken += semaphore.finish(*frame);
      frame->scope.exit();
      frame.destroy();
    });
    sim.spawn([&] { semaphore.release(); });
    sim.spawn([&] { sim.check(cancel_now(root), "the only cancellation was refused"); });
    sim.run();
    root.exit();
    sim.check(frame.gone_and_untouched(), "a frame was touched after its end");
    sim.check(taken + semaphore.free() == permits + 1, "a permit was lost or made");
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

TEST(WaiterModel, AParkedWaitIsCompletedOrCancelledAndGoneAtOnce) {
  for (const bool own_scope : {true, false}) {
    expect_clean(release_against_cancel<Mutant::none>(locked(bound(3)), true, own_scope));
  }
}

TEST(WaiterModel, AWaitMayEndWhileItParks) {
  for (const bool own_scope : {true, false}) {
    expect_clean(release_against_cancel<Mutant::none>(locked(bound(3) - 1), false, own_scope));
    expect_clean_in_random_schedules([=](Options options) {
      return release_against_cancel<Mutant::none>(options, false, own_scope);
    });
  }
}

TEST(WaiterModel, AWaitMayEndWithoutParking) {
  expect_clean(release_against_cancel<Mutant::none>(locked(2), false, false, 1));
}

TEST(WaiterModelMutant, ALoadAndAStoreDecideTwice) {
  hunt(release_against_cancel<Mutant::waiter_plain_decide>(locked(2), true));
}

TEST(WaiterModelMutant, WhoIsCompletedMustLeaveTheScope) {
  hunt(release_against_cancel<Mutant::none, Leave::not_the_scope>(locked(2), true, false));
}

TEST(WaiterModelMutant, WhoIsCancelledMustLeaveTheQueue) {
  hunt(release_against_cancel<Mutant::none, Leave::not_the_queue>(locked(2), true));
}

// ---- children of a join, ended in a row ----

// Children of one join, or two, wait for permits. A cancellation claims what is left of them, and
// whoever runs the first of a row ends the others, too; one that has got a permit ends by itself.
// Whoever hands in the last unit ends the join, and the children are gone. Both threads are workers
// afterwards.
template <Mutant kMutant>
Report row_against_release(Options options, std::size_t waits, int releases,
                           std::size_t joins = 1) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct Child : Strand<Env>::Home {
      std::vector<BasicWaiter<Env>*>* scheduled = nullptr;
      Strand<Env> strand{this};
      Frame<Wait<Env>> frame;
      int ended = 0;
      void go_on(Strand<Env>&) { scheduled->push_back(&*frame); }
    };
    struct TheJoin {
      BasicJoinCounter<Env> counter;
      std::array<Child, 3> children;
    };
    std::vector<BasicWaiter<Env>*> scheduled;  // a queue, by whatever means
    std::array<TheJoin, 2> all;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Semaphore<Env> semaphore(0);
    int taken = 0;
    for (std::size_t j = 0; j < joins; ++j) {
      all[j].counter.start(static_cast<std::uint32_t>(waits));
      for (std::size_t i = 0; i < waits; ++i) {
        Child& child = all[j].children[i];
        child.scheduled = &scheduled;
        Wait<Env>& wait = child.frame.make(child.strand, root, task, false);
        wait.stand = detail::Stand::join;
        wait.join = reinterpret_cast<detail::Join*>(&all[j]);  // only compared
        static constexpr detail::BasicWaitKind<Env> kKind{nullptr, detail::GoesOn::row, nullptr,
                                                          nullptr};
        wait.how = &kKind;
        static_cast<detail::Rec&>(wait).index = static_cast<std::uint32_t>(i);
        sim.check(semaphore.start(wait), "there are no permits");
      }
    }
    const auto work = [&] {
      while (!scheduled.empty()) {
        BasicWaiter<Env>* waiter = scheduled.back();
        scheduled.pop_back();
        auto& join = *reinterpret_cast<TheJoin*>(waiter->join);
        std::uint32_t units = 0;
        do {
          auto& wait = static_cast<Wait<Env>&>(*waiter);
          waiter = detail::behind_in_row(*waiter);
          Child& child = join.children[static_cast<detail::Rec&>(wait).index];
          sim.check(&*child.frame == &wait, "a child of another join is in the row");
          sim.check(++child.ended == 1, "a child ends twice");
          taken += semaphore.finish(wait);
          ++units;
        } while (waiter != nullptr);
        if (!join.counter.deliver(units)) continue;
        for (std::size_t i = 0; i < waits; ++i) {
          sim.check(join.children[i].ended == 1, "a join is over before its children");
          join.children[i].frame.destroy();
        }
      }
    };
    sim.spawn([&] {
      for (int i = 0; i < releases; ++i) semaphore.release();
      work();
    });
    sim.spawn([&] {
      BasicCancelEffects<Env> effects;
      sim.check(root.cancel(detail::ReasonRef::of_kind(CancelKind::requested), effects),
                "the only cancellation was refused");
      detail::deliver_in_order(
          effects, [](detail::ScopeToken*) {}, [](BasicWaiter<Env>& waiter) { schedule(waiter); });
      work();
    });
    sim.run();
    root.exit();
    for (std::size_t j = 0; j < joins; ++j) {
      for (std::size_t i = 0; i < waits; ++i) {
        sim.check(all[j].children[i].frame.gone_and_untouched(),
                  "a child was touched after its end");
      }
    }
    sim.check(taken + semaphore.free() == releases, "a permit was lost or made");
  });
}

TEST(WaiterModel, ChildrenThatACancellationClaimsEndInARow) {
  for (const std::size_t waits : {1U, 2U, 3U}) {
    for (const int releases : {1, 2})
      expect_clean(row_against_release<Mutant::none>(locked(bound(3)), waits, releases));
  }
  expect_clean(row_against_release<Mutant::none>(locked(bound(3) - 1), 2, 1, 2));
  expect_clean_in_random_schedules(
      [](Options options) { return row_against_release<Mutant::none>(options, 2, 2, 2); }, 5'000);
}

TEST(WaiterModelMutant, ARowHasAnEnd) {
  hunt(row_against_release<Mutant::row_open_end>(locked(2), 2, 1));
}

TEST(WaiterModelMutant, ACompletedChildHasNoRow) {
  hunt(row_against_release<Mutant::row_of_the_completed>(locked(2), 2, 2));
}

// ---- a cancelled wait before one that goes on ----

// Two wait for one permit, and the first is cancelled. If it has the permit all the same, it gives
// it back.
template <Mutant kMutant, Leave kLeave = Leave::all_lists>
Report cancel_the_first_of_two(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    Frame<BasicScope<Env>> frame_around_first;
    BasicScope<Env>& around_first = frame_around_first.make();
    root.enter_root(nullptr, &task);
    around_first.enter(&root, &task);
    Semaphore<Env, kLeave> semaphore(0);
    std::array<Strand<Env>, 2> strands;
    std::array<Frame<Wait<Env>>, 2> frames;
    frames[0].make(strands[0], around_first, task);
    frames[1].make(strands[1], root, task);
    sim.check(semaphore.start(*frames[0]) && semaphore.start(*frames[1]), "a wait did not park");
    Flag<Env> cancelled;

    sim.spawn([&] { semaphore.release(); });
    sim.spawn([&] {
      cancel_now(around_first);
      cancelled.raise();
    });
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        strands[i].resumed();
        const bool permit = semaphore.finish(*frames[i]);
        frames[i]->scope.exit();
        frames[i].destroy();
        if (permit) semaphore.release();
        sim.check(permit || i == 0, "a wait was cancelled with its neighbour");
        if (i == 0) {
          cancelled.wait();
          around_first.exit();
        }
      });
    }
    sim.run();
    sim.check(semaphore.free() == 1, "a permit was lost or made");
    for (const Frame<Wait<Env>>& frame : frames) {
      sim.check(frame.gone_and_untouched(), "a frame was touched after its end");
    }
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

TEST(WaiterModel, APermitPassesByACancelledWaitToTheNext) {
  expect_clean(cancel_the_first_of_two<Mutant::none>(locked(1)));
  expect_clean_in_random_schedules(cancel_the_first_of_two<Mutant::none>);
}

TEST(WaiterModelMutant, ACancelledWaitThatStaysQueuedIsTouched) {
  hunt(cancel_the_first_of_two<Mutant::none, Leave::not_the_queue>(locked(2)));
}

// ---- the primitive dies with the wait ----

// An event in the frame that waits for it: set() must not touch it once somebody can have seen that
// it is set.
template <Mutant kMutant>
Report set_an_event_in_the_frame(Options options) {
  return explore(options, [](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct Place {
      Place(Strand<Env>& strand, BasicScope<Env>& root, BasicTaskCore<Env>& task)
          : wait(strand, root, task), event(0) {}
      Wait<Env> wait;
      Semaphore<Env> event;
    };
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Strand<Env> strand;
    Frame<Place> frame;
    frame.make(strand, root, task);
    sim.spawn([&] {
      Place& place = *frame;
      if (!place.event.start(place.wait)) strand.schedule();
    });
    sim.spawn([&] {
      strand.resumed();
      sim.check(frame->event.finish(frame->wait), "nobody cancelled it");
      frame->wait.scope.exit();
      frame.destroy();
    });
    sim.spawn([&] { frame->event.release(); });
    sim.run();
    sim.check(frame.gone_and_untouched(), "a frame was touched after its end");
  });
}

TEST(WaiterModel, WhatAWaitWaitsForMayDieWithIt) {
  expect_clean(set_an_event_in_the_frame<Mutant::none>(locked(2)));
  expect_clean(set_an_event_in_the_frame<Mutant::none>({.preemptions = 1}));
}

// ---- races ----

// Two waits in one race, each for a semaphore of its own; both semaphores are released and the race
// is cancelled from outside. The first that ends cancels the other, the last destroys everything.
template <Mutant kMutant>
Report race(Options options, bool cancel_too) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<kMutant>;
    struct Race {
      Race(std::array<Strand<Env>, 2>& strands, BasicScope<Env>& parent, BasicTaskCore<Env>& task)
          : waits{{{strands[0], scope, task}, {strands[1], scope, task}}} {
        scope.enter(&parent, &task);
        for (std::uint32_t i = 0; i < 2; ++i) {
          waits[i].arbiter = &arbiter;
          waits[i].index = i;
        }
      }
      BasicScope<Env> scope;
      BasicArbiter<Env> arbiter;
      std::array<Wait<Env>, 2> waits;
      typename Env::template Atomic<int> left{2};
    };
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    std::array<Semaphore<Env>, 2> semaphores{Semaphore<Env>(0), Semaphore<Env>(0)};
    std::array<Strand<Env>, 2> strands;
    Frame<Race> frame;
    frame.make(strands, root, task);
    std::uint32_t won = 0;
    bool ended = false;
    for (std::size_t i = 0; i < 2; ++i) {
      sim.check(semaphores[i].start(frame->waits[i]), "a wait did not park");
      sim.spawn([&, i] {
        strands[i].resumed();
        Race& here = *frame;
        const bool mine = semaphores[i].finish(here.waits[i]);
        here.waits[i].scope.exit();
        if (mine) {
          ++won;
          sim.check(here.arbiter.winner() == i, "who took the permit did not win");
          cancel_now(here.scope, CancelKind::lost_race);
        }
        if (here.left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        sim.check(won == 1 || (cancel_too && won == 0), "not one wait won");
        sim.check(won == 1 || here.arbiter.winner() == BasicArbiter<Env>::kNobody,
                  "the winner got nothing");
        here.scope.exit();
        frame.destroy();
        ended = true;
      });
      sim.spawn([&, i] { semaphores[i].release(); });
    }
    if (cancel_too) sim.spawn([&] { cancel_now(root, CancelKind::timeout); });
    sim.run();
    if (cancel_too) root.exit();
    sim.check(ended && frame.gone_and_untouched(), "a frame was touched after its end");
    sim.check(semaphores[0].free() + semaphores[1].free() + static_cast<int>(won) == 2,
              "a loser took a permit");
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

TEST(RaceModel, OneOfTwoWinsAndTheOtherTakesNothing) {
  expect_clean(race<Mutant::none>(locked(bound(3) - 1), false));
  expect_clean_in_random_schedules(
      [](Options options) { return race<Mutant::none>(options, false); });
}

TEST(RaceModel, ACancelFromOutsideEndsItWithAWinnerOrWithout) {
  expect_clean_in_random_schedules(
      [](Options options) { return race<Mutant::none>(options, true); }, 40'000);
}

TEST(RaceModelMutant, ALoadAndAStoreLetBothWin) {
  hunt(race<Mutant::arbiter_plain_win>(locked(2), false));
}

// An arbiter alone: three contestants.
TEST(RaceModel, OneOfThreeContestantsWins) {
  expect_clean(explore({.preemptions = bound(4)}, [](Sim& sim) {
    using Env = SimEnv<>;
    BasicArbiter<Env> arbiter;
    unsigned won = 0;
    std::uint32_t who = BasicArbiter<Env>::kNobody;
    for (std::uint32_t i = 0; i < 3; ++i) {
      sim.spawn([&, i] {
        if (arbiter.win(i)) {
          ++won;
          who = i;
        }
        sim.check(arbiter.winner() != BasicArbiter<Env>::kNobody,
                  "a race is decided and has no winner");
      });
    }
    sim.run();
    sim.check(won == 1 && arbiter.winner() == who, "not one contestant won");
  }));
}

}  // namespace
}  // namespace magpie::model
