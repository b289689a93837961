// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What every executor has, whatever runs its tasks: the registry of live tasks, their count,
// timers, the pool for blocking calls, and the phases of its end. Page: executor/SHUTDOWN.md.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/blocking_pool.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/lifecycle.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/task_record.h>
#include <magpie/detail/timers.h>
#include <magpie/detail/trace_log.h>
#include <magpie/executor_options.h>
#include <magpie/manual_clock.h>
#include <magpie/stats.h>

namespace magpie::detail {

// The table lists live tasks, and leads from each to its executor.
struct alignas(kCacheLine) RegistryShard : BasicLifeShard<StdEnv>, TaskRegistry::Table {
  SpinLock<StdEnv> lock;        // of those who list tasks here; not taken where it is one's own
  SpinLock<StdEnv> trace_lock;  // of this shard of a recorder's log
  Executor* executor = nullptr;
  std::atomic<std::uint64_t> completed{
      0};  // of the spawned tasks that ended, those with a value or an error
  std::atomic<std::uint64_t> cancelled{0};
  std::atomic<std::uint64_t> others_started{
      0};  // of what started: posted functions, and strands of other executors
  std::atomic<std::uint64_t> others_ended{0};
};

/// The calling thread's own, if it is a worker of this executor; or null.
inline RegistryShard* own_shard(const Executor& executor) noexcept {
  const LocalQueue* const queue = local_queue();
  return queue != nullptr && queue->executor == &executor ? queue->shard : nullptr;
}

class MAGPIE_EXPORT ExecutorServices {
 public:
  ExecutorServices(const ExecutorOptions& options, Clock& clock);
  ~ExecutorServices();
  /// Before anything is spawned.
  void serve(Executor& executor) noexcept;

  // --- tasks -------------------------------------------------------------------------------------
  /// Takes a new task in and schedules its node; throws ExecutorShutdownError. `queue`: the calling
  /// thread's, or null.
  void admit(Executor& executor, TaskRecord& record, Runnable& node, LocalQueue* queue);
  /// It ends: nobody finds it here any more.
  void unlist(TaskRegistry::Place* place, RegistryShard* own) noexcept {
    registry_.unlist(place, own);
  }
  /// It has ended. `own`: the shard of the calling thread, if it is a worker of this executor.
  void retire(SlotState outcome, RegistryShard* own) noexcept {
    RegistryShard& here = own != nullptr ? *own : shard_here();
    life_.raise(outcome == SlotState::cancelled ? here.cancelled : here.completed, own != nullptr);
    life_.end(here, own != nullptr);
  }
  void admit_post(Executor& executor);
  void retire_post(RegistryShard* own) noexcept;
  void dump(std::ostream& out) const;
  // For stats() and dumps: the numbers are not from one instant.
  std::uint64_t live_tasks() const noexcept;
  std::uint64_t live_others() const noexcept;  // posted functions, strands that visit
  std::uint64_t live() const noexcept {
    return life_.live();
  }  // tasks and posted functions that have not ended
  void unobserved(std::string_view name, std::exception_ptr error) noexcept;
  CountedHandler* handler() const noexcept { return handler_; }
  /// A shard for a thread that the executor has to itself; std::bad_alloc.
  RegistryShard& make_own_shard();

  // --- the end -----------------------------------------------------------------------------------
  ShutdownReport shutdown(Duration drain, bool destructor);
  void cancel_all(const ReasonRef& reason) noexcept;
  /// For an executor that cancels what a run() has left over, and goes on: undoes the closing of
  /// cancel_all().
  void reopen() noexcept { life_.set_phase(Phase::open); }
  /// Calls fn(TaskRecord&) for every live task; it stays meanwhile, but may have ended.
  template <class F>
  void for_each_task(F&& fn) const {
    life_.for_each_shard([&](const RegistryShard& shard) { registry_.for_each(shard, fn); });
  }
  /// Waits until nothing is live; false if `stop_waiting` rose before. A dump goes to stderr after
  /// ten seconds if asked.
  bool wait_idle(const std::atomic<bool>* stop_waiting, bool dump_when_slow);
  void poke() noexcept { life_.poke(); }

