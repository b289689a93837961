// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Virtual time for tests: hours of sleeps end in milliseconds, on any number of threads, and the
// time that a program sees pass is exact.
//
//     ManualClock clock;
//     WorkStealingExecutor executor({.threads = 4, .clock = &clock});
//     executor.run(sleep_for(24h));  // returns at once; clock.now() is a day later
//
// With auto-advance (the default) the clock jumps to the next timer when a thread blocks in run,
// wait (of a task of the executor, or of a Future), shutdown or the executor's destructor, and
// nothing could happen at the present time: no task of the executor is runnable, running or
// visiting another executor, no to_thread call is queued or running, and nobody holds the clock.
// Otherwise it stands still.
//
// It is not a clock for several executors: each needs its own. Threads: every member from any
// thread; it must outlive its executor.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include <magpie/clock.h>
#include <magpie/config.h>

namespace magpie {

namespace detail {

class Timers;

/// A thread that blocks and waits for an executor: what makes virtual time move, until what it
/// waits for has happened. That is asked, not told, so that time does not run on while the thread
/// is still waking up.
struct BlockedThread {
  bool (*over)(const BlockedThread&) noexcept = nullptr;  // under the clock's mutex
  BlockedThread* next = nullptr;
};

/// A thread that blocks and waits for something that any executor might bring about, a promise say:
/// while this lives, it makes the time of every ManualClock move that has an executor.
class MAGPIE_EXPORT BlockedAnywhere {
 public:
  explicit BlockedAnywhere(BlockedThread& thread) noexcept;
  ~BlockedAnywhere();
  BlockedAnywhere(const BlockedAnywhere&) = delete;
  BlockedAnywhere& operator=(const BlockedAnywhere&) = delete;

 private:
  BlockedThread& thread_;
};

/// The ledger of everything that keeps virtual time from moving.
class MAGPIE_EXPORT VirtualTime {
 public:
  VirtualTime();
  ~VirtualTime();
  VirtualTime(const VirtualTime&) = delete;
  VirtualTime& operator=(const VirtualTime&) = delete;

  Deadline now() const noexcept;
  void advance(Duration duration);
  void set_auto_advance(bool on);

  void attach(Timers& timers);  // std::invalid_argument if another executor is attached
  void detach() noexcept;

  // What keeps time from moving, counted.
  void work_begins() noexcept { add(&active_); }
  void work_ends() noexcept { subtract(&active_); }
  void visit_begins() noexcept { add(&visitors_); }
  void visit_ends() noexcept { subtract(&visitors_); }
  void blocking_begins() noexcept { add(&blocking_); }
  void blocking_ends() noexcept { subtract(&blocking_); }
  void hold_begins() noexcept { add(&holds_); }
  void hold_ends() noexcept { subtract(&holds_); }
  // A thread blocks and waits for the executor.
  void waiter_begins(BlockedThread& thread) noexcept;
  void waiter_ends(BlockedThread& thread) noexcept;
  /// A timer was armed: by a foreign thread perhaps, when nobody else looks.
  void timer_armed() noexcept;
  /// How many strands are on other executors.
  std::size_t visitors() noexcept;

  /// A worker is about to park. True: time has moved and this thread fired timers instead; it is
  /// still counted as active.
  bool worker_parks() noexcept;

 private:
  friend class BlockedAnywhere;
  struct Everywhere;
  static Everywhere& everywhere() noexcept;

  void add(std::size_t* count) noexcept;
  void subtract(std::size_t* count) noexcept;
  bool may_jump() const noexcept;
  bool jump(std::unique_lock<std::mutex>& lock) noexcept;
  void fire_due(std::unique_lock<std::mutex>& lock) noexcept;
  void jump_while_possible(std::unique_lock<std::mutex>& lock) noexcept;

  std::atomic<std::int64_t> now_ns_;
  std::mutex mutex_;
  Timers* timers_ = nullptr;
  bool auto_advance_ = true;
  std::size_t active_ = 0;
  std::size_t visitors_ = 0;
  std::size_t blocking_ = 0;
  std::size_t holds_ = 0;
  BlockedThread* blocked_ = nullptr;
  std::size_t firing_ = 0;  // threads among the timers of timers_
  // A condition_variable, whose header is dear.
  struct Signal;
  Signal* const nobody_fires_;

  // Under the mutex of Everywhere.
  VirtualTime* next_attached_ = nullptr;
  std::size_t visited_ = 0;  // BlockedAnywheres that are looking at this clock
};

}  // namespace detail

/// A clock that moves by hand or by itself; see the head of the file.
class MAGPIE_EXPORT ManualClock final : public Clock {
 public:
  ManualClock() = default;

  [[nodiscard]] Deadline now() const override { return time_.now(); }
  [[nodiscard]] ManualClock* as_manual() noexcept override { return this; }

  /// Moves the clock by hand, firing what falls due on the way in order.
  void advance(Duration duration) { time_.advance(duration); }

  /// Whether the clock jumps by itself when nothing else can happen.
  void set_auto_advance(bool on) { time_.set_auto_advance(on); }

  /// While it lives, the clock does not jump: for foreign threads that are about to do something.
  class [[nodiscard("the clock is held only while the hold lives")]] Hold {
   public:
    Hold(Hold&& other) noexcept : time_(other.time_) { other.time_ = nullptr; }
    Hold& operator=(Hold&& other) noexcept {
      if (this != &other) {
        release();
        time_ = other.time_;
        other.time_ = nullptr;
      }
      return *this;
    }
    ~Hold() { release(); }
    void release() noexcept {
      if (time_ != nullptr) time_->hold_ends();
      time_ = nullptr;
    }

   private:
    friend class ManualClock;
    explicit Hold(detail::VirtualTime& time) noexcept : time_(&time) { time.hold_begins(); }
    detail::VirtualTime* time_;
  };
  Hold hold() noexcept { return Hold(time_); }

  /// For executors.
  detail::VirtualTime& virtual_time() noexcept { return time_; }

 private:
  detail::VirtualTime time_;
};

}  // namespace magpie
