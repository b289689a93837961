// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Awaitables that are not ours, and turning anything awaitable into a task.
//
// A foreign awaitable resumes its awaiter wherever it likes: on a thread of its own, or in the
// middle of another strand that holds a lock of it. The shim takes the strand home through its
// executor's queue before user code goes on, unless it never suspended. It cannot be cancelled: the
// library does not know how.

#include <coroutine>
#include <exception>
#include <type_traits>
#include <utility>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

/// The wait for something foreign: notes whether it suspended, and shows it in the scope's list
/// meanwhile.
class ForeignWait : public OperationBase {
 public:
  ForeignWait() noexcept : OperationBase(kForeign) {}
  template <class P>
  void begins(std::coroutine_handle<P> awaiting) noexcept {
    prepare(awaiting.address());
    scope()->show(*this);
    suspended_ = true;
  }
  /// True if it had suspended.
  bool ends() noexcept {
    if (suspended_) scope()->unpark(*this);
    return suspended_;
  }

 private:
  static constexpr WaitKind kForeign{
      resume_frame, GoesOn::coroutine,
      [](const Waiter&) noexcept -> const char* { return "a foreign awaitable"; },
      [](Waiter&) noexcept {}};
  bool suspended_ = false;
};

/// Passes a foreign awaitable through await_transform as it is. Only the shim uses it.
template <class A>
struct Raw {
  A&& awaitable;
  ForeignWait& wait;
};

template <class A>
class RawAwaiter {
 public:
  explicit RawAwaiter(Raw<A>&& raw)
      : wait_(raw.wait), inner_(get_awaiter(std::forward<A>(raw.awaitable))) {}
  RawAwaiter(RawAwaiter&&) = delete;

  bool await_ready() { return static_cast<bool>(inner_.await_ready()); }
  template <class P>
  auto await_suspend(std::coroutine_handle<P> awaiting) {
    wait_.begins(awaiting);
    if (this_thread()->locals != nullptr) [[unlikely]]
      return suspend_with_locals(inner_, awaiting);
    return inner_.await_suspend(awaiting);
  }
  decltype(auto) await_resume() { return inner_.await_resume(); }

 private:
  // The strand may go on elsewhere before the call has returned.
  template <class Inner, class P>
  MAGPIE_COLD static auto suspend_with_locals(Inner& inner, std::coroutine_handle<P> awaiting) {
    LocalsCopy locals;
    try {
      if constexpr (std::is_same_v<decltype(inner.await_suspend(awaiting)), bool>) {
        const bool suspends = inner.await_suspend(awaiting);
        if (!suspends) locals.strand_stays();
        return suspends;
      } else {
        return inner.await_suspend(awaiting);
      }
    } catch (...) {
      locals.strand_stays();
      throw;
    }
  }

  ForeignWait& wait_;
  decltype(get_awaiter(std::declval<A>())) inner_;
};

/// Takes a strand to an executor. Not cancellable: the strand must get there.
class [[nodiscard]] GoTo : public Runnable {
 public:
  explicit GoTo(Executor* target) noexcept : target_(target) {}
  bool await_ready() const noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    coroutine_ = awaiting;
    scope_ = awaiting.promise().scope;
    how = &kGoOn;
    target_->schedule(*this);
  }
  void await_resume() const noexcept {}

 private:
  static void go_on(Runnable* node) noexcept {
    auto* const self = static_cast<GoTo*>(node);
    resume_strand(self->coroutine_, self->scope_);
  }
  static constexpr RunKind kGoOn{&go_on};

  Executor* target_;
  std::coroutine_handle<> coroutine_;
  Scope* scope_ = nullptr;
};

template <class A>
RawAwaiter<A> transform_raw(Raw<A>&& raw) {
  return RawAwaiter<A>(std::move(raw));
}

