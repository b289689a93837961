// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// An executor's timers: shards that threads pick by their index, each a pairing heap under a spin
// lock. Arming and disarming are O(1) and O(log n) amortised, allocate nothing, and may be done
// from any thread.
//
// Who fires: a worker serves its own shard between tasks and before it parks; the monitor thread,
// started with the first timer, serves whatever is overdue, so deadlines are seen while every
// worker is busy. In virtual time the clock does it.
//
// A timer that is due is taken out and claimed under the shard's lock; what `claim` says yes to is
// fired after the lock is released, and belongs to the firing thread until then.

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/spin_lock.h>
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

struct alignas(kCacheLine) TimerShard {
  SpinLock<StdEnv> lock;
  TimerQueue queue;
  std::atomic<std::int64_t> earliest{kNeverNs};  // of the queue; written under the lock
};

class MAGPIE_EXPORT Timers {
 public:
  static constexpr std::size_t kShards = 32;

  explicit Timers(Clock& clock);
  ~Timers();  // every timer has been disarmed or has fired
  Timers(const Timers&) = delete;
  Timers& operator=(const Timers&) = delete;

  /// The shard for a timer that this thread arms. Lock it, insert with arm(), unlock, then call
  /// armed().
  TimerShard& shard_here() noexcept;

  /// Under the shard's lock.
  static void arm(TimerShard& shard, Timer& timer) noexcept;
  /// Under the shard's lock; false if it is not in the queue any more.
  static bool disarm(TimerShard& shard, Timer& timer) noexcept;

  /// After arming, with no lock held: makes sure that somebody looks in time.
  void armed(std::int64_t deadline_ns) noexcept;

  Clock& clock() const noexcept { return clock_; }
  std::int64_t now_ns() const noexcept { return to_ns(clock_.now()); }

  /// Fires what is due in one shard; true if anything was.
  bool serve(TimerShard& shard, std::int64_t now_ns) noexcept;
  bool serve_all(std::int64_t now_ns) noexcept;
  std::int64_t earliest() const noexcept;
  std::size_t pending() const noexcept;

  void stop_monitor() noexcept;
  /// For executors whose workers do not serve timers: the monitor comes in time. Before the first
  /// timer.
  void serve_without_grace() noexcept { grace_ns_ = 0; }

 private:
  void start_monitor() noexcept;
  void monitor() noexcept;

  // The monitor comes this much later than a deadline: workers have the first try.
  std::int64_t grace_ns_ = 1'000'000;

  Clock& clock_;
  VirtualTime* const manual_;  // null: real time
  std::unique_ptr<TimerShard[]> shards_;
  alignas(kCacheLine) std::atomic<std::int64_t> planned_{kNeverNs};  // when the monitor looks next
  std::atomic<bool> monitor_runs_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool kicked_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace magpie::detail
