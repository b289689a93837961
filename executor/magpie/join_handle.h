// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// JoinHandle<T>: a started task. Copyable; all copies name the same task; dropping every copy
// detaches it.
//
//     JoinHandle<int> handle = executor.spawn(work(), "worker");
//     int a = co_await handle;              // copies the result; any number of waiters
//     int b = co_await std::move(handle);   // moves it out
//
// Awaiting is a cancellation point; cancelling the waiter ends the wait, not the task. If the task
// was cancelled, the await throws CancelledError, and the waiter's own scope is untouched. When a
// waiter goes on, the task's locals and frame are gone.
//
// Threads: distinct handles from any thread, also of the same task; one handle object as any other
// value. Handles may outlive their executor.

#include <compare>
#include <cstddef>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/task_record.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

namespace detail {

template <class T>
using StateHandle = OutcomeHandle<TaskState<T>>;
template <class T, bool Move>
using JoinOperation = OutcomeWait<TaskState<T>, Move>;

}  // namespace detail

template <class T>
class JoinHandle : public detail::OperationSource {
 public:
  using value_type = T;

  /// Empty: every use is InvalidStateError.
  JoinHandle() = default;

  /// Waits and copies the value; it must be copyable.
  auto operator co_await() const& { return operation(); }
  /// Waits and moves the value out, after those who waited before have theirs. Afterwards other
  /// handles get InvalidStateError.
  auto operator co_await() && { return std::move(*this).operation(); }

  /// Whether the task has ended. If so, everything that it wrote is visible.
  [[nodiscard]] bool done() const { return state().done(); }
  /// Whether it ended cancelled.
  [[nodiscard]] bool cancelled() const { return state().cancelled(); }
  /// The outcome; InvalidStateError while there is none, or after it was moved out.
  const Result<T>& result() const {
    auto& s = state();
    if (!s.done()) detail::throw_not_done();
    s.mark_observed();
    return s.shown();
  }
  /// Blocks the calling thread until the task has ended; std::logic_error on a thread that runs
  /// tasks.
  const Result<T>& wait() const {
    auto& s = state();
    s.block_until_done();
    s.mark_observed();  // only now: a wait that was refused has seen nothing
    return s.shown();
  }
  /// Requests cancellation. True if this call made the request; false if there was one already, or
  /// the task has ended.
  bool cancel(std::string reason = {}) const {
    return state().cancel(detail::ReasonRef::make(CancelKind::requested, std::move(reason)));
  }
  [[nodiscard]] TaskId id() const { return state().id(); }
  [[nodiscard]] std::string name() const { return state().name(); }
  void set_name(std::string name) const { state().set_name(std::move(name)); }

  /// Calls f(const Result<T>&) once: on the thread that ends the task, or here if it has ended.
  /// What it throws goes to on_unobserved_error. Whoever moves the value out waits meanwhile.
  template <class F>
  void on_done(F&& f) const;

  friend bool operator==(const JoinHandle& a, const JoinHandle& b) noexcept {
    return a.handle_.get() == b.handle_.get();
  }

  /// For the library.
  explicit JoinHandle(detail::StateHandle<T> handle) noexcept : handle_(std::move(handle)) {}
  detail::JoinOperation<T, false> operation() const& {
    static_assert(
        std::is_void_v<T> || std::is_reference_v<T> || std::is_copy_constructible_v<T>,
        "this task's value cannot be copied: move it out with `co_await std::move(handle)`");
    return detail::JoinOperation<T, false>(handle_);
  }
  detail::JoinOperation<T, true> operation() && {
    return detail::JoinOperation<T, true>(std::move(handle_));
  }
  detail::TaskState<T>& state() const { return handle_.require(); }

 private:
  friend struct std::hash<JoinHandle>;

  detail::StateHandle<T> handle_;
};

template <class T>
template <class F>
void JoinHandle<T>::on_done(F&& f) const {
  struct Callback : detail::DoneCallback {
    explicit Callback(F&& function) : f(std::forward<F>(function)) {}
    std::decay_t<F> f;
  };
  auto& s = state();
  auto* const callback = new Callback(std::forward<F>(f));
  s.mark_observed();  // only now: a callback that could not be made sees nothing
  callback->call = [](detail::DoneCallback* base, detail::OutcomeCore& core) noexcept {
    auto* const self = static_cast<Callback*>(base);
    auto& state_of_task = static_cast<detail::TaskState<T>&>(core);
    try {
      state_of_task.show_to(
          static_cast<detail::once_t<std::decay_t<F>, const Result<T>&>>(self->f));
    } catch (...) {
      state_of_task.report_callback_error(std::current_exception());
    }
    delete self;
  };
  s.on_done(callback);
}

}  // namespace magpie

/// Handles of the same task have the same: they can be keys of unordered containers.
template <class T>
struct std::hash<magpie::JoinHandle<T>> {
  std::size_t operator()(const magpie::JoinHandle<T>& handle) const noexcept {
    return std::hash<const void*>()(handle.handle_.get());
  }
};