// g++ 12 takes a lambda within a lambda of a coroutine for part of an unnamed namespace, and warns
// that a frame which is defined in this header holds one.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif
template <class R, class A>
Task<R> foreign_shim(
    A awaitable) {  // A: the awaitable by value, or a reference to one in the awaiting frame
  Executor* const home = current_executor();
  std::exception_ptr error;
  ForeignWait wait;
  if constexpr (std::is_void_v<R>) {
    try {
      co_await Raw<A>{std::forward<A>(awaitable), wait};
    } catch (...) {
      error = std::current_exception();
    }
    const bool left_home = wait.ends();
    if (left_home) co_await GoTo(home);
    if (error) std::rethrow_exception(std::move(error));
  } else {
    Slot<R> value;
    try {
      decltype(auto) awaited = co_await Raw<A>{std::forward<A>(awaitable), wait};
      value.emplace(static_cast<decltype(awaited)&&>(awaited));
    } catch (...) {
      error = std::current_exception();
    }
    const bool left_home = wait.ends();
    if (left_home) co_await GoTo(home);
    if (error) std::rethrow_exception(std::move(error));
    co_return value.take();
  }
}

// The body of as_task() for what has no frame of its own.
template <class R, class A>
Task<R> awaiting_task(A awaitable) {
  co_return co_await std::move(awaitable);
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

template <class A>
inline constexpr bool is_raw = false;
template <class A>
inline constexpr bool is_raw<Raw<A>> = true;

/// An awaitable that stays where it is: one that the user has named (`auto both = gather(a(), b());
/// co_await both;`), and with g++ any larger one. g++ 12 gives every awaiter that is not a prvalue
/// a second place in the frame, and moves or copies it there.
template <class A>
class NamedAwaiter {
 public:
  explicit NamedAwaiter(A& awaitable) noexcept : awaitable_(awaitable) {}
  bool await_ready() noexcept(noexcept(std::declval<A&>().await_ready())) {
    return awaitable_.await_ready();
  }
  template <class P>
  auto await_suspend(std::coroutine_handle<P> awaiting) noexcept(
      noexcept(std::declval<A&>().await_suspend(awaiting))) {
    return awaitable_.await_suspend(awaiting);
  }
  decltype(auto) await_resume() { return awaitable_.await_resume(); }

 private:
  A& awaitable_;
};

// See NamedAwaiter; what is no larger than two of those is better moved.
#if defined(__GNUC__) && !defined(__clang__)
template <class A>
inline constexpr bool is_moved_at_a_cost = sizeof(A) > 2 * sizeof(void*);
#else
template <class A>
inline constexpr bool is_moved_at_a_cost = false;
#endif

template <class A>
decltype(auto) transform_awaitable(A&& awaitable) {
  using Plain = std::remove_cvref_t<A>;
  if constexpr (is_raw<Plain>) {
    return transform_raw(std::move(awaitable));
  } else if constexpr (IsTask<A>) {
    static_assert(!std::is_lvalue_reference_v<A>,
                  "a Task is awaited once and as an rvalue: write `co_await std::move(task)`");
    return TransformedTask<typename Plain::value_type>(std::move(awaitable).take_frame());
  } else if constexpr (Ours<A> && !HasMemberCoAwait<A> &&
                       (std::is_lvalue_reference_v<A> || is_moved_at_a_cost<Plain>)) {
    return NamedAwaiter<std::remove_reference_t<A>>(awaitable);
  } else if constexpr (Ours<A> || std::same_as<Plain, GoTo>) {
    return std::forward<A>(awaitable);
  } else {
    static_assert(Foreign<A>,
                  "this cannot be awaited: it is neither an awaitable of magpie nor any other");
    return TransformedTask<awaited_t<A>>(
        foreign_shim<awaited_t<A>, A&&>(std::forward<A>(awaitable)).take_frame());
  }
}

/// Anything awaitable as a task; tasks as they are. Keeps the awaitable by value; an lvalue handle
/// is copied.
template <class A>
auto as_task(A&& awaitable) {
  using Plain = std::remove_cvref_t<A>;
  if constexpr (IsTask<A>) {
    static_assert(!std::is_lvalue_reference_v<A>, "a task is given away: write std::move(task)");
    return Plain(std::move(awaitable));
  } else if constexpr (IsOperationSource<A>) {
    return detail::as_task(std::forward<A>(awaitable).operation());
  } else if constexpr (Ours<A>) {
    return awaiting_task<awaited_t<A>, Plain>(std::forward<A>(awaitable));
  } else {
    static_assert(Foreign<A>, "this cannot be awaited: pass a Task or another awaitable");
    return foreign_shim<awaited_t<A>, A>(std::forward<A>(awaitable));
  }
}

}  // namespace magpie::detail
