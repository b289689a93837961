// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A condition's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/condition_model_test.cc).
//
// `Traits` as OperationTraits (detail/operation.h), and
//   Wait, wait(waiter)            the operation
//   part(wait)                    its ConditionPart
//   scope(wait)                   that it waits in
//   mutex(wait)                   a PermitCore of one permit
//   lets_go(wait)                 its lock holds nothing from here on
//   cancelled(wait)               it will end cancelled, with the reason as it is now
//   leaves_race(wait)             what it waits for from here on decides no race
//   destroyed(wait)               it goes on only to be destroyed: the simulator
//   leave_mask(wait)              leaves the scope of its part
//
// A wait has two stages, and its node is in one queue at a time. The page: combinators/DESIGN.md,
// "Condition".

#include <cstdint>
#include <mutex>

#include <magpie/detail/scope.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

enum class ConditionStage : std::uint8_t { condition, mutex, holding };

/// What a wait knows of its stages.
template <class Env>
struct ConditionPart {
  ConditionStage stage = ConditionStage::condition;
  bool notified = false;
  BasicScope<Env> mask;  // around the second stage
};

template <class Traits>
class ConditionCore {
  using Env = typename Traits::Env;
  using Wait = typename Traits::Wait;
  using WakeList = typename Traits::WakeList;

 public:
  /// From holding the mutex to waiting without. True: not to be touched any more. False: cancelled,
  /// and the mutex still held.
  bool wait(Wait& w) noexcept;

  enum class Resumed : std::uint8_t {
    holding,  // the wait is over, or its predicate is asked; it has the mutex
    waiting,  // for the mutex, and not to be touched any more
    without   // to be destroyed
  };
  /// On the waiting strand, when it was resumed.
  Resumed resume(Wait& w) noexcept;

  void notify_one() noexcept;
  void notify_all() noexcept;

 private:
  static void relock_all(WakeList& notified) noexcept;
  static void relock(Wait& w, WakeList& woken) noexcept;
  static bool take_mutex_back(Wait& w) noexcept;
  static bool leave_mutex_queue(Wait& w) noexcept;
  static BasicScope<Env>& second_scope(Wait& w) noexcept {
    return Env::mutant(Mutant::condition_no_mask) ? Traits::scope(w) : Traits::part(w).mask;
  }

  SpinLock<Env> lock_;
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
bool ConditionCore<Traits>::wait(Wait& w) noexcept {
  auto& mutex = Traits::mutex(w);  // from the end of the section on, this wait may be over
  if (Env::mutant(Mutant::condition_early_release)) mutex.give_back(1);
  {
    std::lock_guard guard(lock_);
    Traits::part(w).stage = ConditionStage::condition;
    if (!Traits::park(w)) return false;
    Traits::lets_go(w);
    waiters_.push_back(w);
  }
  if (!Env::mutant(Mutant::condition_early_release)) mutex.give_back(1);
  return true;
}

template <class Traits>
void ConditionCore<Traits>::notify_one() noexcept {
  WakeList notified;
  {
    std::lock_guard guard(lock_);
    while (!waiters_.empty() && !notified.claim_front(waiters_)) {
      if (Env::mutant(Mutant::condition_spends_on_the_cancelled)) break;
    }
  }
  relock_all(notified);
}

template <class Traits>
void ConditionCore<Traits>::notify_all() noexcept {
  WakeList notified;
  {
    std::lock_guard guard(lock_);
    while (!waiters_.empty()) notified.claim_front(waiters_);
  }
  relock_all(notified);
}

// Notified waiters go on to the mutex, in their order.
template <class Traits>
void ConditionCore<Traits>::relock_all(WakeList& notified) noexcept {
  WakeList woken;
  while (auto* const waiter = notified.pop_front()) relock(Traits::wait(*waiter), woken);
  woken.wake_all();
}

// Its state is decided, and it is out of the queue: the strand does not run, so it is the
// notifier's until it is in the mutex's queue.
template <class Traits>
void ConditionCore<Traits>::relock(Wait& w, WakeList& woken) noexcept {
  if (w.state.phase() == WaitPhase::lost) {
    Traits::cancelled(w);
  } else {
    Traits::part(w).notified = true;
  }
  if (!Env::mutant(Mutant::condition_stays_in_its_scope)) Traits::scope(w).unpark(w);
  if (take_mutex_back(w)) woken.add(w);
}

// True: it has the mutex. False: it is in the mutex's queue, where no cancellation reaches it.
template <class Traits>
bool ConditionCore<Traits>::take_mutex_back(Wait& w) noexcept {
  if (!Env::mutant(Mutant::condition_stays_in_its_race)) Traits::leaves_race(w);
  ConditionPart<Env>& part = Traits::part(w);
  part.stage = ConditionStage::holding;
  return Traits::mutex(w).take_or_queue(w, [&]() noexcept {
    part.stage = ConditionStage::mutex;
    w.state.set(WaitPhase::waiting);
    part.mask.enter(&Traits::scope(w), Traits::scope(w).task(), ScopeKind::masked);
    second_scope(w).park(w);  // behind a mask it is not refused
  });
}

// False: the strand is to be destroyed, and the mutex was not handed over.
template <class Traits>
bool ConditionCore<Traits>::leave_mutex_queue(Wait& w) noexcept {
  const bool handed_over = w.state.phase() == WaitPhase::done;
  if (handed_over) {
    second_scope(w).unpark(w);
  } else {
    Traits::mutex(w).leave(w);
  }
  Traits::leave_mask(w);
  return handed_over;
}

template <class Traits>
auto ConditionCore<Traits>::resume(Wait& w) noexcept -> Resumed {
  // It may have to wait once more, and the executor's queue has used the word that says where.
  if (!Env::mutant(Mutant::condition_forgets_its_executor)) Traits::runs_again(w);
  switch (Traits::part(w).stage) {
    case ConditionStage::condition: {  // a cancellation has claimed it
      Traits::cancelled(w);
      {
        std::unique_lock guard(lock_, std::defer_lock);
        if (!Env::mutant(Mutant::condition_leave_unlocked)) guard.lock();
        waiters_.forget(w);
      }
      if (Traits::destroyed(w)) return Resumed::without;  // and the mutex maybe before
      return take_mutex_back(w) ? Resumed::holding : Resumed::waiting;
    }
    case ConditionStage::mutex:
      return leave_mutex_queue(w) ? Resumed::holding : Resumed::without;
    case ConditionStage::holding:
      break;
  }
  return Resumed::holding;
}

}  // namespace magpie::detail
