// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A rate limiter's bucket, queue and steps, over what its users are made of: the library's
// operations, or the models' (tests/model/rate_model_test.cc).
//
// `Traits` has
//   Env, Waiter, Acquire, WakeList      as for ChannelCore
//   Clock                               clocks are told apart by their addresses; nobody asks them
//   acquire(waiter)                     gives the operation back
//   count(operation)                    how many tokens it wants
//   park(operation), complete_at_once(operation)   as OperationBase
//   armed(operation): bool&             it has a timer; under the lock
//   Armed                               what is told once the lock is released, by its tell()
//   arm(operation, clock, deadline, wait, Armed&)  under the lock: a timer, if there can be one
//   fired(operation)                    its timer has nothing more to do with it: the last touch
//
// Only the waiter at the head has a timer. When it fires, whoever fires it serves the queue, and
// the next head's timer is armed.

#include <cstddef>
#include <cstdint>
#include <mutex>

#include <magpie/config.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// The arithmetic of a token bucket, without time and without a lock. Times are nanoseconds since
/// the bucket was last full.
class MAGPIE_EXPORT TokenBucket {
 public:
  /// std::invalid_argument for numbers that make no sense.
  TokenBucket(double per_second, std::size_t burst);

  std::size_t burst() const noexcept { return burst_; }
  /// How long after the bucket was full n tokens can be taken.
  std::int64_t due(std::size_t n) const noexcept;
  /// When it is full again.
  std::int64_t full() const noexcept { return full_; }
  void take(std::size_t n) noexcept;
  void fill() noexcept { spent_ = full_ = 0; }

 private:
  std::int64_t time_of(std::uint64_t tokens) const noexcept;

  const double rate_;
  const std::size_t burst_;
  std::uint64_t spent_ = 0;  // since the bucket was full
  std::int64_t full_ = 0;    // when so many have flowed in
};

/// a - b and a + b, kept within what there is.
inline std::int64_t time_difference(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t result = 0;
  if (!__builtin_sub_overflow(a, b, &result)) return result;
  return a < b ? INT64_MIN : INT64_MAX;
}
inline std::int64_t time_sum(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t result = 0;
  if (!__builtin_add_overflow(a, b, &result)) return result;
  return a < 0 ? INT64_MIN : INT64_MAX;
}

template <class Traits>
class RateCore {
  using Env = typename Traits::Env;
  using Acquire = typename Traits::Acquire;
  using WakeList = typename Traits::WakeList;
  using Clock = typename Traits::Clock;
  using Armed = typename Traits::Armed;

 public:
  /// As TokenBucket.
  RateCore(double per_second, std::size_t burst) : bucket_(per_second, burst) {}

  std::size_t burst() const noexcept { return bucket_.burst(); }

  // Each with the time that the clock has just shown.
  bool try_take(std::size_t n, const Clock& clock, std::int64_t now) noexcept;
  /// True: parked, and not to be touched any more.
  bool start(Acquire& op, const Clock& clock, std::int64_t now) noexcept;
  /// A cancelled operation leaves the queue. Whoever leaves the head, or stood before somebody who
  /// wants less, makes way.
  void leave(Acquire& op, const Clock& clock, std::int64_t now) noexcept;
  /// The operation's timer fires.
  void timer_fired(Acquire& head, const Clock& clock, std::int64_t now) noexcept;

 private:
  void look(const Clock& clock, std::int64_t now, WakeList& woken, Armed& armed) noexcept;
  bool ready(std::size_t n) const noexcept { return bucket_.due(n) <= elapsed_; }
  void serve(WakeList& woken, Armed& armed) noexcept;

  SpinLock<Env> lock_;  // guards what follows
  TokenBucket bucket_;
  const Clock* base_ = nullptr;  // the clock that origin_ is read from
  std::int64_t origin_ = 0;      // when the bucket was full
  std::int64_t elapsed_ = 0;     // since then, as far as anybody has looked
  BasicWaitQueue<Env> waiters_;
};

