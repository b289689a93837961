// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The promise of Task<T>: three pointers. Where it stands (its scope: task, executor and
// cancellation are reached from there), whom it tells at its end, and where its outcome goes. The
// outcome lies with whoever awaits, so a frame holds no result and is freed before its awaiter goes
// on.

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/join.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

struct PromiseBase : FrameAllocated {
  Scope* scope;
  Continuation continuation;
  SlotBase* slot;
};

/// Notes the end of a coroutine of which somebody asks what its outcome is.
MAGPIE_EXPORT MAGPIE_COLD void note_asked_end(const PromiseBase& promise) noexcept;

template <class A>
decltype(auto) transform_awaitable(
    A&& awaitable);  // detail/foreign.h: awaitables that are not ours

template <class T>
class TransformedTask;  // detail/task_core.h

template <class T>
class TaskPromise;

template <class T>
class TaskPromiseBase : public PromiseBase {
 public:
  Task<T> get_return_object() noexcept;
  std::suspend_always initial_suspend() const noexcept { return {}; }
  /// Notes who is told. The coroutine then runs off its end: its frame is freed in place, and
  /// resume_here() goes on with whoever that is.
  std::suspend_never final_suspend() noexcept {
    if (this->continuation.is_asked()) [[unlikely]] {
      detail::note_asked_end(*this);
    } else {
      this_thread()->next = this->continuation.word();
    }
    return {};
  }
  void unhandled_exception() noexcept {
    this->continuation.mark_failed();
    result().capture_current_exception();
  }

  template <class A>
  decltype(auto) await_transform(A&& awaitable) {
    return transform_awaitable(std::forward<A>(awaitable));
  }
#ifdef MAGPIE_HAS_IN_REGISTER
  template <class U>
  MAGPIE_ALWAYS_INLINE TransformedTask<U> await_transform(Task<U> task) noexcept {
    return TransformedTask<U>(std::move(task).take_frame());
  }
#endif

 protected:
  Slot<T>& result() noexcept { return *static_cast<Slot<T>*>(slot); }
};

template <class T>
class TaskPromise final : public TaskPromiseBase<T> {
 public:
  template <class U = T>
  requires std::is_constructible_v<T, U&&>
  void return_value(U&& value) {
    this->result().emplace(std::forward<U>(value));
  }
};

template <class T>
class TaskPromise<T&> final : public TaskPromiseBase<T&> {
 public:
  void return_value(T& value) noexcept { this->result().emplace(value); }
};

template <>
class TaskPromise<void> final : public TaskPromiseBase<void> {
 public:
  void return_void() noexcept { result().emplace(); }
};

}  // namespace magpie::detail
