// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The class Task<T> and its awaiter; the page for users is <magpie/task.h>.

#include <concepts>
#include <coroutine>
#include <cstdint>
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

/// Frees a frame that was never started. One that holds another as an argument, and so on a million
/// deep, does not nest.
MAGPIE_EXPORT void destroy_unstarted(std::coroutine_handle<PromiseBase> frame) noexcept;
// Of a task that was awaited nothing is left to destroy: the common case.
MAGPIE_SPARING void destroy_unstarted_sparing(std::coroutine_handle<PromiseBase> frame) noexcept {
  destroy_unstarted(frame);
}

/// An unstarted coroutine frame and its owner. Releasing it starts it, or hands it on.
template <class T>
class [[MAGPIE_IN_REGISTER]] MAGPIE_IN_REGISTER_TAG TaskFrame {
 public:
  using Handle = std::coroutine_handle<TaskPromise<T>>;
  // A handle finds the promise by its alignment: one of PromiseBase names the same frame.
  static_assert(alignof(TaskPromise<T>) == alignof(PromiseBase) &&
                sizeof(TaskPromise<T>) == sizeof(PromiseBase));

  TaskFrame() noexcept = default;
  explicit TaskFrame(Handle handle) noexcept : frame_(handle.address()) {}
  // Inlined always, and no function gets the address of what they look at: MAGPIE_IN_REGISTER.
  MAGPIE_ALWAYS_INLINE TaskFrame(TaskFrame&& other) noexcept : frame_(other.frame_) {
    other.frame_ = nullptr;
  }
  TaskFrame& operator=(TaskFrame&& other) noexcept {
    if (this != &other) {
      reset();
      frame_ = std::exchange(other.frame_, nullptr);
    }
    return *this;
  }
  MAGPIE_ALWAYS_INLINE ~TaskFrame() { reset(); }

  explicit operator bool() const noexcept { return frame_ != nullptr; }
  void require() const {
    if (frame_ == nullptr) [[unlikely]]
      throw_moved_from_task();
  }

  /// Gives the frame's address away; the new owner binds or destroys it.
  std::uintptr_t release() noexcept {
    return reinterpret_cast<std::uintptr_t>(std::exchange(frame_, nullptr));
  }

  /// Tells the frame where it stands, whom it tells, and where its outcome goes; the caller resumes
  /// it.
  std::coroutine_handle<> bind(Scope& scope, Continuation continuation, Slot<T>& slot) noexcept {
    const Handle handle = Handle::from_address(frame_);
    auto& promise = handle.promise();
    promise.scope = &scope;
    promise.continuation = continuation;
    promise.slot = &slot;
    frame_ = nullptr;
    return handle;
  }

 private:
  MAGPIE_ALWAYS_INLINE void reset() noexcept {
    if (void* const frame = frame_; frame != nullptr)
      destroy_unstarted_sparing(std::coroutine_handle<PromiseBase>::from_address(frame));
  }
  void* frame_ = nullptr;
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
    static_assert(
        std::derived_from<P, PromiseBase>,
        "a magpie::Task can be awaited inside a magpie::Task only; elsewhere use run() or spawn()");
    return detail::transfer(
        frame_.bind(*awaiting.promise().scope, Continuation::to(awaiting), slot_));
  }
  T await_resume() { return slot_.take(); }

 private:
  TaskFrame<T> frame_;
  Slot<T> slot_;
};

/// The same for await_transform, behind which it is awaited at once: so it owns nothing, as the
/// frame is either empty, or started before this can end.
template <class T>
class TransformedTask {
 public:
  explicit TransformedTask(TaskFrame<T>&& frame) noexcept : frame_(frame.release()) {}
  TransformedTask(TransformedTask&&) = delete;

