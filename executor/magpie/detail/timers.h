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
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/timer.h>

namespace magpie::detail {

template <class Env>
struct alignas(kCacheLine) BasicTimerShard {
  // Under the lock.
  void insert(TimerNode& timer) noexcept {
    queue.insert(timer);
    if (timer.deadline_ns < earliest.load(std::memory_order_relaxed)) {
      // seq_cst: pairs with BasicTimerPlan::make(): it sees this deadline, or told_of() sees the
      // plan.
      earliest.store(timer.deadline_ns, Env::mutant(Mutant::timer_relaxed_earliest)
                                            ? std::memory_order_relaxed
                                            : std::memory_order_seq_cst);
    }
  }
  void note_earliest() noexcept {
    const TimerNode* first = queue.earliest();
    // Relaxed: a deadline that is too early only makes somebody look in vain.
    earliest.store(first != nullptr ? first->deadline_ns : kNeverNs, std::memory_order_relaxed);
  }

  SpinLock<Env> lock;
  TimerQueue queue;
  typename Env::template Atomic<std::int64_t> earliest{kNeverNs};  // of the queue; written under
                                                                   // the lock
};
struct TimerShard : BasicTimerShard<StdEnv> {};

/// When the monitor looks next, and how it hears of timers that are due before.
template <class Env>
class BasicTimerPlan {
 public:
  /// By the monitor. A plan, then a second look: a timer armed in between is either seen here, or
  /// its thread sees the plan. look() gives the moment that the earliest timer asks for.
  template <class Look>
  std::int64_t make(Look look) noexcept {
    for (std::int64_t plan = look();;) {
      planned_.store(plan, Env::mutant(Mutant::timer_relaxed_plan) ? std::memory_order_relaxed
                                                                   : std::memory_order_seq_cst);
      if (Env::mutant(Mutant::timer_single_look)) return plan;
      const std::int64_t again = look();
      if (again == plan) return plan;
      plan = again;
    }
  }
  /// After a timer was armed that asks for this moment. False: the monitor has to be told.
  bool told_of(std::int64_t moment) const noexcept {
    return moment >= planned_.load(std::memory_order_seq_cst);  // pairs with make()
  }

 private:
  typename Env::template Atomic<std::int64_t> planned_{kNeverNs};
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
  /// When to look again for what is due then, by the steady clock, which threads wait on. A clock
  /// of the user's own may have another zero and another pace: whoever has waited looks, and waits
  /// on.
  std::int64_t steady_ns(std::int64_t due_ns) const noexcept;

  /// Fires what is due in one shard; true if anything was.
  bool serve(TimerShard& shard, std::int64_t now_ns) noexcept;
  bool serve_all(std::int64_t now_ns) noexcept;
  std::int64_t earliest() const noexcept;
  std::size_t pending() const noexcept;

  void stop_monitor() noexcept;
  /// The processors for the monitor, whoever starts it. Before the first timer.
  void keep_on(std::vector<int> processors) noexcept { processors_ = std::move(processors); }
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
  const bool is_steady_;       // the clock is the one that threads wait on
  std::unique_ptr<TimerShard[]> shards_;
  alignas(kCacheLine) BasicTimerPlan<StdEnv> plan_;
  std::atomic<bool> monitor_runs_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  bool kicked_ = false;
  bool stopping_ = false;
  std::vector<int> processors_;
  std::thread thread_;
};

}  // namespace magpie::detail
