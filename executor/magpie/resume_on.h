// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// resume_on(executor) and on(executor, task): other executors.
//
//     co_await resume_on(io_pool);           // goes on there
//     int x = co_await on(io_pool, work());  // runs there, and comes back
//
// With a coroutine go its plain awaiters, up to the nearest combinator or task. A combinator's
// parent resumes where it awaited. Cancellation points. On an executor that has shut down:
// ExecutorShutdownError, and one stays where one is. An executor waits in its destructor for
// strands of others that visit it.

#include <coroutine>
#include <utility>

#include <magpie/as_result.h>
#include <magpie/config.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/task_record.h>

namespace magpie {

namespace detail {

class [[nodiscard("co_await it")]] ResumeOn : public Operation<ResumeOn, void> {
 public:
  static constexpr const char* kWhat = "another executor";
  static constexpr bool kMovesTheStrand =
      true;  // given to a combinator it is a child that ends elsewhere
  enum class Return : bool { no, yes };

  /// `Return::yes`: the strand comes back, so the executor where it is stays open for it.
  explicit ResumeOn(Executor& target, Return back = Return::no) noexcept
      : target_(&target), back_(back) {}
  ResumeOn(ResumeOn&& other) noexcept
      : Operation<ResumeOn, void>(std::move(other)), target_(other.target_), back_(other.back_) {}

  MAGPIE_EXPORT bool start();
  void unqueue() noexcept {}
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }

 private:
  Executor* target_;
  Return back_;
};

/// Comes home whatever has been cancelled: the strand has to get there.
class [[nodiscard("co_await it")]] GoHome : public Operation<GoHome, void> {
 public:
  static constexpr const char* kWhat = "its executor";
  /// A place was kept there for the strand.
  explicit GoHome(Executor& its_home) noexcept : target_(&its_home) {}
  GoHome(GoHome&& other) noexcept
      : Operation<GoHome, void>(std::move(other)), target_(other.target_) {}
  MAGPIE_EXPORT bool start() noexcept;
  void unqueue() noexcept {}
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }

 private:
  Executor* target_;
};

template <class T, class A>
Task<T> run_on(Executor& target, A task) {
  Executor* const home = current_executor();
  co_await ResumeOn(target, ResumeOn::Return::yes);
  Result<T> result = co_await magpie::as_result(std::move(task));
  co_await GoHome(*home);
  if constexpr (std::is_void_v<T>) {
    std::move(result).value();
  } else {
    co_return std::move(result).value();
  }
}

}  // namespace detail

/// Moves this coroutine to another executor.
inline detail::ResumeOn resume_on(Executor& executor) noexcept {
  return detail::ResumeOn(executor);
}

/// Runs the task on another executor and comes back.
template <detail::Awaitable A>
auto on(Executor& executor, A&& task) {
  auto owned = detail::as_task(std::forward<A>(task));
  return detail::run_on<typename decltype(owned)::value_type>(executor, std::move(owned));
}

}  // namespace magpie
