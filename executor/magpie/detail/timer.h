// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// One timer, as those who wait for a moment have it in them. Where it lies while it is armed:
// timers.h, which programs need not compile.

#include <chrono>
#include <cstdint>
#include <limits>

#include <magpie/clock.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/timer_queue.h>

namespace magpie::detail {

inline constexpr std::int64_t kNeverNs = std::numeric_limits<std::int64_t>::max();

inline std::int64_t to_ns(Deadline deadline) noexcept {
  return deadline.time_since_epoch().count();
}
inline Deadline from_ns(std::int64_t ns) noexcept {
  return Deadline(std::chrono::nanoseconds(ns));
}

struct TimerShard;
class VirtualTime;

struct Timer : TimerNode {
  TimerShard* shard = nullptr;
  bool (*claim)(Timer*) noexcept = nullptr;  // under the shard's lock
  void (*fire)(Timer*) noexcept = nullptr;   // without a lock, after claim() said yes
  Timer* next_due = nullptr;
};

/// Of a timer that may be armed again while it fires: its owner, who has taken it out of its shard,
/// waits for the threads that have claimed it.
template <class Env>
class BasicFirings {
 public:
  /// Under the shard's lock. Relaxed: ordered by that lock, which the owner takes before he waits.
  void claimed() noexcept { count_.fetch_add(1, std::memory_order_relaxed); }
  /// The last touch. Release: pairs with wait_for_the_end().
  void fired() noexcept { count_.fetch_sub(1, std::memory_order_release); }
  void wait_for_the_end() const noexcept {
    if (Env::mutant(Mutant::timer_firings_no_wait)) return;
    Backoff<Env> backoff;
    while (count_.load(std::memory_order_acquire) != 0) backoff.wait();  // pairs with fired()
  }

 private:
  typename Env::template Atomic<std::uint32_t> count_{0};
};

}  // namespace magpie::detail
