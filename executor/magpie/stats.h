// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an executor counts: plain numbers, read while it runs.
//
// Each number is written by one thread and read without a lock; a snapshot is not taken at one
// instant, so sums may be off by what happened while they were read.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <magpie/config.h>

namespace magpie {

/// What one worker has done since it started.
struct WorkerStats {
  std::uint64_t tasks_run = 0;       ///< pieces of work taken up by the worker's loop
  std::uint64_t local_pops = 0;      ///< of these, from its own deque
  std::uint64_t steals_tried = 0;    ///< looks into another worker's deque
  std::uint64_t steals_won = 0;      ///< of these, with a find
  std::uint64_t injected = 0;        ///< pieces that came from outside through the injection queue
  std::uint64_t parks = 0;           ///< times it went to sleep
  std::uint64_t wakeups = 0;         ///< times it was woken (not by its own timer)
  std::chrono::nanoseconds busy{0};  ///< time not spent asleep
  std::chrono::nanoseconds idle{0};  ///< time asleep
  std::size_t queue_depth = 0;       ///< items in its deque now; many children of a range are few
};

/// What an executor has done, in total and by worker.
struct ExecutorStats {
  WorkerStats total;
  std::vector<WorkerStats> workers;
  std::size_t live_tasks = 0;      ///< spawned and not ended
  std::size_t pending_timers = 0;  ///< sleeps and timeouts not yet due
  std::uint64_t heavy_fences = 0;  ///< process-wide membarrier calls
};

/// What shutdown() saw: tasks that ended since it was called. A task is counted a moment after its
/// handle is done, so one whose handle was done just before the call may be among them.
struct ShutdownReport {
  std::size_t completed = 0;  ///< with a value or an error
  std::size_t cancelled = 0;
};

/// The numbers in Prometheus' text format (version 0.0.4), as an HTTP handler gives them to a
/// scrape: counters and gauges whose names begin with magpie_, one sample a worker where they are
/// counted by worker (their sums are not repeated), times in seconds. `executor` is put into a
/// label of that name, so that several executors of a process can be told apart; empty: there is no
/// such label.
MAGPIE_EXPORT std::string to_prometheus(const ExecutorStats& stats, std::string_view executor = {});

}  // namespace magpie