  // Around each visit of a thread that is not the executor's own, which may bring the work that
  // ends it.
  void enter() noexcept { life_.enter(shard_here()); }
  void leave() noexcept { life_.leave(shard_here()); }
  void wait_for_entrants() noexcept { life_.wait_for_entrants(); }

  VirtualTime* virtual_time() const noexcept { return virtual_time_; }

  // --- tracing -----------------------------------------------------------------------------------
  /// Whether it is worth calling trace(). Relaxed: a hint.
  bool tracing() const noexcept { return trace_.load(std::memory_order_relaxed) != nullptr; }
  MAGPIE_COLD void trace(TraceEvent event) noexcept;
  MAGPIE_COLD void trace_task(TraceEvent::Kind kind, const TaskRecord& record) noexcept;
  void attach(std::shared_ptr<TraceLog> log);
  void detach() noexcept;

  static constexpr std::size_t kShards = 32;

  Clock& clock;
  const bool steady;  // the clock is the system's
  Timers timers;
  BlockingPool blocking;

 private:
  [[noreturn]] MAGPIE_COLD static void throw_shut_down();
  void end_trace() noexcept;
  MAGPIE_NOINLINE RegistryShard& shard_here() const noexcept;
  // A1 and L1; `kOwn`: the shard is the calling thread's.
  template <bool kOwn>
  void take_in(Executor& executor, TaskRecord& record, RegistryShard& shard);
  void admit_from_elsewhere(Executor& executor, TaskRecord& record, Runnable& node);

  VirtualTime* const virtual_time_;
  Executor* executor_ = nullptr;
  CountedHandler* handler_ = nullptr;
  std::unique_ptr<RegistryShard[]> shards_;
  std::vector<std::unique_ptr<RegistryShard>> own_shards_;  // under own_shards_mutex_
  std::mutex own_shards_mutex_;
  TaskRegistry registry_;
  BasicLifecycle<StdEnv, RegistryShard> life_;
  std::mutex shutdown_mutex_;
  std::atomic<TraceLog*> trace_{nullptr};
  std::mutex trace_mutex_;  // of trace_owner_
  std::shared_ptr<TraceLog> trace_owner_;
};

template <bool kOwn>
MAGPIE_ALWAYS_INLINE void ExecutorServices::take_in(Executor& executor, TaskRecord& record,
                                                    RegistryShard& shard) {
  if (!life_.admit(shard, kOwn || current_executor() == &executor, kOwn)) [[unlikely]]
    throw_shut_down();
  if constexpr (kOwn) {
    record.place_ = shard.list(record);
  } else {
    std::lock_guard guard(shard.lock);
    record.place_ = shard.list(record);
  }
  if (record.place_ == nullptr) [[unlikely]] {
    life_.end(shard, kOwn);
    throw_no_memory();
  }
  if (tracing()) [[unlikely]]
    trace_task(TraceEvent::Kind::task_begins, record);
  // With the heavy one of the sweep in cancel_all(): that finds the record in its place, or this
  // finds the phase that was set before.
  StdEnv::light_fence();
  if (life_.phase() == Phase::cancelling) [[unlikely]]
    record.cancel(ReasonRef::of_kind(CancelKind::shutdown));
}

MAGPIE_ALWAYS_INLINE void ExecutorServices::admit(Executor& executor, TaskRecord& record,
                                                  Runnable& node, LocalQueue* queue) {
  if (queue == nullptr || queue->executor != &executor || queue->shard == nullptr) [[unlikely]]
    return admit_from_elsewhere(executor, record, node);
  take_in<true>(executor, record, *queue->shard);
  if (queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(&node))) [[likely]] {
    queue->wanted();
    return;
  }
  executor.schedule(node);
}

}  // namespace magpie::detail
