// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// TbbExecutor: the same tasks on a tbb::task_arena, so that a service that already uses oneTBB does
// not oversubscribe its cores.
//
//     tbb::task_arena arena(8);
//     TbbExecutor executor(arena);
//     executor.run(work());
//
// Ready work waits in one queue; the arena's threads take from it in turns, giving way to the
// arena's other work in between. Any thread that waits inside oneTBB may run tasks. Forks are
// queued, not kept in a deque of the worker's own: WorkStealingExecutor is the faster home for
// fine-grained fork-join. Everything but resize() works as there.
//
// Link magpie::tbb. Threads: as WorkStealingExecutor. An arena that was given must outlive the
// executor.

#include <cstddef>
#include <memory>

#include <oneapi/tbb/task_arena.h>

#include <magpie/config.h>
#include <magpie/executor.h>

namespace magpie {

namespace detail {
class TbbMachine;
}

class MAGPIE_EXPORT TbbExecutor final : public Executor {
 public:
  /// On an arena of its own with options.threads slots; oneTBB is asked to allow that many workers.
  /// pin_threads is not supported: std::invalid_argument, as for options out of range.
  explicit TbbExecutor(ExecutorOptions options = {});
  /// On the given arena, which decides how many threads there are.
  explicit TbbExecutor(tbb::task_arena& arena, ExecutorOptions options = {});
  /// As WorkStealingExecutor's.
  ~TbbExecutor() override;

  void schedule(detail::Runnable& work) noexcept override;
  [[nodiscard]] std::size_t thread_count() const override;
  /// In total only: which of oneTBB's threads did what, and when they sleep, is oneTBB's business,
  /// so `workers` is empty.
  [[nodiscard]] ExecutorStats stats() const override;

  /// As WorkStealingExecutor's.
  ShutdownReport shutdown(Duration drain);

 private:
  std::unique_ptr<detail::TbbMachine> machine_;
};

}  // namespace magpie
