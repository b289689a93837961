// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The body of a block such as cancel_scope, timeout_scope or task_group: a callable that gets the
// block's object and returns a task. It is moved in, or referenced if it is an lvalue, and lives
// until the block has ended; so a capturing lambda is safe.

#include <functional>
#include <type_traits>
#include <utility>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/task_core.h>

namespace magpie::detail {

template <class F, class Arg>
using body_task_t = decltype(detail::as_task(std::declval<once_result_t<F, Arg&>>()));

template <class F, class Arg>
concept BodyOf = InvocableOnce<F, Arg&> && Awaitable<once_result_t<F, Arg&>>;

template <class F, class Arg>
class Body {
 public:
  using value_type = typename body_task_t<F, Arg>::value_type;

  explicit Body(F&& function) : function_(std::forward<F>(function)) {}
  Body(Body&& other)
      : spent_(std::exchange(other.spent_, true)), function_(std::forward<F>(other.function_)) {}

  /// Calls the callable and binds its task; null if that threw: the error is in the slot.
  std::coroutine_handle<> start(Arg& argument, Scope& scope, Continuation continuation) noexcept {
    try {
      auto frame = detail::as_task(std::invoke(static_cast<once_t<F, Arg&>>(function_), argument))
                       .take_frame();
      frame.require();
      return frame.bind(scope, continuation, slot);
    } catch (...) {
      slot.capture_current_exception();
      return nullptr;
    }
  }

  /// A block is awaited once, and not after it was moved from.
  void require() const {
    if (spent_ || !slot.empty()) [[unlikely]]
      throw_awaited_twice();
  }

  Slot<value_type> slot;

 private:
  bool spent_ = false;
  F function_;
};

}  // namespace magpie::detail
