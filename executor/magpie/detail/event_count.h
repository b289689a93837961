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
    if constexpr (Env::mutant(Mutant::event_count_late_key)) {
      state_.fetch_add(kWaiter, std::memory_order_seq_cst);
      return Key(epoch_of(state_.load(std::memory_order_acquire)));
    }
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

  // E4 to E6. For one waiter that has no notification coming yet; false if there is none.
  bool notify_one() noexcept { return notify(1); }
  // The same for several at once, if there are so many; for kEverybody all who are counted in
  // return by this call, whatever came before it.
  bool notify(std::uint32_t most) noexcept {
    const bool all = most == kEverybody;
    // E4. Relaxed: the caller's fence comes before it.
    std::uint64_t state = state_.load(std::memory_order_relaxed);
    std::uint32_t count = 0;
    for (;;) {
      const std::int32_t waiters = waiters_of(state);
      const std::int32_t notified = notified_of(state) > 0 ? notified_of(state) : 0;
      // No fewer than there are waiters: they leave, or somebody is at the end of E3 and will call
      // this.
      if (all ? waiters == 0 : notified >= waiters) [[likely]]
        return false;
      const auto without = static_cast<std::uint32_t>(waiters > notified ? waiters - notified : 0);
      count = without < most ? without : most;
      std::uint64_t next = state + count * kNotified;
      if constexpr (!Env::mutant(Mutant::event_count_no_epoch)) next += kEpoch;
      // E5. Release: pairs with the load of state_ in wait() and the subtraction in leave().
      if (state_.compare_exchange_weak(state, next, std::memory_order_acq_rel,
                                       std::memory_order_relaxed)) {
        break;
      }
    }
    // E6. For all it is not so many: one that came after E5 could be woken instead of one before.
    const bool counted = !all || Env::mutant(Mutant::event_count_counts_all);
    Env::futex_wake(state_, static_cast<int>(counted ? count : kEverybody));
    return true;
  }
  void notify_all() noexcept { static_cast<void>(notify(kEverybody)); }

  // How many are between prepare() and the end of cancel() or wait().
  std::uint32_t waiters() const noexcept {
    return static_cast<std::uint32_t>(waiters_of(state_.load(std::memory_order_relaxed)));
  }
  // Whether nobody waits and no notification is under way. For tests.
  bool at_rest() const noexcept {
    const std::uint64_t state = state_.load(std::memory_order_relaxed);
    return waiters_of(state) == 0 && notified_of(state) == 0;
  }

  // E7. The same in one step between the others' E1 and E3: the caller sees all that those who are
  // counted wrote before they counted in, and they will see, once they have counted out, all that
  // the caller wrote before.
  std::uint32_t waiters_in_order() noexcept {
    if constexpr (Env::mutant(Mutant::event_count_loose_census)) return waiters();
    // Acquire and release: pairs with E1 and E3.
    return static_cast<std::uint32_t>(waiters_of(state_.fetch_add(0, std::memory_order_acq_rel)));
  }

 private:
  // {epoch:32, notified:16, waiters:16}; waiters sleep on the epoch's half. `notified` says how
  // many of the waiters are certain to return by themselves: for them no further call to the kernel
  // is worth making, although they have not yet run and left. It lies above kNobody, and for a
  // moment may be below. The epoch wraps after 2^32 notifications; a thread would have to lie still
  // between prepare() and wait() for exactly so many.
  static constexpr std::uint64_t kWaiter = 1;
  static constexpr std::uint64_t kNotified = std::uint64_t{1} << 16;
  static constexpr std::uint64_t kEpoch = std::uint64_t{1} << 32;
  static constexpr std::int32_t kNobody = 0x8000;
  static constexpr std::uint32_t kEverybody = 0x7fffffff;

  static constexpr std::int32_t waiters_of(std::uint64_t state) noexcept {
    return static_cast<std::int32_t>(state & 0xffff);
  }
  static constexpr std::int32_t notified_of(std::uint64_t state) noexcept {
    return static_cast<std::int32_t>((state >> 16) & 0xffff) - kNobody;
  }
  static constexpr std::uint32_t epoch_of(std::uint64_t state) noexcept {
    return static_cast<std::uint32_t>(state >> 32);
  }

  // E3. A waiter goes, in one step, however many leave at once; if it was notified, by the kernel
  // or the epoch, it takes a notification along, if one is under way. True: it was notified.
  bool leave(Key key, bool woken) noexcept {
    const auto moved = [&](std::uint64_t state) { return epoch_of(state) != key.epoch_; };
    constexpr bool kKeeps = Env::mutant(Mutant::event_count_kept_claim);
    bool takes = woken && !Env::mutant(Mutant::event_count_unmoved_leaver);
    if (!takes) {
      const std::uint64_t seen = state_.load(std::memory_order_relaxed);
      takes = moved(seen) && notified_of(seen) > 0;
    }
    // Acquire: pairs with E5, for what the notifier wrote before it. Release: with E7.
    const std::uint64_t state = state_.fetch_sub(takes && !kKeeps ? kWaiter + kNotified : kWaiter,
                                                 std::memory_order_acq_rel);
    if (takes && !kKeeps) {
      settle(state);
    } else if (!kKeeps && moved(state) && notified_of(state) > 0) {
      pass_on();
    }
    return woken || moved(state);
  }

  // The end of E3 where a notification has come between its two looks. Who left has counted out
  // without it, so there is one too many, and somebody may have stopped at E4 on its account: out
  // with it, and on to another waiter. Relaxed: nobody learns anything by it.
  void pass_on() noexcept {
    settle(state_.fetch_sub(kNotified, std::memory_order_relaxed));
    if constexpr (!Env::mutant(Mutant::event_count_silent_leaver)) notify_one();
  }

  // Who took a notification where, as `before` says, there was none gives it back, unless one has
  // come since: then that is the one. Relaxed, as above.
  void settle(std::uint64_t before) noexcept {
    if (notified_of(before) > 0 || Env::mutant(Mutant::event_count_debt)) [[likely]]
      return;
    std::uint64_t state = state_.load(std::memory_order_relaxed);
    while ((notified_of(state) < 0 || Env::mutant(Mutant::event_count_full_refund)) &&
           !state_.compare_exchange_weak(state, state + kNotified, std::memory_order_relaxed)) {
    }
  }

  alignas(kCacheLine) typename Env::template Atomic<std::uint64_t> state_{kNobody * kNotified};
};

}  // namespace magpie::detail
