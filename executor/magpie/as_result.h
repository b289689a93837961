// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// co_await as_result(task): the outcome as a value. Neither failure nor cancellation is thrown,
// also not when the waiter itself is cancelled: what asyncio writes as `except` around an await
// that has to go on awaiting.
//
//     Result<int> r = co_await as_result(work());
//     if (r.is_cancelled()) co_await clean_up();
//
// Not a cancellation point, and no scope: the task runs as if it were awaited plainly. A
// cancellation costs no throw here.

#include <coroutine>
#include <utility>

#include <magpie/detail/callee.h>
#include <magpie/result.h>

namespace magpie {

namespace detail {

template <class Callee>
class [[nodiscard("co_await it")]] AsResult : public CombinatorBase {
 public:
  using value_type = Result<typename Callee::value_type>;
  explicit AsResult(Callee&& callee) : callee_(std::move(callee)) {}

  bool await_ready() const {
    callee_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    return detail::transfer(callee_.start(*awaiting.promise().scope, awaiting));
  }
  value_type await_resume() {
    callee_.finish();
    return value_type(std::move(callee_.slot));
  }

 private:
  Callee callee_;
};

}  // namespace detail

/// The task's outcome as a Result; see the head of the file.
template <detail::Awaitable A>
auto as_result(A&& task) {
  return detail::AsResult<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)));
}

}  // namespace magpie
