// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A latch's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/gates_model_test.cc). `Traits` as OperationTraits (detail/operation.h).
//
// Whoever waits, the count is not 0.

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

enum class LatchStart : std::uint8_t {
  parked,   // not to be touched any more
  ended,    // its state says how
  too_many  // there are not so many left to count; nothing has happened
};

template <class Traits>
class LatchCore {
  using Env = typename Traits::Env;
  using Operation = typename Traits::Operation;
  using WakeList = typename Traits::WakeList;

 public:
  explicit LatchCore(std::size_t count) noexcept : count_(count) {}

  /// False, and nothing has happened: there are not so many left.
  bool count_down(std::size_t n) noexcept;
  bool open() const noexcept {
    std::lock_guard guard(lock_);
    return count_ == 0;
  }

  /// Counts, and waits.
  LatchStart start(Operation& op, std::size_t arrives) noexcept;
  /// A cancelled operation leaves the queue; what it has counted stays.
  void leave(Operation& op) noexcept {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::latch_leave_unlocked)) guard.lock();
    waiters_.forget(op);
  }

 private:
  // Under the lock, so that its release is the last touch of the latch.
  bool arrive(std::size_t n, WakeList& woken) noexcept;

  mutable SpinLock<Env> lock_;
  std::size_t count_;
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
bool LatchCore<Traits>::arrive(std::size_t n, WakeList& woken) noexcept {
  if (n > count_) return false;
  count_ -= n;
  while (count_ == 0 && !waiters_.empty()) {
    woken.claim_front(waiters_);
    if (Env::mutant(Mutant::latch_wakes_one)) break;
  }
  return true;
}

template <class Traits>
bool LatchCore<Traits>::count_down(std::size_t n) noexcept {
  WakeList woken;
  bool counted;
  {
    std::lock_guard guard(lock_);
    counted = arrive(n, woken);
  }
  woken.wake_all();
  return counted;
}

template <class Traits>
LatchStart LatchCore<Traits>::start(Operation& op, std::size_t arrives) noexcept {
  WakeList woken;
  LatchStart result = LatchStart::ended;
  {
    std::unique_lock guard(lock_);
    if (!arrive(arrives, woken)) {
      result = LatchStart::too_many;
    } else if (count_ == 0) {
      Traits::complete_at_once(op);
    } else {
      if constexpr (Env::mutant(Mutant::latch_parks_late)) {
        guard.unlock();
        guard.lock();
      }
      if (Traits::park(op)) {
        waiters_.push_back(op);
        result = LatchStart::parked;
      }
    }
  }
  woken.wake_all();
  return result;
}

}  // namespace magpie::detail