  bool await_ready() const {
    if (frame_ == 0) [[unlikely]]
      throw_moved_from_task();
    return false;
  }
  template <class P>
  MAGPIE_ALWAYS_INLINE std::coroutine_handle<> await_suspend(
      std::coroutine_handle<P> awaiting) noexcept {
    static_assert(
        std::derived_from<P, PromiseBase>,
        "a magpie::Task can be awaited inside a magpie::Task only; elsewhere use run() or spawn()");
    const auto frame =
        std::coroutine_handle<TaskPromise<T>>::from_address(reinterpret_cast<void*>(frame_));
    auto& promise = frame.promise();
    promise.scope = awaiting.promise().scope;
    promise.continuation = Continuation::to(awaiting);
    promise.slot = &slot_;
    return detail::transfer(frame);
  }
  T await_resume() { return slot_.take(); }

 private:
  std::uintptr_t frame_;
  Slot<T> slot_;
};

/// What becomes a Task<T> by itself: the library's awaitables that give exactly a T, given away;
/// handles may be lvalues.
template <class A, class T>
concept ConvertsToTask =
    !IsTask<A> && Ours<A> && (!std::is_lvalue_reference_v<A> || IsOperationSource<A>) &&
    std::same_as<typename std::remove_cvref_t<A>::value_type, T>;

// In foreign.h.
template <class A>
auto as_task(A&& awaitable);

}  // namespace detail

/// A lazily started coroutine that gives a T: an object (move-only and not default-constructible
/// too), a reference or void.
template <class T>
class [[MAGPIE_IN_REGISTER]] Task {
 public:
  using promise_type = detail::TaskPromise<T>;
  using value_type = T;

  /// Empty, as after a move: it can be assigned to and destroyed.
  Task() noexcept = default;
  /// Destroying a task that was never started frees it: its body never runs.
  MAGPIE_ALWAYS_INLINE ~Task() = default;
  MAGPIE_ALWAYS_INLINE Task(Task&&) noexcept = default;
#ifdef MAGPIE_HAS_IN_REGISTER
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wc++26-extensions"
  // As what is awaited or gathered is taken by value here, this is what an lvalue meets.
  Task(const Task&) = delete(
      "a Task is awaited once and as an rvalue: write `co_await std::move(task)`; a task is given "
      "away: write std::move(task)");
#pragma clang diagnostic pop
#endif
  Task& operator=(Task&&) noexcept = default;

  /// A task that awaits another awaitable of the library and gives what that gives: so it can stand
  /// in a vector of tasks, in a TaskFactory, and be what a function returns (`Task<int> load() {
  /// return timeout(fetch(), 2s); }`). An lvalue handle is copied, everything else is moved in. It
  /// costs a frame; a race sees a task then, no longer an operation that takes nothing if it loses.
  template <class A>
  requires detail::ConvertsToTask<A, T>
  Task(A&& awaitable) : Task(detail::as_task(std::forward<A>(awaitable))) {}

  /// Runs the task here and now, as part of the awaiting one.
  detail::TaskAwaiter<T> operator co_await() && noexcept {
    return detail::TaskAwaiter<T>(std::move(frame_));
  }
  /// A task is awaited once: write `co_await std::move(task)`.
  detail::TaskAwaiter<T> operator co_await() & = delete;

  /// Whether there is a coroutine in it.
  explicit operator bool() const noexcept { return static_cast<bool>(frame_); }

  /// For the library.
  detail::TaskFrame<T> take_frame() && noexcept { return std::move(frame_); }
  /// For the library: a task of the frame that another one's take_frame() has released.
  static Task of_frame(std::uintptr_t address) noexcept {
    return Task(
        std::coroutine_handle<promise_type>::from_address(reinterpret_cast<void*>(address)));
  }

 private:
  friend class detail::TaskPromiseBase<T>;
  explicit Task(std::coroutine_handle<promise_type> handle) noexcept : frame_(handle) {}
  detail::TaskFrame<T> frame_;
};

namespace detail {

template <class T>
Task<T> TaskPromiseBase<T>::get_return_object() noexcept {
  return Task<T>(
      std::coroutine_handle<TaskPromise<T>>::from_promise(static_cast<TaskPromise<T>&>(*this)));
}

}  // namespace detail
}  // namespace magpie
