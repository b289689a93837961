// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A worker of the work-stealing executor, and the machine that the workers make up: where work
// comes from, in which order, and how a worker goes to sleep. The steps P1 to P8 and N1 to N5 are
// those of executor/PARKING.md.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/event_count.h>
#include <magpie/detail/executor_services.h>
#include <magpie/detail/injection_queue.h>
#include <magpie/detail/job_wait.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/nappers.h>
#include <magpie/detail/random.h>
#include <magpie/executor_options.h>
#include <magpie/stats.h>

namespace magpie::detail {

class WorkStealingMachine;

/// Every so many pieces, or jobs taken back, a worker looks at the clock. Of the pieces, the next
/// one is its oldest: what lies at the far end of a busy deque is served within a bounded number of
/// steps. A prime, so that it does not fall into step with a program's own period.
inline constexpr std::uint32_t kHousekeepingEvery = 61;
/// How long a worker looks for work before it sleeps: about what a wake-up costs.
inline constexpr std::uint64_t kSpinNs = 20'000;
/// While others are awake the first sleep is short and needs no heavy fence; a wake-up that slipped
/// through is noticed at its end.
inline constexpr std::uint64_t kFirstSleepNs = 200'000;

/// Numbers that one worker writes and anybody reads.
struct WorkerCounters {
  std::atomic<std::uint64_t> tasks_run{0};
  std::atomic<std::uint64_t> local_pops{0};
  std::atomic<std::uint64_t> steals_tried{0};
  std::atomic<std::uint64_t> steals_won{0};
  std::atomic<std::uint64_t> injected{0};
  std::atomic<std::uint64_t> parks{0};
  std::atomic<std::uint64_t> wakeups{0};
  std::atomic<std::int64_t> idle_ns{0};
  std::atomic<std::int64_t> since_ns{0};  // when it started
  std::atomic<std::int64_t> until_ns{0};  // when it left; 0: it is there

  // One writer: a load and a store, no locked instruction.
  template <class N>
  static void add(std::atomic<N>& counter, N n = 1) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

struct alignas(kCacheLine) Worker : LocalQueue {
  Worker(WorkStealingMachine& the_machine, std::size_t the_index);

  WorkStealingMachine& machine;
  const std::size_t index;
  Random random;
  std::uint32_t until_care = kHousekeepingEvery;  // pieces
  std::size_t from_inbox = 0;  // so many items are the deque's turn: what came along, and one
  std::uint32_t searches = 0;
  std::uint32_t in_stream = 0;  // posts follow upon one another, so many more tries long
  bool inbox_due = true;        // false: in a stream, and has run what it found there
  bool prefer_oldest = false;   // a strand has yielded
  bool woken = false;           // back from the sleepers, has not run anything since
  bool left_some = false;       // steal(), or search(), has left a strand to its worker
  bool napped = false;          // its nap has ended by itself, and it has not looked again
  Worker* robbed = nullptr;     // whom the last stolen job was taken from
  std::uintptr_t help_limit =
      0;  // further down its stack it waits for its jobs without running others
  std::uint32_t careful_takes = 0;  // jobs taken back where a thief has been near
  ThiefMark<StdEnv> mark;           // where it looks into others' deques
  TimerShard* timers = nullptr;
  std::thread thread;
  // What thieves note when they leave the worker its only strand (PARKING.md, P7).
  alignas(kCacheLine) std::atomic<std::uint64_t> looks{0};
  alignas(kCacheLine) WorkerCounters counters;
  alignas(kCacheLine) BasicBed<StdEnv> bed;
};

class WorkStealingMachine {
 public:
  static constexpr std::size_t kMostThreads = 4096;

  WorkStealingMachine(Executor& executor, ExecutorServices& services,
                      const ExecutorOptions& options);
  ~WorkStealingMachine();
  WorkStealingMachine(const WorkStealingMachine&) = delete;
  WorkStealingMachine& operator=(const WorkStealingMachine&) = delete;

  /// The number that an option means; std::invalid_argument.
  static std::size_t wanted_threads(std::size_t option);

  void schedule(Runnable& work) noexcept;
  void schedule_behind(Runnable& work) noexcept;
  void resize(std::size_t threads);
  /// Ends the workers: nothing is live any more.
  void stop() noexcept;

  std::size_t thread_count() const noexcept { return target_.load(std::memory_order_relaxed); }
  void add_stats(ExecutorStats& stats) const;

