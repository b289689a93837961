// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The executor: worker threads with a deque each, which steal from one another.
//
//     WorkStealingExecutor executor({.threads = 4});
//     int x = executor.run(work());
//
// Forks are served newest first by the worker that made them and oldest first by thieves; work from
// outside comes through an injection queue; now and then a worker takes its own oldest item, so
// nothing starves. An idle pool sleeps. Each algorithm has its page: executor/DEQUE.md, PARKING.md,
// JOIN.md, SHUTDOWN.md.
//
// Threads: run, resize and shutdown from any thread that does not run tasks; everything else from
// any thread. A task that is cancelled by the destructor sees CancelKind::shutdown.
//
// fork(): the child has none of the workers, and perhaps locks that they held. It must not use or
// destroy an executor of its parent's, nor end through exit() where one is static: exec or _exit.
// Executors that it makes itself, in a parent that had none, are its own.

#include <concepts>
#include <cstddef>
#include <memory>
#include <utility>

#include <magpie/config.h>
#include <magpie/executor.h>

namespace magpie {

namespace detail {
class WorkStealingMachine;
}

class MAGPIE_EXPORT WorkStealingExecutor final : public Executor {
 public:
  /// Starts the workers. std::invalid_argument for options out of range, a ManualClock that is
  /// taken, or a MAGPIE_THREADS that is no number; std::system_error if a thread cannot be started:
  /// then nothing is left running.
  explicit WorkStealingExecutor(ExecutorOptions options = {});

  /// Cancels what still runs (CancelKind::shutdown), waits for it, joins the threads. After 10 s of
  /// waiting it prints what is left to stderr. On a worker of its own it ends the program with a
  /// message.
  ~WorkStealingExecutor() override;

  void schedule(detail::Runnable& work) noexcept override;
  void schedule_behind(detail::Runnable& work) noexcept override;

  [[nodiscard]] std::size_t thread_count() const override;
  [[nodiscard]] ExecutorStats stats() const override;

  /// Changes the number of workers, also under load; 0: available_parallelism(). Returns when the
  /// new number serves: surplus workers finish their current piece of work, hand over their queue
  /// and leave. std::invalid_argument above 4096, std::logic_error on a worker thread,
  /// std::system_error if a thread cannot be started (the number is then as before).
  void resize(std::size_t threads);

  /// Refuses work from outside, waits up to `drain` (in this executor's time; tasks may still
  /// spawn), cancels the rest and waits for it. Gives how many spawned tasks ended since the call.
  /// Later calls return {0, 0}. std::logic_error on a worker thread.
  ShutdownReport shutdown(Duration drain);

 private:
  detail::WorkStealingMachine* machine_ = nullptr;  // owned
};

/// Runs one task on an executor of its own, like asyncio.run. What it spawned is cancelled when it
/// has ended.
template <detail::Awaitable A>
decltype(auto) run(A&& task, ExecutorOptions options = {}) {
  WorkStealingExecutor executor(std::move(options));
  return executor.run(std::forward<A>(task));
}

}  // namespace magpie
