// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// wait: waits for some of several started tasks, and tells which are done.
//
//     auto [done, pending] = co_await wait(handles, ReturnWhen::first_completed, 3s);
//     for (auto& handle : done) use(handle.result());
//     for (auto& handle : pending) handle.cancel();
//
//   first_completed  until one has ended, however
//   first_exception  until one has failed (a cancelled one does not count), or all have ended
//   all_completed    until all have ended, whatever with
//
// It waits and does nothing else: a timeout is no error, nothing is cancelled, no result is taken,
// and an error that nobody asks a handle for stays one that nobody has seen. Who is done is asked
// when the wait is over: there may be more than the one that ended it. A timeout of nothing looks
// once round, as yield() does.
//
// It is not a race: the tasks have been started, belong to others, and go on.
//
// Cancellation point; cancelling it ends the wait alone. If what it waits for has come, it returns
// that, and the cancellation stays pending. Starts when awaited, resumes where it was awaited. No
// handles: std::invalid_argument. An empty handle: InvalidStateError. The handle of the very task
// that waits: std::logic_error. It costs one node a handle that is not done.

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/children.h>
#include <magpie/detail/task_record.h>
#include <magpie/join_handle.h>
#include <magpie/timeout.h>

namespace magpie {

/// When wait() returns.
enum class ReturnWhen : std::uint8_t { first_completed, first_exception, all_completed };

/// What wait() gives: both in the order of the input, with every handle as often as it was given.
template <class T>
struct WaitResult {
  std::vector<JoinHandle<T>> done;
  std::vector<JoinHandle<T>> pending;
};

namespace detail {

/// The wait for one task, which takes nothing of it.
class RecordWait : public Operation<RecordWait, void, JoinWaiter> {
 public:
  static constexpr const char* kWhat = "one of several tasks";
  explicit RecordWait(TaskRecord& record) noexcept : record_(&record) {}
  RecordWait(RecordWait&& other) noexcept
      : Operation<RecordWait, void, JoinWaiter>(std::move(other)), record_(other.record_) {}
  MAGPIE_EXPORT bool start() noexcept;
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }
  const TaskRecord& record() const noexcept { return *record_; }

 private:
  TaskRecord* record_;
};

/// Everything of a wait but its handles.
class MAGPIE_EXPORT WaitCore : private Join {
 public:
  WaitCore(ReturnWhen when, std::optional<Duration> limit) noexcept : when_(when), limit_(limit) {}
  WaitCore(WaitCore&& other) noexcept : WaitCore(other.when_, other.limit_) {}
  WaitCore& operator=(WaitCore&&) = delete;
  ~WaitCore();

  [[noreturn]] MAGPIE_COLD static void throw_nothing_to_wait_for();

 protected:
  /// What wait() looks at in the handles.
  struct Census {
    std::size_t done = 0;
    std::size_t pending = 0;
    bool failed = false;
    /// Whether this one is done: asked once, as it may end at any moment.
    bool count(const TaskRecord& record) noexcept {
      const bool is_done = record.done();
      ++(is_done ? done : pending);
      failed = failed || (is_done && record.outcome() == SlotState::error);
      return is_done;
    }
  };
  bool satisfied(const Census& census) const noexcept {
    return census.pending == 0 || (when_ == ReturnWhen::first_completed && census.done != 0) ||
           (when_ == ReturnWhen::first_exception && census.failed);
  }

  void refuse(Scope& outer) noexcept {
    outer_ = &outer;
    phase_ = Phase::refused;
  }
  void expect(std::size_t tasks);
  void add(TaskRecord& record);
  /// Parks at every task that was added. What the thread runs next.
  std::coroutine_handle<> start(std::coroutine_handle<> awaiting, Scope& outer) noexcept;
  /// Goes round the executor's queue.
  void go_round(std::coroutine_handle<> awaiting, Scope& outer) noexcept;
  bool polls() const noexcept { return limit_ && limit_->count() == 0; }
  /// After the wait: leaves the scopes.
  void leave() noexcept;
  /// Throws if the wait was cancelled before it had what it waited for.
  void conclude(bool is_satisfied) const;

 private:
  using Node = OperationChild<RecordWait>;
  enum class Phase : std::uint8_t { at_once, refused, round, parked };
  static void settle(Join* join, Rec* rec, SlotState outcome) noexcept;
  static const JoinKind kKind;

  const ReturnWhen when_;
  const std::optional<Duration> limit_;
  Phase phase_ = Phase::at_once;
  Scope* outer_ = nullptr;
  std::vector<Node> nodes_;
  DeadlineTimer timer_;
};

template <class T>
class [[nodiscard("co_await it")]] WaitAwaiter : public CombinatorBase, private WaitCore {
 public:
  using value_type = WaitResult<T>;
  WaitAwaiter(std::vector<JoinHandle<T>>&& handles, ReturnWhen when,
              std::optional<Duration> limit) noexcept
      : WaitCore(when, limit), handles_(std::move(handles)) {}

  bool await_ready() const {
    if (handles_.empty()) throw_nothing_to_wait_for();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) {
    Scope& outer = *awaiting.promise().scope;
    const TaskRecord* const self = &TaskRecord::of(outer);
    for (const JoinHandle<T>& handle : handles_) {
      if (&handle.state() == self) throw_self_await();
    }
    if (outer.cancelled()) [[unlikely]] {
      refuse(outer);
      return detail::transfer(awaiting);
    }
    Census first;
    for (const JoinHandle<T>& handle : handles_) first.count(handle.state());
    if (satisfied(first)) return detail::transfer(awaiting);
    if (polls()) {
      go_round(awaiting, outer);
      return std::noop_coroutine();
    }
    // Those that are done need no node. Who is, is asked anew: a task must be either counted or
    // parked at.
    expect(first.pending);
    Census second;
    for (const JoinHandle<T>& handle : handles_) {
      if (!second.count(handle.state())) add(handle.state());
    }
    return satisfied(second) ? detail::transfer(awaiting) : start(awaiting, outer);
  }
  value_type await_resume() {
    leave();
    value_type result;
    Census census;
    for (JoinHandle<T>& handle : handles_) {
      (census.count(handle.state()) ? result.done : result.pending).push_back(std::move(handle));
    }
    conclude(satisfied(census));
    return result;
  }

 private:
  std::vector<JoinHandle<T>> handles_;
};

}  // namespace detail

/// Waits for some of the tasks, at most so long; see the head of the file.
template <class T>
auto wait(std::vector<JoinHandle<T>> handles, ReturnWhen when = ReturnWhen::all_completed,
          std::optional<Duration> timeout = {}) {
  return detail::WaitAwaiter<T>(std::move(handles), when, timeout);
}
/// The same for `wait({first, second})`. With g++ before 13 the braces need a statement of their
/// own.
template <class T>
auto wait(std::initializer_list<JoinHandle<T>> handles, ReturnWhen when = ReturnWhen::all_completed,
          std::optional<Duration> timeout = {}) {
  return detail::WaitAwaiter<T>(std::vector<JoinHandle<T>>(handles), when, timeout);
}

}  // namespace magpie
