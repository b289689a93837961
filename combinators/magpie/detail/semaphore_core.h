// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A semaphore's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/semaphore_model_test.cc).
//
// `Traits` has
//   Env, Waiter, Acquire, WakeList      as for ChannelCore
//   acquire(waiter)                     gives the operation back
//   count(operation)                    how many permits it wants
//   park(operation), complete_at_once(operation)   as OperationBase
//
// While somebody waits, fewer are free than the head of the queue wants.

#include <cstddef>
#include <mutex>

#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

template <class Traits>
class SemaphoreCore {
  using Env = typename Traits::Env;
  using Acquire = typename Traits::Acquire;
  using WakeList = typename Traits::WakeList;

 public:
  SemaphoreCore(std::size_t permits, std::size_t most) noexcept : free_(permits), most_(most) {}

  /// How many there may be: free and held.
  std::size_t most() const noexcept { return most_; }
  std::size_t available() const noexcept {
    std::lock_guard guard(lock_);
    return free_;
  }

  bool try_acquire(std::size_t n) noexcept;
  /// False, and nothing has happened: there would be too many.
  bool add(std::size_t n) noexcept;
  void give_back(std::size_t n) noexcept;

  /// True: parked, and not to be touched any more.
  bool start(Acquire& op) noexcept;
  /// A cancelled operation leaves the queue.
  void leave(Acquire& op) noexcept;

 private:
  void serve(WakeList& woken) noexcept;
  void serve_and_unlock() noexcept;

  mutable SpinLock<Env> lock_;
  std::size_t free_;
  const std::size_t most_;
  std::size_t out_ = 0;  // held as permits
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
bool SemaphoreCore<Traits>::try_acquire(std::size_t n) noexcept {
  std::lock_guard guard(lock_);
  const bool overtakes = !waiters_.empty() && !Env::mutant(Mutant::semaphore_barging);
  if (n != 0 && (overtakes || free_ < n)) return false;
  free_ -= n;
  out_ += n;
  return true;
}

template <class Traits>
bool SemaphoreCore<Traits>::add(std::size_t n) noexcept {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    if (n > most_ - free_ || free_ + n > most_ - out_) return false;
    free_ += n;
    serve(woken);
  }
  woken.wake_all();
  return true;
}

template <class Traits>
void SemaphoreCore<Traits>::give_back(std::size_t n) noexcept {
  lock_.lock();
  out_ -= n;
  free_ += n;
  if (waiters_.empty()) {
    lock_.unlock();
  } else {
    serve_and_unlock();
  }
}

// Out of line: where nobody waits there is no list to be made.
template <class Traits>
[[gnu::noinline]] void SemaphoreCore<Traits>::serve_and_unlock() noexcept {
  WakeList woken;
  serve(woken);
  lock_.unlock();
  woken.wake_all();
}

// Under the lock: what is free goes to the head of the queue, as long as it is enough for it.
template <class Traits>
void SemaphoreCore<Traits>::serve(WakeList& woken) noexcept {
  while (!waiters_.empty()) {
    const std::size_t n = Traits::count(Traits::acquire(*waiters_.front()));
    if (free_ < n) return;
    if (woken.claim_front(waiters_) || Env::mutant(Mutant::semaphore_permit_for_the_cancelled)) {
      free_ -= n;
      out_ += n;
    }
    if (Env::mutant(Mutant::semaphore_serves_one)) return;
  }
}

template <class Traits>
bool SemaphoreCore<Traits>::start(Acquire& op) noexcept {
  const std::size_t n = Traits::count(op);
  std::lock_guard guard(lock_);
  if (n == 0 || (waiters_.empty() && free_ >= n)) {
    if (Traits::complete_at_once(op)) {
      free_ -= n;
      out_ += n;
    }
    return false;
  }
  if (!Traits::park(op)) return false;
  waiters_.push_back(op);
  return true;
}

// A large request that leaves the head may make way for the ones behind it.
template <class Traits>
void SemaphoreCore<Traits>::leave(Acquire& op) noexcept {
  WakeList woken;
  {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::semaphore_leave_unlocked)) guard.lock();
    waiters_.forget(op);
    if (!Env::mutant(Mutant::semaphore_leave_unserved)) serve(woken);
  }
  woken.wake_all();
}

}  // namespace magpie::detail
