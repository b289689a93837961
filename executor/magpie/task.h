// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Task<T>: a coroutine that starts when it is awaited.
//
//     Task<int> answer() { co_return 42; }
//     Task<void> use() { int x = co_await answer(); }
//
// It is not a handle of something that runs: spawn gives those. It is awaited once, as an rvalue, and inherits the awaiting task's
// executor, cancellation scope, deadline and task-locals. Awaiting it is a plain call: no queue, no atomic, and the frame is freed
// before the awaiter goes on. Long loops and deep chains of awaits do not grow the stack.
//
// Threads: a Task is a value; the coroutine may run on any worker, and on another one after each suspension.
// Cancellation: awaiting a Task is no cancellation point; its body runs to its own first one. Errors: what the body throws leaves
// the co_await; awaiting a moved-from task is std::logic_error.

#include <coroutine>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/promise.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

namespace detail {

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_moved_from_task();

/// An unstarted coroutine frame and its owner. Releasing it starts it, or hands it on.
template <class T>
class TaskFrame {
 public:
  using Handle = std::coroutine_handle<TaskPromise<T>>;

  TaskFrame() noexcept = default;
  explicit TaskFrame(Handle handle) noexcept : handle_(handle) {}
  TaskFrame(TaskFrame&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  TaskFrame& operator=(TaskFrame&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~TaskFrame() { reset(); }

  explicit operator bool() const noexcept { return handle_ != nullptr; }
  void require() const {
    if (handle_ == nullptr) [[unlikely]] throw_moved_from_task();
  }

  /// Tells the frame where it stands, whom it tells, and where its outcome goes; the caller resumes it.
  std::coroutine_handle<> bind(Scope& scope, Continuation continuation, Slot<T>& slot) noexcept {
    auto& promise = handle_.promise();
    promise.scope = &scope;
    promise.continuation = continuation;
    promise.slot = &slot;
    return std::exchange(handle_, nullptr);
  }

 private:
  void reset() noexcept {
    if (handle_ != nullptr) handle_.destroy();
  }
  Handle handle_ = nullptr;
};

template <class T>
class TaskAwaiter {
 public:
  explicit TaskAwaiter(TaskFrame<T>&& frame) noexcept : frame_(std::move(frame)) {}
  TaskAwaiter(TaskAwaiter&&) = delete;

  bool await_ready() const {
    frame_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    static_assert(std::derived_from<P, PromiseBase>,
                  "a magpie::Task can be awaited inside a magpie::Task only; elsewhere use run() or spawn()");
    return transfer(frame_.bind(*awaiting.promise().scope, Continuation::to(awaiting), slot_));
  }
  T await_resume() { return slot_.take(); }

 private:
  TaskFrame<T> frame_;
  Slot<T> slot_;
};

}  // namespace detail

/// A lazily started coroutine that gives a T: an object (move-only and not default-constructible too), a reference or void.
template <class T>
class Task {
 public:
  using promise_type = detail::TaskPromise<T>;
  using value_type = T;

  /// Empty, as after a move: it can be assigned to and destroyed.
  Task() noexcept = default;
  /// Destroying a task that was never started frees it: its body never runs.
  ~Task() = default;
  Task(Task&&) noexcept = default;
  Task& operator=(Task&&) noexcept = default;

  /// Runs the task here and now, as part of the awaiting one.
  detail::TaskAwaiter<T> operator co_await() && noexcept { return detail::TaskAwaiter<T>(std::move(frame_)); }
  /// A task is awaited once: write `co_await std::move(task)`.
  detail::TaskAwaiter<T> operator co_await() & = delete;

  /// Whether there is a coroutine in it.
  explicit operator bool() const noexcept { return static_cast<bool>(frame_); }

  /// For the library.
  detail::TaskFrame<T> take_frame() && noexcept { return std::move(frame_); }

 private:
  friend class detail::TaskPromiseBase<T>;
  explicit Task(std::coroutine_handle<promise_type> handle) noexcept : frame_(handle) {}
  detail::TaskFrame<T> frame_;
};

namespace detail {

template <class T>
Task<T> TaskPromiseBase<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<TaskPromise<T>>::from_promise(static_cast<TaskPromise<T>&>(*this)));
}

}  // namespace detail
}  // namespace magpie

#include <magpie/detail/foreign.h>
#include <magpie/as_result.h>
