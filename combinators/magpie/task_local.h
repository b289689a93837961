// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// TaskLocal<T>: a value that a task and everything below it sees, such as a request's id.
//
//     TaskLocal<std::string> request_id{"none"};
//     co_await request_id.with("r-17", handle_request());
//     // Within handle_request: std::string id = co_await request_id.get();   // "r-17"
//
// Bindings are inherited by awaited tasks, by children of combinators and groups, and (as a
// snapshot) by spawned tasks. A binding ends with its `with`; siblings and parents never see it.
// get() copies the value, does not suspend, and is no cancellation point; with() is none either.
// The TaskLocal must outlive all uses; different threads may use it at the same time.

#include <concepts>
#include <coroutine>
#include <memory>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/locals.h>
#include <magpie/this_task.h>

namespace magpie {

namespace detail {

template <class Callee>
class [[nodiscard("co_await it")]] WithLocal : public CombinatorBase {
 public:
  using value_type = typename Callee::value_type;
  WithLocal(const void* key, std::shared_ptr<const void> value, Callee&& callee)
      : key_(key), value_(std::move(value)), callee_(std::move(callee)) {}
  WithLocal(WithLocal&& other)
      : key_(other.key_), value_(std::move(other.value_)), callee_(std::move(other.callee_)) {}

  bool await_ready() const {
    callee_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    use_locals();
    scope_.enter(&outer, outer.task(), ScopeKind::plain, ScopeBaggage::task_local);
    scope_.frame.outer = find_locals(outer);
    scope_.frame.key = key_;
    scope_.frame.value = std::move(value_);
    thread_state()->locals = &scope_.frame;
    awaiting_.begin(awaiting, outer);
    return detail::transfer(callee_.start(scope_, awaiting_));
  }
  value_type await_resume() {
    callee_.finish();
    thread_state()->locals = const_cast<LocalsFrame*>(scope_.frame.outer);
    leave_scope(scope_);
    return callee_.slot.take();
  }

 private:
  const void* key_;
  std::shared_ptr<const void> value_;
  Callee callee_;
  LocalsScope scope_;
  Awaiting awaiting_;
};

template <class T>
class [[nodiscard("co_await it")]] GetLocal : public CombinatorBase {
 public:
  using value_type = T;
  GetLocal(const void* key, const T& initial) noexcept
      : key_(key), value_(std::addressof(initial)) {}
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    for (const LocalsFrame* f = find_locals(*awaiting.promise().scope); f != nullptr;
         f = f->outer) {
      if (f->key != key_) continue;
      value_ = static_cast<const T*>(f->value.get());
      break;
    }
    return false;
  }
  T await_resume() const { return *value_; }

 private:
  const void* key_;
  const T* value_;
};

}  // namespace detail

template <class T>
class TaskLocal {
  static_assert(
      std::copy_constructible<T>,
      "a task-local's value is copied to whoever asks: use a shared_ptr for what cannot be");

 public:
  TaskLocal() : initial_() {}
  explicit TaskLocal(T initial) : initial_(std::move(initial)) {}
  TaskLocal(const TaskLocal&) = delete;
  TaskLocal& operator=(const TaskLocal&) = delete;

  /// The innermost binding's value, or the initial one.
  detail::GetLocal<T> get() const noexcept { return detail::GetLocal<T>(this, initial_); }

  /// Runs the task with the value bound.
  template <detail::Awaitable A>
  auto with(T value, A&& task) const {
    return detail::WithLocal<detail::callee_t<A>>(this, std::make_shared<const T>(std::move(value)),
                                                  detail::make_callee(std::forward<A>(task)));
  }

 private:
  const T initial_;
};

}  // namespace magpie