// Under the lock, with the time: serves those who wait, then sees whether the bucket is full.
//
// In this order: tokens that somebody waits for are taken as they flow in, and the bucket does not
// run over however late the timers are; so the origin stays where it is, and nothing is rounded
// twice. While somebody is left waiting the bucket is not full: it lacks what he waits for.
//
// A clock that goes backwards stands still; on another clock than before, the time goes on where it
// was.
template <class Traits>
void RateCore<Traits>::look(const Clock& clock, std::int64_t now, WakeList& woken,
                            Armed& armed) noexcept {
  if (base_ != &clock) {
    base_ = &clock;
    origin_ = time_difference(now, elapsed_);
  }
  const std::int64_t passed = time_difference(now, origin_);
  if (passed > elapsed_) elapsed_ = passed;
  serve(woken, armed);
  if (elapsed_ < bucket_.full()) return;
  bucket_.fill();
  origin_ = time_sum(origin_, elapsed_);
  elapsed_ = 0;
}

// Under the lock: to the head of the queue what is due to it, and to the next one, until the head's
// time is still to come; then it has a timer. The head cannot leave meanwhile, also if it has been
// cancelled: it needs the lock.
template <class Traits>
void RateCore<Traits>::serve(WakeList& woken, Armed& armed) noexcept {
  while (!waiters_.empty()) {
    Acquire& head = Traits::acquire(*waiters_.front());
    const std::size_t n = Traits::count(head);
    if (!ready(n)) {
      if (!Traits::armed(head)) {
        const std::int64_t deadline = time_sum(origin_, bucket_.due(n));
        const std::int64_t wait = time_difference(deadline, time_sum(origin_, elapsed_));
        Traits::arm(head, *base_, deadline, wait, armed);
      }
      return;
    }
    if (woken.claim_front(waiters_) || Env::mutant(Mutant::rate_token_for_the_cancelled))
      bucket_.take(n);
  }
}

template <class Traits>
bool RateCore<Traits>::try_take(std::size_t n, const Clock& clock, std::int64_t now) noexcept {
  WakeList woken;
  Armed armed;
  bool taken = false;
  {
    std::lock_guard guard(lock_);
    look(clock, now, woken, armed);
    taken = (waiters_.empty() || Env::mutant(Mutant::rate_barging)) && ready(n);
    if (taken) bucket_.take(n);
  }
  woken.wake_all();
  armed.tell();
  return taken;
}

template <class Traits>
bool RateCore<Traits>::start(Acquire& op, const Clock& clock, std::int64_t now) noexcept {
  const std::size_t n = Traits::count(op);
  WakeList woken;
  Armed armed;
  bool parked = false;
  {
    std::lock_guard guard(lock_);
    look(clock, now, woken, armed);
    if (n == 0 || (waiters_.empty() && ready(n))) {
      if (Traits::complete_at_once(op)) bucket_.take(n);
    } else if (Traits::park(op)) {
      parked = true;
      waiters_.push_back(op);
      if (waiters_.front() == &op) serve(woken, armed);
    }
  }
  // From here on nothing of this operation is touched, if it was parked: it may be over.
  woken.wake_all();
  armed.tell();
  return parked;
}

template <class Traits>
void RateCore<Traits>::leave(Acquire& op, const Clock& clock, std::int64_t now) noexcept {
  WakeList woken;
  Armed armed;
  {
    std::unique_lock guard(lock_, std::defer_lock);
    if (!Env::mutant(Mutant::rate_leave_unlocked)) guard.lock();
    waiters_.forget(op);
    if (!Env::mutant(Mutant::rate_leave_unserved)) look(clock, now, woken, armed);
  }
  woken.wake_all();
  armed.tell();
}

template <class Traits>
void RateCore<Traits>::timer_fired(Acquire& head, const Clock& clock, std::int64_t now) noexcept {
  if (Env::mutant(Mutant::rate_fired_too_early)) Traits::fired(head);
  WakeList woken;
  Armed armed;
  {
    std::lock_guard guard(lock_);
    if (!Env::mutant(Mutant::rate_armed_for_ever)) Traits::armed(head) = false;
    look(clock, now, woken, armed);
  }
  // The last touch of the operation unless it is in the list, and of the limiter, which may go with
  // its last waiter.
  if (!Env::mutant(Mutant::rate_fired_too_early)) Traits::fired(head);
  woken.wake_all();
  armed.tell();
}

}  // namespace magpie::detail
