// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <sstream>
#include <utility>

#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_services.h>
#include <magpie/detail/join.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/scope_visit.h>
#include <magpie/detail/task_record.h>
#include <magpie/testing/simulated_executor.h>

namespace magpie::testing {

using magpie::detail::BasicCancelEffects;
using magpie::detail::Continuation;
using magpie::detail::current_executor;
using magpie::detail::EndSink;
using magpie::detail::ExecutorServices;
using magpie::detail::ExecutorThreadScope;
using magpie::detail::forget_locals;
using magpie::detail::Fork;
using magpie::detail::Join;
using magpie::detail::OperationBase;
using magpie::detail::PromiseBase;
using magpie::detail::ReasonRef;
using magpie::detail::Scope;
using magpie::detail::ScopeVisit;
using magpie::detail::SlotBase;
using magpie::detail::SlotState;
using magpie::detail::StdEnv;
using magpie::detail::TaskRecord;
using magpie::detail::thread_state;
using magpie::detail::Waiter;

ExplorationError::ExplorationError(std::uint64_t seed, const std::string& failure)
    : std::runtime_error("the schedule of seed " + std::to_string(seed) + " failed: " + failure +
                         " (replay it with MAGPIE_SEED=" + std::to_string(seed) + ")"),
      seed_(seed) {}

namespace {

ExecutorOptions simulated_options() {
  ExecutorOptions options;
  options.name = "simulated";
  options.threads = 1;
  return options;
}

using PromiseHandle = std::coroutine_handle<PromiseBase>;

// Every compiler's noop coroutine is resumed and destroyed by one function, and no other coroutine
// is; there may be several of them in a program, so their addresses tell nothing.
bool is_noop(std::coroutine_handle<> coroutine) noexcept {
  void* const* const frame = static_cast<void* const*>(coroutine.address());
  return frame[0] == frame[1];
}

}  // namespace

SimulatedExecutor::SimulatedExecutor(std::uint64_t seed)
    : Executor(std::make_unique<ExecutorServices>(simulated_options(), simulated_time)),
      seed_(seed),
      random_(seed) {
  simulated_time.set_auto_advance(false);  // run() moves it
  services().blocking.run_inline();
  is_made();
}

SimulatedExecutor::~SimulatedExecutor() {
  if (current_executor() == this) {
    std::fputs(
        "magpie: a SimulatedExecutor was destroyed by one of its own tasks, which it would have to "
        "wait for: destroy it elsewhere\n",
        stderr);
    std::terminate();
  }
  {
    const ExecutorThreadScope here(this, nullptr);
    std::exception_ptr deadlock;
    try {
      end_what_runs(deadlock);
    } catch (...) {
      // No memory for the description of a deadlock; what can be ended has ended.
    }
    // Left are strands of other executors that visit this one.
    int rounds = 0;
    while (services().live() != 0) {
      drive([this] { return services().live() == 0; });
      std::unique_lock lock(mutex_);
      scheduled_.wait_for(lock, std::chrono::milliseconds(1),
                          [this] { return new_work_ != nullptr; });
      lock.unlock();
      if (++rounds == 10'000) {
        std::cerr << "magpie: a SimulatedExecutor's destructor has been waiting for 10 s for "
                     "strands that do not leave:\n";
        dump_tasks(std::cerr);
      }
    }
  }
  services().shutdown(Duration(), true);
  services().wait_for_entrants();
  is_unmade();
}

ExecutorStats SimulatedExecutor::stats() const {
  ExecutorStats stats = Executor::stats();
  stats.total.tasks_run = steps();
  return stats;
}

bool SimulatedExecutor::on_own_thread() const noexcept {
  return current_executor() == this;
}

// --- work ----------------------------------------------------------------------------------------

void SimulatedExecutor::schedule(Runnable& work) noexcept {
  const bool visitor = !on_own_thread();
  if (visitor) services().enter();
  {
    std::lock_guard guard(mutex_);
    work.next = nullptr;
    *new_work_end_ = &work;
    new_work_end_ = &work.next;
    scheduled_.notify_all();
  }
  if (visitor) services().leave();
}

// In the order in which it came, so that a seed means the same each time.
void SimulatedExecutor::admit_new_work() noexcept {
  {
    std::lock_guard guard(mutex_);
    if (new_work_ != nullptr) {
      *waiting_end_ = new_work_;
      waiting_end_ = new_work_end_;
      new_work_ = nullptr;
      new_work_end_ = &new_work_;
    }
  }
  while (waiting_for_room_ != nullptr) {
    if (ready_.size() == ready_.capacity()) {
      try {
        ready_.reserve(2 * ready_.size() + 64);
      } catch (...) {
        return;  // step() does without
      }
    }
    Runnable* const work = waiting_for_room_;
    waiting_for_room_ = work->next;
    if (waiting_for_room_ == nullptr) waiting_end_ = &waiting_for_room_;
    ready_.push_back(work);
  }
}

bool SimulatedExecutor::step() noexcept {
  admit_new_work();
  Runnable* work;
  if (!ready_.empty()) {
    const auto chosen = static_cast<std::size_t>(random_.below(ready_.size()));
    work = std::exchange(ready_[chosen], ready_.back());
    ready_.pop_back();
  } else if (waiting_for_room_ != nullptr) {
    work = waiting_for_room_;
    waiting_for_room_ = work->next;
    if (waiting_for_room_ == nullptr) waiting_end_ = &waiting_for_room_;
  } else {
    return false;
  }
  steps_.fetch_add(1, std::memory_order_relaxed);
  work->run();
  magpie::detail::forget_locals();
  return true;
}

// True: there are some, and something may have happened. A strand that ends elsewhere does not say
// so here, hence the short wait.
bool SimulatedExecutor::wait_for_strands() noexcept {
  if (simulated_time.virtual_time().visitors() == 0) return false;
  std::unique_lock lock(mutex_);
  scheduled_.wait_for(lock, std::chrono::milliseconds(1), [this] { return new_work_ != nullptr; });
  return true;
}

bool SimulatedExecutor::to_next_timer() noexcept {
  const std::int64_t next = services().timers.earliest();
  if (next == magpie::detail::kNeverNs) return false;
  simulated_time.advance(time_until(magpie::detail::from_ns(next), simulated_time.now()));
  return true;
}

// Until `over()`; false if nothing can ever run again.
template <class Over>
bool SimulatedExecutor::drive(Over over) noexcept {
  for (;;) {
    if (over()) return true;
    if (between_steps_) between_steps_();
    if (!step() && !wait_for_strands() && !to_next_timer()) return false;
  }
}

// --- run -----------------------------------------------------------------------------------------

void SimulatedExecutor::block_on(TaskRecord& record) {
  if (record.done()) return;
  throw std::logic_error(
      "wait() would never return: the tasks of a SimulatedExecutor make progress inside its run() "
      "only. Await the handle in the "
      "task that is run, or ask result() when run() has returned");
}

void SimulatedExecutor::await_task(TaskRecord& record) {
  if (running_.exchange(true, std::memory_order_acq_rel)) {
    throw std::logic_error(
        "run() was called while another thread is in run(): a SimulatedExecutor has one thread, so "
        "call them one after the other");
  }
  struct Running {
    ~Running() { flag.store(false, std::memory_order_release); }  // pairs with the exchange above
    std::atomic<bool>& flag;
  };
  std::exception_ptr deadlock;
  {
    const Running running{running_};
    const ExecutorThreadScope here(this, nullptr);
    if (!drive([&record] { return record.done(); })) deadlock = describe_deadlock();
    end_what_runs(deadlock);
  }
  if (!deadlock) return;
  const std::exception_ptr own = record.done() ? record.error() : nullptr;
  if (own == nullptr || own == deadlock) std::rethrow_exception(deadlock);
  // The task has failed, and what it left behind cannot end: neither hides the other.
  try {
    std::rethrow_exception(own);
  } catch (...) {
    std::throw_with_nested(DeadlockError(magpie::detail::describe(deadlock)));
  }
}

// Cancels and awaits everything. `deadlock` is set if that cannot be done, unless it was set
// before.
void SimulatedExecutor::end_what_runs(std::exception_ptr& deadlock) {
  const auto nothing_lives = [this] { return services().live() == 0; };
  if (nothing_lives()) return;
  services().cancel_all(ReasonRef::of_kind(CancelKind::shutdown));
  while (!drive(nothing_lives)) {
    bool own_tasks = false;
    services().for_each_task([&](TaskRecord&) { own_tasks = true; });
    if (!own_tasks) break;  // strands of other executors may stay
    if (!deadlock) deadlock = describe_deadlock();
    if (!destroy_what_waits(deadlock)) break;
  }
  services().reopen();
}

std::exception_ptr SimulatedExecutor::describe_deadlock() const {
  std::ostringstream text;
  text << "deadlock: nothing can ever run again, as no task is ready and no timer is set, but not "
          "everything has ended. ";
  dump_tasks(text);
  return std::make_exception_ptr(DeadlockError(std::move(text).str()));
}

// --- the end by force ----------------------------------------------------------------------------
//
// Nothing is ready, no timer is set, no strand is elsewhere, and everything has been cancelled:
// each strand is suspended at a leaf that a mask hides. First every leaf is claimed, so that nobody
// can complete one any more, and leaves its primitive. Then their coroutines are destroyed, and
// after each the one that it would have resumed: the awaiting coroutine, the parent of a join when
// the last child hands in its unit, the parent of a block when its last task has ended. Scopes
// leave their parents in their destructors. What destructors of locals set free is run as usual,
// but whatever it would resume is destroyed, too.

bool SimulatedExecutor::destroy_what_waits(const std::exception_ptr& error) noexcept {
  bool destroyed = false;
  thread_state()->divert = [](std::coroutine_handle<> coroutine) noexcept {
    static_cast<SimulatedExecutor*>(current_executor())->doom(coroutine);
  };
  for (;;) {
    BasicCancelEffects<StdEnv> claimed;
    services().for_each_task(
        [&](TaskRecord& record) { ScopeVisit::claim_behind_masks(record.root(), claimed); });
    // What waits for something foreign comes last and singly: a destructor may resume the next one,
    // which then comes home through the queue and is destroyed there.
    if (claimed.waiters == nullptr) {
      services().for_each_task(
          [&](TaskRecord& record) { ScopeVisit::claim_one_shown(record.root(), claimed); });
    }
    if (claimed.waiters == nullptr) break;
    destroyed = true;
    const auto is_awaited = [](const Waiter& waiter) {
      return static_cast<const OperationBase&>(waiter).is_awaited();
    };
    for (Waiter* w = claimed.waiters; w != nullptr; w = w->scope_next) {
      if (is_awaited(*w)) static_cast<OperationBase*>(w)->abandon();
    }
    for (Waiter* w = claimed.waiters; w != nullptr;) {
      Waiter* const next = w->scope_next;  // read first: the frames go below
      if (is_awaited(*w)) {
        doom(static_cast<OperationBase*>(w)->awaiting());
      } else {
        w->scope_next = nullptr;  // no row: it ends by itself
        schedule(*w);  // a child without a frame: it leaves by itself, and delivers its unit
      }
      w = next;
    }
    do {
      while (step()) {
      }  // what is scheduled leaves its primitive before frames go that may hold it
      destroy_doomed(error);
    } while (step() || doomed_ != nullptr);
  }
  thread_state()->divert = nullptr;
  return destroyed;
}

void SimulatedExecutor::doom(std::coroutine_handle<> coroutine) noexcept {
  if (is_noop(coroutine)) return;
  // The outcome will not be delivered: the pointer to its place links the list.
  PromiseBase& promise = PromiseHandle::from_address(coroutine.address()).promise();
  promise.slot = static_cast<SlotBase*>(doomed_);
  doomed_ = coroutine.address();
}

void SimulatedExecutor::destroy_doomed(const std::exception_ptr& error) noexcept {
  while (doomed_ != nullptr) {
    const PromiseHandle coroutine = PromiseHandle::from_address(doomed_);
    doomed_ = coroutine.promise().slot;
    const Continuation continuation = coroutine.promise().continuation;
    forget_locals();  // an end that was told before may have left a note of what
                      // goes now
    coroutine.destroy();
    if (continuation.is_coroutine()) {
      doom(continuation.coroutine());
    } else if (continuation.is_rec()) {
      const Fork* const rec = continuation.rec();
      Join* const join = rec->join;
      const std::uint32_t units = rec->carry + 1;
      if (units == join->units || join->counter.deliver(units)) doom(join->parent);
    } else if (continuation.is_task()) {
      continuation.task()->end_by_force(error);
    } else {
      EndSink* const sink = continuation.sink();
      doom(sink->ended(sink, SlotState::empty));
    }
  }
}

// --- explore -------------------------------------------------------------------------------------

namespace detail {
namespace {

bool seed_from_environment(std::uint64_t& seed) {
  const char* const text = std::getenv("MAGPIE_SEED");
  if (text == nullptr || text[0] == '\0') return false;
  char* end = nullptr;
  errno = 0;
  seed = std::strtoull(text, &end, 10);
  if (errno != 0 || *end != '\0' || text[0] < '0' || text[0] > '9') {
    throw std::invalid_argument("MAGPIE_SEED is \"" + std::string(text) +
                                "\", which is no seed: give a whole number, or unset it");
  }
  return true;
}

void try_schedule(std::uint64_t seed, const std::function<void(SimulatedExecutor&)>& fn) {
  try {
    SimulatedExecutor executor(seed);
    fn(executor);
  } catch (...) {
    std::throw_with_nested(
        ExplorationError(seed, magpie::detail::describe(std::current_exception())));
  }
}

}  // namespace

void explore(std::size_t schedules, const std::function<void(SimulatedExecutor&)>& fn) {
  std::uint64_t seed = 0;
  if (seed_from_environment(seed)) return try_schedule(seed, fn);
  for (seed = 1; seed <= schedules; ++seed) try_schedule(seed, fn);
}

}  // namespace detail
}  // namespace magpie::testing
