// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// to_thread(fn): runs a blocking function on a pool of its own, so that it never occupies a worker.
//
//     std::string text = co_await to_thread([&] { return read_file(path); });
//
// The pool grows to ExecutorOptions::max_blocking_threads, shrinks when idle, and serves first in,
// first out. A cancellation point: cancelled while queued, the call is withdrawn; while the
// function runs, the await ends when it has ended, and its value wins. The function is moved in (or
// referenced, if an lvalue) and lives until the await has ended; what it throws leaves the
// co_await. std::system_error if not one thread can be started.

#include <concepts>
#include <functional>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/blocking_job.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/operation.h>
#include <magpie/task.h>

namespace magpie {

namespace detail {

template <class F>
class [[nodiscard("co_await it")]] ToThread
    : public Operation<ToThread<F>, once_result_t<F>, BlockingJob> {
  using T = once_result_t<F>;
  using Base = Operation<ToThread<F>, T, BlockingJob>;

 public:
  explicit ToThread(F&& function) : function_(std::forward<F>(function)) {}
  ToThread(ToThread&& other) : Base(), function_(std::forward<F>(other.function_)) {}

  bool start() {
    if (!outcome_.empty()) [[unlikely]]
      throw_awaited_twice();
    if (this->refused()) return false;
    this->call = [](BlockingJob* job) noexcept {
      auto* const self = static_cast<ToThread*>(job);
      try {
        if constexpr (std::is_void_v<T>) {
          std::invoke(static_cast<once_t<F>>(self->function_));
          self->outcome_.emplace();
        } else {
          self->outcome_.emplace(std::invoke(static_cast<once_t<F>>(self->function_)));
        }
      } catch (...) {
        self->outcome_.capture_current_exception();
      }
    };
    return detail::submit_blocking(*this->executor, *this);
  }
  void unqueue() noexcept { detail::forget_blocking(*this); }
  void deposit(Slot<T>& slot) { slot = std::move(outcome_); }

 private:
  F function_;
  Slot<T> outcome_;
};

}  // namespace detail

/// Runs fn() on the executor's pool for blocking calls; see the head of the file.
template <class F>
requires detail::InvocableOnce<F>
auto to_thread(F&& fn) {
  return detail::ToThread<F>(std::forward<F>(fn));
}

}  // namespace magpie
