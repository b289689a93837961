// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/scope.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

#include <gtest/gtest.h>

#include <array>
#include <mutex>

#include "expect.h"
#include "sim.h"
#include "strand.h"

// A mutex that is handed over, and a condition whose notifiers move waiters to the mutex's queue:
// those of the combinators in small. Whoever waits ends holding the mutex, notified or cancelled; a
// notification wakes somebody if anybody is left to wake.

namespace magpie::model {
namespace {

using detail::BasicScope;
using detail::BasicTaskCore;
using detail::BasicWaiter;
using detail::BasicWaitQueue;
using detail::ScopeKind;
using detail::SpinLock;
using detail::WaitPhase;

// What the models leave out, to see that it is missed.
enum class Omit {
  nothing,
  the_mask,           // the second stage waits in the strand's own scope
  leaving_the_scope,  // who is notified stays in the first stage's list
  the_next_waiter,    // a notification that meets a cancelled waiter is spent
};

template <class Env>
class Mutex {
 public:
  explicit Mutex(bool held) : held_(held) {}

  // True: taken. False: parked in `scope`.
  bool lock_or_park(StrandWaiter<Env>& wait, BasicScope<Env>& scope) {
    std::lock_guard guard(lock_);
    if (!held_) {
      held_ = true;
      return true;
    }
    wait.state.set(WaitPhase::waiting);
    scope.park(wait);
    queue_.push_back(wait);
    return false;
  }
  void release() {
    BasicWaiter<Env>* next = nullptr;
    {
      std::lock_guard guard(lock_);
      while (next == nullptr && !queue_.empty()) {
        BasicWaiter<Env>& front = *queue_.front();
        queue_.remove(front);
        if (front.state.try_complete()) next = &front;
      }
      held_ = next != nullptr;
    }
    if (next != nullptr) schedule(*next);
  }
  bool held() const { return held_; }

 private:
  SpinLock<Env> lock_;
  BasicWaitQueue<Env> queue_;
  bool held_;
};

// What lies in the frame of a coroutine that waits.
template <class Env, Omit kOmit>
struct Wait : StrandWaiter<Env> {
  Wait(Strand<Env>& its_strand, BasicScope<Env>& its_scope, BasicTaskCore<Env>& its_task)
      : StrandWaiter<Env>(its_strand), scope(its_scope), task(its_task) {}

  enum class Stage { condition, mutex, holding };

  // True: it has the mutex. False: it is in the mutex's queue.
  bool take_back(Mutex<Env>& mutex) {
    stage = Stage::mutex;
    if (kOmit != Omit::the_mask) mask.enter(&scope, &task, ScopeKind::masked);
    if (!mutex.lock_or_park(*this, kOmit != Omit::the_mask ? mask : scope)) return false;
    stage = Stage::holding;
    return true;
  }

  BasicScope<Env>& scope;
  BasicTaskCore<Env>& task;
  BasicScope<Env> mask;
  Stage stage = Stage::condition;
  bool notified = false;
};

template <class Env, Omit kOmit>
class Condition {
 public:
  using Wait = model::Wait<Env, kOmit>;

  void park(Wait& wait) {  // before anybody else runs
    std::lock_guard guard(lock_);
    wait.state.set(WaitPhase::waiting);
    wait.scope.park(wait);
    queue_.push_back(wait);
  }

  void notify_one(Mutex<Env>& mutex) {
    Wait* notified = nullptr;
    {
      std::lock_guard guard(lock_);
      while (notified == nullptr && !queue_.empty()) {
        auto& front = static_cast<Wait&>(*queue_.front());
        queue_.remove(front);
        if (front.state.try_complete()) notified = &front;
        if (kOmit == Omit::the_next_waiter) break;
      }
    }
    if (notified == nullptr) return;
    notified->notified = true;
    if (kOmit != Omit::leaving_the_scope) notified->scope.unpark(*notified);
    if (notified->take_back(mutex)) schedule(*notified);
  }

  // On the strand: until it holds the mutex. False: it was woken without.
  bool finish(Wait& wait, Mutex<Env>& mutex) {
    wait.strand->resumed();
    if (wait.stage == Wait::Stage::condition) {
      {
        std::lock_guard guard(lock_);
        queue_.forget(wait);
      }
      wait.strand->suspends_again();
      if (wait.take_back(mutex)) return true;
      wait.strand->resumed();
    }
    if (wait.stage == Wait::Stage::mutex) {
      if (wait.state.phase() != WaitPhase::done) return false;
      (kOmit != Omit::the_mask ? wait.mask : wait.scope).unpark(wait);
      wait.mask.exit();
    }
    return true;
  }

