// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// An event's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/gates_model_test.cc). `Traits` as OperationTraits (detail/operation.h).
//
// Whoever waits, the flag is down, or was when he came.

#include <mutex>

#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

template <class Traits>
class EventCore {
  using Env = typename Traits::Env;
  using Operation = typename Traits::Operation;
  using WakeList = typename Traits::WakeList;

 public:
  void set() noexcept;
  void clear() noexcept {
    std::lock_guard guard(lock_);
    set_ = false;
  }
  bool is_set() const noexcept {
    std::lock_guard guard(lock_);
    return set_;
  }

  /// True: parked, and not to be touched any more.
  bool start(Operation& op) noexcept;
  /// A cancelled operation leaves the queue.
  void leave(Operation& op) noexcept {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::event_leave_unlocked)) guard.lock();
    waiters_.forget(op);
  }

 private:
  mutable SpinLock<Env> lock_;
  bool set_ = false;
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
void EventCore<Traits>::set() noexcept {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    set_ = true;
    while (!waiters_.empty()) {
      woken.claim_front(waiters_);
      if (Env::mutant(Mutant::event_wakes_one)) break;
    }
  }
  woken.wake_all();
}

template <class Traits>
bool EventCore<Traits>::start(Operation& op) noexcept {
  [[maybe_unused]] bool early = false;
  if constexpr (Env::mutant(Mutant::event_early_look)) early = is_set();
  std::lock_guard guard(lock_);
  if (Env::mutant(Mutant::event_early_look) ? early : set_) {
    Traits::complete_at_once(op);
    return false;
  }
  if (!Traits::park(op)) return false;
  waiters_.push_back(op);
  return true;
}

}  // namespace magpie::detail
