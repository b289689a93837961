// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one child of a wrapper such as timeout, as_result or uncancellable: started in a scope, its
// outcome kept in a slot and never thrown into a frame of the library.

#include <coroutine>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

/// The awaiter of a combinator with one child: it goes on where it awaited, on whichever executor
/// the child has ended.
class MAGPIE_EXPORT Awaiting : public EndSink, public Runnable {
 public:
  Awaiting() = default;
  Awaiting(const Awaiting&) = delete;
  Awaiting& operator=(const Awaiting&) = delete;

  void begin(std::coroutine_handle<> parent, Scope& scope) noexcept {
    parent_ = parent;
    scope_ = &scope;
    waits_at = home_ = current_executor();
    ended = child_ended;
  }
  std::coroutine_handle<> parent() const noexcept { return parent_; }
  Continuation continuation() noexcept { return Continuation::to(static_cast<EndSink*>(this)); }
  /// The child has ended on this thread.
  std::coroutine_handle<> go_on() noexcept {
    if (current_executor() == home_) [[likely]]
      return detail::transfer(parent_);
    go_home();
    return std::noop_coroutine();
  }

 private:
  static std::coroutine_handle<> child_ended(EndSink* sink, SlotState) noexcept {
    return static_cast<Awaiting*>(sink)->go_on();
  }
  void go_home() noexcept;

  std::coroutine_handle<> parent_;
  Scope* scope_ = nullptr;
  Executor* home_ = nullptr;
};

template <class T>
class TaskCallee {
 public:
  using value_type = T;
  explicit TaskCallee(Task<T>&& task) : frame_(std::move(task).take_frame()) {}
  TaskCallee(TaskCallee&&) noexcept = default;

  void require() const { frame_.require(); }
  std::coroutine_handle<> start(Scope& scope, std::coroutine_handle<> parent) noexcept {
    return frame_.bind(scope, Continuation::to(parent), slot);
  }
  std::coroutine_handle<> start(Scope& scope, Awaiting& awaiting) noexcept {
    return frame_.bind(scope, awaiting.continuation(), slot);
  }
  void finish() noexcept {}
  static constexpr bool done() noexcept { return false; }

  Slot<T> slot;

 private:
  TaskFrame<T> frame_;
};

template <class Op>
class OperationCallee {
 public:
  using value_type = typename Op::value_type;
  explicit OperationCallee(Op&& op) : op_(std::move(op)) {}
  OperationCallee(OperationCallee&& other)
      : op_(std::move(other.op_)) {}  // not started yet: the slot is empty

  void require() const {
    if (!slot.empty()) [[unlikely]]
      throw_awaited_twice();
  }
  std::coroutine_handle<> start(Scope& scope, std::coroutine_handle<> parent) noexcept {
    place_ = {&scope, parent.address()};
    op_.prepare(place_);
    try {
      if (op_.start()) return std::noop_coroutine();
    } catch (...) {
      slot.capture_current_exception();
    }
    return parent;
  }
  /// An operation ends where it was started.
  std::coroutine_handle<> start(Scope& scope, Awaiting& awaiting) noexcept {
    return start(scope, awaiting.parent());
  }
  void finish() noexcept {
    if (slot.empty()) op_.finish(slot);
  }
  /// Whether it would end at once: a handle that is done, or empty.
  bool done() const noexcept {
    if constexpr (requires { op_.done(); }) {
      return op_.done();
    } else {
      return false;
    }
  }

  Slot<value_type> slot;

 private:
  Op op_;
  OperationPlace place_;
};

template <class A>
auto make_callee(A&& awaitable) {
  using Plain = std::remove_cvref_t<A>;
  if constexpr (IsOperation<A> && !requires { Plain::kMovesTheStrand; }) {
    return OperationCallee<Plain>(std::move(awaitable));
  } else if constexpr (IsOperationSource<A>) {
    return detail::make_callee(std::forward<A>(awaitable).operation());
  } else {
    auto task = detail::as_task(std::forward<A>(awaitable));
    return TaskCallee<typename decltype(task)::value_type>(std::move(task));
  }
}

template <class A>
using callee_t = decltype(detail::make_callee(std::declval<A>()));

}  // namespace magpie::detail