 private:
  SpinLock<Env> lock_;
  BasicWaitQueue<Env> queue_;
};

// Every step holds a lock: exhaustive without store buffers, and random schedules with them.
Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

template <class Run>
void expect_clean_in_random_schedules(Run run) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report =
        run({.strategy = strategy, .executions = 20'000, .pct_depth = 4, .pct_length = 200});
    EXPECT_TRUE(report.passed()) << report;
  }
}

// One waits; it is notified and cancelled while somebody else holds the mutex, and releases it.
template <Omit kOmit>
Report notify_against_cancel(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    root.enter_root(nullptr, &task);
    Mutex<Env> mutex(true);
    Condition<Env, kOmit> condition;
    Strand<Env> strand;
    Frame<Wait<Env, kOmit>> frame;
    frame.make(strand, root, task);
    condition.park(*frame);
    bool holder_in = true;

    sim.spawn([&] {
      sim.check(condition.finish(*frame, mutex), "a wait ended without the mutex");
      sim.check(!holder_in, "two hold the mutex");
      frame.destroy();
      mutex.release();
    });
    sim.spawn([&] { condition.notify_one(mutex); });
    sim.spawn([&] { cancel_now(root); });
    sim.spawn([&] {
      holder_in = false;
      mutex.release();
    });
    sim.run();
    root.exit();
    sim.check(frame.gone_and_untouched(), "a frame was touched after its end");
    sim.check(!mutex.held(), "the mutex is lost");
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

TEST(ConditionModel, AWaitEndsHoldingTheMutexNotifiedOrCancelled) {
  expect_clean(notify_against_cancel<Omit::nothing>(locked(2)));
  expect_clean_in_random_schedules(notify_against_cancel<Omit::nothing>);
}

TEST(ConditionModelMutant, WithoutTheMaskACancellationReachesTheSecondStage) {
  hunt(notify_against_cancel<Omit::the_mask>(locked(2)));
}

TEST(ConditionModelMutant, WhoIsNotifiedMustLeaveTheFirstStagesScope) {
  hunt(notify_against_cancel<Omit::leaving_the_scope>(locked(2)));
}

// Two wait, the first is cancelled while somebody notifies one. If the first was notified all the
// same, it passes the notification on.
template <Omit kOmit>
Report notify_one_of_two(Options options) {
  return explore(options, [=](Sim& sim) {
    using Env = SimEnv<>;
    BasicTaskCore<Env> task;
    BasicScope<Env> root;
    BasicScope<Env> around_first;
    root.enter_root(nullptr, &task);
    around_first.enter(&root, &task);
    Mutex<Env> mutex(false);
    Condition<Env, kOmit> condition;
    std::array<Strand<Env>, 2> strands;
    std::array<Frame<Wait<Env, kOmit>>, 2> frames;
    frames[0].make(strands[0], around_first, task);
    frames[1].make(strands[1], root, task);
    condition.park(*frames[0]);
    condition.park(*frames[1]);
    Flag<Env> cancelled;
    int inside = 0;

    sim.spawn([&] { condition.notify_one(mutex); });
    sim.spawn([&] {
      cancel_now(around_first);
      cancelled.raise();
    });
    for (std::size_t i = 0; i < 2; ++i) {
      sim.spawn([&, i] {
        sim.check(condition.finish(*frames[i], mutex), "a wait ended without the mutex");
        sim.check(++inside == 1, "two hold the mutex");
        const bool notified = frames[i]->notified;
        sim.check(notified || i == 0, "a wait was cancelled with its neighbour");
        frames[i].destroy();
        --inside;
        mutex.release();
        if (i == 0 && notified) condition.notify_one(mutex);
        if (i == 0) {
          cancelled.wait();
          around_first.exit();
        }
      });
    }
    sim.run();
    sim.check(!mutex.held(), "the mutex is lost");
    for (const auto& frame : frames) {
      sim.check(frame.gone_and_untouched(), "a frame was touched after its end");
    }
    sim.check(task.cancels.load(std::memory_order_relaxed) == 0,
              "a cancellation is counted for ever");
  });
}

TEST(ConditionModel, ANotificationPassesByACancelledWaiterToTheNext) {
  expect_clean(notify_one_of_two<Omit::nothing>(locked(1)));
  expect_clean_in_random_schedules(notify_one_of_two<Omit::nothing>);
}

TEST(ConditionModelMutant, ANotificationIsNotSpentOnACancelledWaiter) {
  hunt(notify_one_of_two<Omit::the_next_waiter>(locked(2)));
}

}  // namespace
}  // namespace magpie::model
