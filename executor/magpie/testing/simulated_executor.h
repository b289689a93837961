// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// SimulatedExecutor: one thread, virtual time, and the next ready piece of work chosen by a seeded
// generator. Equal seeds give equal runs; other seeds give other orders. For tests of code that
// must be right in every order:
//
//     testing::explore(1000, [](testing::SimulatedExecutor& executor) {
//       Account account;
//       executor.run(transfer_both_ways(account));
//       if (account.sum() != 100) throw std::runtime_error("money was lost");
//     });
//
// It is not a scheduler for production, and it explores orders of whole steps only (a step ends
// where a task suspends): data races within a step are ThreadSanitizer's.
//
// Everything happens inside run(), on the calling thread. Time moves only when nothing is ready,
// straight to the next timer. to_thread() runs its function inline, within the step that awaits it.
// When a run's task has ended, what still runs is cancelled and awaited; what is spawned or posted
// outside run() is kept for the next one.
//
// When nothing can ever run again, run() throws DeadlockError with the live tasks in what().
// Before, everything is cancelled; what cannot be cancelled, because it is masked, has its frames
// destroyed where they wait, the innermost first, and their handles end with the same error. Locals
// are destroyed in order; catch handlers do not run.
//
// Threads: schedule, spawn, post, cancel and what leads to them may come from other threads; the
// simulator does not wait for them (it does wait for its own strands that visit another executor),
// and what they do is not reproducible. A foreign awaitable whose frame was destroyed in a deadlock
// must not be resumed afterwards.

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/random.h>
#include <magpie/executor.h>
#include <magpie/manual_clock.h>

namespace magpie::testing {

/// Nothing can ever run again; what() shows the tasks that waited.
class MAGPIE_EXPORT DeadlockError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// A schedule that explore() found to fail. The failure is nested in it.
class MAGPIE_EXPORT ExplorationError : public std::runtime_error {
 public:
  ExplorationError(std::uint64_t seed, const std::string& failure);
  /// Run it again: SimulatedExecutor(seed), or MAGPIE_SEED=<seed> in the environment of explore().
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }

 private:
  std::uint64_t seed_;
};

namespace detail {
/// The clock has to exist before the executor and after it.
struct SimulatedTime {
  ManualClock simulated_time;
};
}  // namespace detail

class MAGPIE_EXPORT SimulatedExecutor final : private detail::SimulatedTime, public Executor {
 public:
  explicit SimulatedExecutor(std::uint64_t seed = 0);
  /// Tasks that were spawned and never run are cancelled, posted functions are called. Inside
  /// run(): ends the program.
  ~SimulatedExecutor() override;

  /// From any thread.
  void schedule(magpie::detail::Runnable& work) noexcept override;

  [[nodiscard]] std::size_t thread_count() const override { return 1; }
  [[nodiscard]] ExecutorStats stats() const override;

  /// How many pieces of work have been run so far.
  [[nodiscard]] std::uint64_t steps() const noexcept {
    return steps_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }

  /// Calls fn, on the simulating thread, before every step and before the clock moves: at each
  /// moment at which all tasks are suspended or ready. For tests that do something at the k-th such
  /// moment, for every k: cancel, set an event, look whether an invariant holds. It may do what any
  /// thread may, to this executor too; what it makes ready is among what is chosen from next. A
  /// throw out of it ends the program. An empty function ends it. Not to be called within fn, or
  /// with run() in progress on another thread.
  void between_steps(std::function<void()> fn) { between_steps_ = std::move(fn); }

 protected:
  void await_task(magpie::detail::TaskRecord& record) override;
  void block_on(magpie::detail::TaskRecord& record) override;
  bool on_own_thread() const noexcept override;

 private:
  using Runnable = magpie::detail::Runnable;

  void admit_new_work() noexcept;
  bool step() noexcept;
  bool wait_for_strands() noexcept;
  bool to_next_timer() noexcept;
  template <class Over>
  bool drive(Over over) noexcept;
  void end_what_runs(std::exception_ptr& deadlock);
  std::exception_ptr describe_deadlock() const;

  bool destroy_what_waits(const std::exception_ptr& error) noexcept;
  void doom(std::coroutine_handle<> coroutine) noexcept;
  void destroy_doomed(const std::exception_ptr& error) noexcept;

  const std::uint64_t seed_;
  magpie::detail::Random random_;
  std::atomic<std::uint64_t> steps_{0};
  std::atomic<bool> running_{false};

  std::mutex mutex_;
  std::condition_variable scheduled_;
  Runnable* new_work_ = nullptr;  // these two under mutex_
  Runnable** new_work_end_ = &new_work_;

  // The simulating thread's own.
  Runnable* waiting_for_room_ = nullptr;  // ready, and not yet in the vector
  Runnable** waiting_end_ = &waiting_for_room_;
  std::vector<Runnable*> ready_;
  std::function<void()> between_steps_;
  void* doomed_ = nullptr;  // coroutines to destroy, linked through their promises
};

namespace detail {
MAGPIE_EXPORT void explore(std::size_t schedules,
                           const std::function<void(SimulatedExecutor&)>& fn);
}

/// Calls fn with a fresh SimulatedExecutor for the seeds 1 to n. The first call that throws ends
/// it: ExplorationError with the seed, and the failure nested in it and in what().
/// MAGPIE_SEED=<number> in the environment replays just that seed; std::invalid_argument if it is
/// no number. What fn returns is dropped.
template <class F>
requires std::invocable<F&, SimulatedExecutor&>
void explore(std::size_t schedules, F&& fn) {
  static_assert(!magpie::detail::Lazy<std::invoke_result_t<F&, SimulatedExecutor&>>,
                "explore() takes a plain function, not a coroutine, which nobody would run: call "
                "executor.run(task) in it");
  detail::explore(schedules, [&fn](SimulatedExecutor& executor) {
    static_cast<void>(std::invoke(fn, executor));
  });
}

}  // namespace magpie::testing
