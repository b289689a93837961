// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>

#include <cstdint>
#include <optional>

// Where workers sleep: a condition variable without a mutex, for conditions that lie in other
// atomics. PARKING.md has the steps and the proof sketch.
//
//     EventCount<>::Key key = sleepers.prepare();      // E1: from here on notifications count
//     StdEnv::heavy_fence();                           // against notifiers with a light fence
//     if (found_work_after_all()) sleepers.cancel(key);
//     else sleepers.wait(key, std::nullopt);
//
// Not a semaphore: a notification that nobody waits for is forgotten, and a waiter may be woken
// without one; who returns looks for work again. All waiters are equal: notify_one() is for whoever
// gets it. A waiter that cancels may have swallowed a notification: it found work, so it is awake,
// which is all that a notification asks for.
//
// Threads: any. Who notifies makes its condition true first, then a fence (the light one, if the
// waiters make the heavy one after E1), and then calls notify_one(): with nobody asleep that is one
// relaxed load. Cancellation: not aware. Errors: none.

namespace magpie::detail {

template <class Env = StdEnv>
class EventCount {
 public:
  class Key {
    friend class EventCount;
    explicit Key(std::uint32_t epoch) noexcept : epoch_(epoch) {}
    std::uint32_t epoch_;
  };

  EventCount() = default;
  EventCount(const EventCount&) = delete;
  EventCount& operator=(const EventCount&) = delete;

  // E1. Every key ends in exactly one cancel() or wait().
  [[nodiscard("the caller is counted until it cancels or waits")]] Key prepare() noexcept {
    // One step for counting in and reading the epoch. Sequentially consistent: pairs, over the
    // waiter's fence and the notifier's, with the load of state_ in step E4.
    return Key(epoch_of(state_.fetch_add(kWaiter, std::memory_order_seq_cst)));
  }

  // E3.
  void cancel(Key key) noexcept { leave(key, false); }

  // E2. Sleeps until a notification or until the steady clock shows `deadline_ns`. True: notified,
  // possibly without cause; false: the deadline came first.
  bool wait(Key key, std::optional<std::uint64_t> deadline_ns) noexcept {
    // Acquire: pairs with E5.
    bool woken = epoch_of(state_.load(std::memory_order_acquire)) != key.epoch_;
    if (!woken) {
      // Whoever was woken returns, with the epoch changed or not: the one that the kernel chose
      // instead of an earlier waiter must not go back to sleep with that one's wake-up.
      woken = Env::futex_wait(state_, key.epoch_, deadline_ns);
    }
    return leave(key, woken);
  }

  // E4 to E6. One waiter returns; false if there is none.
  bool notify_one() noexcept { return notify(1); }
  // The same for several at once, if there are so many.
  bool notify(std::uint32_t most) noexcept {
    // E4. Relaxed: the caller's fence comes before it.
    if (waiters() == 0) [[likely]]
      return false;
    // E5. Release: pairs with the load of state_ in wait() and the subtraction in leave(). Who is
    // counted in now leaves after this.
    const std::uint64_t step = Env::mutant(Mutant::event_count_no_epoch) ? 0 : kEpoch;
    const std::uint32_t waiters = waiters_of(state_.fetch_add(step, std::memory_order_acq_rel));
    if (waiters == 0) return false;
    // E6. For all it is not as many as were counted: one that came after E5 could be woken instead.
    if (Env::mutant(Mutant::event_count_counts_all) && most == kEverybody) most = waiters;
    Env::futex_wake(state_, static_cast<int>(most));
    return true;
  }
  void notify_all() noexcept { static_cast<void>(notify(kEverybody)); }

  // How many are between prepare() and the end of cancel() or wait().
  std::uint32_t waiters() const noexcept {
    return waiters_of(state_.load(std::memory_order_relaxed));
  }

  // E7. The same in one step between the others' E1 and E3: the caller sees all that those who are
  // counted wrote before they counted in, and they will see, once they have counted out, all that
  // the caller wrote before.
  std::uint32_t waiters_in_order() noexcept {
    if constexpr (Env::mutant(Mutant::event_count_loose_census)) return waiters();
    // Acquire and release: pairs with E1 and E3.
    return waiters_of(state_.fetch_add(0, std::memory_order_acq_rel));
  }

 private:
  // {epoch:32, waiters:32}; waiters sleep on the epoch's half. What changes the word is an
  // addition: with many threads at it no step fails because of another. The epoch wraps after 2^32
  // notifications; a thread would have to lie still between prepare() and wait() for exactly so
  // many.
  static constexpr std::uint64_t kWaiter = 1;
  static constexpr std::uint64_t kEpoch = std::uint64_t{1} << 32;
  static constexpr std::uint32_t kEverybody = 0x7fffffff;

  static constexpr std::uint32_t waiters_of(std::uint64_t state) noexcept {
    return static_cast<std::uint32_t>(state);
  }
  static constexpr std::uint32_t epoch_of(std::uint64_t state) noexcept {
    return static_cast<std::uint32_t>(state >> 32);
  }

  // E3. True: notified, by the kernel or the epoch.
  bool leave(Key key, bool woken) noexcept {
    // Acquire: pairs with E5, for what the notifier wrote before it. Release: with E7.
    const std::uint64_t state = state_.fetch_sub(kWaiter, std::memory_order_acq_rel);
    return woken || epoch_of(state) != key.epoch_;
  }

  alignas(kCacheLine) typename Env::template Atomic<std::uint64_t> state_{0};
};

}  // namespace magpie::detail
