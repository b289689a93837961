// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The abstract executor: what coroutines and combinators know of the machine that runs them. The
// templates run, spawn and post are defined in detail/spawn_impl.h, which <magpie/executor.h>
// includes.

#include <concepts>
#include <cstddef>
#include <exception>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/slot.h>
#include <magpie/stats.h>

namespace magpie {

namespace detail {
struct ExecutorAccess;
class ExecutorServices;
class BlockingPool;
class Timers;
class VirtualTime;
}  // namespace detail

/// Runs tasks. The three implementations are WorkStealingExecutor, TbbExecutor and
/// testing::SimulatedExecutor; every combinator works on all of them. Threads: see each member.
/// Destroying one cancels what still runs and waits for it.
class MAGPIE_EXPORT Executor {
 public:
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor();

  /// Runs the node on one of this executor's threads. Never allocates, never fails, any thread.
  virtual void schedule(detail::Runnable& work) noexcept = 0;

  /// The same, behind what is ready: how this_task::yield() goes round.
  virtual void schedule_behind(detail::Runnable& work) noexcept { schedule(work); }

  /// Where this executor takes the time from.
  [[nodiscard]] Clock& clock() const noexcept;

  /// Runs a task (or any awaitable of this library) to its end, blocking the caller; gives its
  /// value or throws what it threw. Other tasks go on after it. std::logic_error on a worker thread
  /// of any executor: `co_await` it there.
  template <class A>
  decltype(auto) run(A&& task);

  /// Starts a task of its own. ExecutorShutdownError after shutdown. Any thread.
  template <class A>
  auto spawn(A&& task, SpawnOptions options);
  template <class A>
  auto spawn(A&& task);

  /// Runs a callable once, fire and forget; what it throws goes to on_unobserved_error.
  /// ExecutorShutdownError after shutdown.
  template <class F>
  requires detail::InvocableOnce<std::decay_t<F>>
  void post(F&& function);

  /// How many threads run tasks.
  [[nodiscard]] virtual std::size_t thread_count() const = 0;
  /// Numbers so far; takes no lock that workers take. Any thread.
  [[nodiscard]] virtual ExecutorStats stats() const;
  /// The tree of live tasks: id, name, state, what each waits for, age; the tasks of a group below
  /// the one whose group it is; and how many posted functions and visiting strands there are
  /// besides. Any thread.
  void dump_tasks(std::ostream& out) const;

 protected:
  explicit Executor(std::unique_ptr<detail::ExecutorServices> services) noexcept;

  detail::ExecutorServices& services() const noexcept { return *services_; }

  /// The end of each executor's own constructor, and what its destructor does before it takes apart
  /// what stats() looks at: between these two, show_all() may ask for that on any thread.
  void is_made() noexcept;
  void is_unmade() noexcept;

  /// Blocks the calling thread until the task is done. The simulated executor runs its tasks here.
  virtual void await_task(detail::TaskRecord& record);
  /// The same for JoinHandle::wait(), which runs nothing: std::logic_error where only run() makes
  /// tasks go on.
  virtual void block_on(detail::TaskRecord& record) { await_task(record); }
  /// Whether the calling thread is one of those that the destructor joins.
  virtual bool on_own_thread() const noexcept;

 private:
  friend struct detail::ExecutorAccess;
  // Owned. No unique_ptr here and in the executors: each takes a compiler as long as this header.
  detail::ExecutorServices* const services_;
  Executor* older_;  // of the list for show_all(), under its lock, as what follows
  Executor* newer_ = nullptr;
  bool made_ = false;
};

namespace detail {

/// What the library itself asks of an executor.
struct MAGPIE_EXPORT ExecutorAccess {
  static ExecutorServices& services(const Executor& executor) noexcept {
    return *executor.services_;
  }
  static Timers& timers(const Executor& executor) noexcept;
  static BlockingPool& blocking(const Executor& executor) noexcept;
  static VirtualTime* virtual_time(const Executor& executor) noexcept;

  /// The last that an executor hears of a task.
  static void retire(Executor& executor, SlotState outcome) noexcept;
  /// Accounts for a posted function; throws ExecutorShutdownError.
  static void admit_post(Executor& executor);
  static void retire_post(Executor& executor) noexcept;
  static void unobserved(Executor& executor, std::string_view name,
                         std::exception_ptr error) noexcept;
  static void await_task(Executor& executor, TaskRecord& record) { executor.await_task(record); }
  static void block_on(Executor& executor, TaskRecord& record) { executor.block_on(record); }
  static bool on_own_thread(const Executor& executor) noexcept { return executor.on_own_thread(); }
  /// For a watchdog, or to be called from a debugger: the tasks, workers and queues of every
  /// executor there is; of one that is just being made, or whose tasks have all ended and that is
  /// being destroyed, the tasks alone. Any thread; blocks while an executor enters or leaves the
  /// list.
  static void show_all(std::ostream& out);
  /// Between these two the executor is not destroyed: for threads that are not its own.
  static void enter(Executor& executor) noexcept;
  static void leave(Executor& executor) noexcept;
};

/// Virtual time stands still while a strand of the executor's tasks is on another executor. A
/// strand is counted when it leaves its task's own executor, and again when it comes back or ends
/// elsewhere.
MAGPIE_EXPORT void note_strand_moves(Executor& home, const Executor* from,
                                     const Executor* to) noexcept;
MAGPIE_EXPORT void note_task_ended_abroad(Executor& home) noexcept;

/// Around the step that takes a strand home from wherever it has ended: to `home`, where its parent
/// goes on. That step may end the task, and virtual time must not move before it.
class MAGPIE_EXPORT ComingHome {
 public:
  ComingHome(const Scope& scope, Executor& home) noexcept;
  ~ComingHome();
  ComingHome(const ComingHome&) = delete;
  ComingHome& operator=(const ComingHome&) = delete;

 private:
  Executor& home_;
  Executor& own_;
  Executor& here_;
};

/// Throws std::logic_error if the calling thread works for an executor: `what` may not be called
/// there.
MAGPIE_EXPORT void refuse_on_worker(const char* what);

}  // namespace detail
}  // namespace magpie