 private:
  friend struct Worker;
  void schedule_without_room(LocalQueue& queue, Runnable& work) noexcept;
  void attend_to_strand(LocalQueue& queue, std::uint32_t bits) noexcept;
  void inject(Runnable& work) noexcept;
  bool wake(std::uint32_t most) noexcept;
  bool wake_idle(std::uint32_t bits, bool new_work) noexcept;
  static bool attend(LocalQueue* queue) noexcept;

  // Jobs of fork_join: FORK_JOIN.md.
  friend void announce_job(LocalQueue* queue) noexcept;
  friend bool take_back_or_wait(LocalQueue* queue, Job* job) noexcept;
  void wake_for_job() noexcept;
  void wake_waiter() noexcept;
  bool job_in_sight() const noexcept;
  void run_job(Worker& self, Worker& owner, Job* job) noexcept;
  std::uintptr_t steal_job(Worker& self, Worker& victim) noexcept;
  bool help(Worker& self, std::uintptr_t thief, bool& woken) noexcept;
  void wait_for(Worker& self, const Job& job) noexcept;
  void pass_on_from_bed() noexcept;

  void start_workers(std::size_t from, std::size_t to);
  void end_workers(std::size_t from, std::size_t to) noexcept;
  void delete_workers() noexcept;
  void work(Worker& self) noexcept;
  std::uintptr_t next_item(Worker& self) noexcept;
  std::uintptr_t next_item_with_care(Worker& self, bool posts) noexcept;
  std::uintptr_t newest_item(Worker& self) noexcept;
  std::uintptr_t oldest_item(Worker& self) noexcept;
  std::uintptr_t open_oldest(Worker& self, std::uintptr_t bundle) noexcept;
  std::uintptr_t take_from_inbox(Worker& self) noexcept;
  std::uint32_t unmark_inbox() noexcept;
  std::uintptr_t steal(Worker& self) noexcept;
  bool leave_alone(Worker& self, Worker& victim) const noexcept;
  std::uintptr_t search(Worker& self) noexcept;
  std::uint32_t work_in_sight(Worker& self, std::uint32_t enough) const noexcept;
  bool new_work_in_sight(Worker& self) const noexcept;
  std::optional<std::uint64_t> wants_to_be_up(Worker& self) const noexcept;
  void nap(Worker& self) noexcept;
  bool all_sleep_but(std::size_t awake) noexcept;
  void park(Worker& self) noexcept;
  MAGPIE_COLD void trace(TraceEvent::Kind kind, std::uint64_t from_ns) noexcept;
  void pass_on_wake_up(Worker& self) noexcept;
  void execute(Worker& self, std::uintptr_t item) noexcept;
  void housekeeping(Worker& self) noexcept;
  // Whether shows(mark) holds for any thief's: all who steal are workers of this machine. Whoever
  // is not in the list yet has a fence of the start of its thread before its first look.
  template <class Shows>
  bool any_mark(Shows&& shows) const noexcept {
    const std::size_t count = slots_.load(std::memory_order_acquire);  // pairs with start_workers()
    for (std::size_t i = 0; i < count; ++i) {
      const Worker* const worker = workers_[i].load(std::memory_order_acquire);
      if (worker != nullptr && shows(worker->mark)) return true;
    }
    return false;
  }
  void hand_over(Worker& self) noexcept;
  void inject_item(std::uintptr_t item) noexcept;
  bool leaving(const Worker& self) const noexcept;
  void pin(std::size_t index) noexcept;

  Executor& executor_;
  ExecutorServices& services_;
  const std::string name_;
  std::vector<int> cpus_;  // for pinning; empty: not pinned
  std::size_t most_spinners_ = 1;

  alignas(kCacheLine) std::atomic<std::uint32_t> attention_{0};
  alignas(kCacheLine) EventCount<StdEnv> sleepers_;
  alignas(kCacheLine) BasicNappers<StdEnv> nappers_;
  alignas(kCacheLine) BasicJobWaiters<StdEnv> waiters_;
  alignas(kCacheLine) std::atomic<std::uint32_t> spinners_{0};
  InjectionQueue<StdEnv> inbox_;
  alignas(kCacheLine) std::atomic<std::size_t> target_{0};  // workers with a smaller index serve
  std::atomic<std::size_t> slots_{0};                       // workers that exist, serving or not
  std::atomic<std::size_t> running_{0};                     // at least as many as have a thread
  std::unique_ptr<std::atomic<Worker*>[]> workers_;
  std::mutex resize_mutex_;
};

}  // namespace magpie::detail
