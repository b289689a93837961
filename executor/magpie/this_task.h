// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a task can ask of its surroundings. All of these are awaited: `co_await this_task::token()`.
//
// yield() and checkpoint() are cancellation points; the others are not, and none but yield()
// suspends.

#include <coroutine>
#include <optional>
#include <string>

#include <magpie/cancellation_token.h>
#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/task_record.h>
#include <magpie/errors.h>
#include <magpie/resume_on.h>

namespace magpie {

namespace detail {

/// A scope that a deadline ends; found by this_task::deadline().
struct DeadlineScope : Scope {
  std::atomic<std::int64_t> due_ns{0};
};
MAGPIE_EXPORT std::optional<Deadline> earliest_deadline(const Scope& scope) noexcept;

/// Asks something of the surroundings, without suspending.
template <class Derived, class T>
class [[nodiscard("co_await it")]] Question : public CombinatorBase {
 public:
  using value_type = T;
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    scope_ = awaiting.promise().scope;
    return false;
  }
  T await_resume() const { return Derived::answer(*scope_); }

 private:
  Scope* scope_ = nullptr;
};

struct AskToken : Question<AskToken, CancellationToken> {
  static CancellationToken answer(Scope& scope) {
    return CancellationToken(StateRef::adopt(token_state_of(scope)));
  }
};
struct AskExecutor : Question<AskExecutor, Executor&> {
  static Executor& answer(Scope&) noexcept { return *current_executor(); }
};
struct AskId : Question<AskId, TaskId> {
  static TaskId answer(Scope& scope) noexcept { return TaskRecord::of(scope).id(); }
};
struct AskName : Question<AskName, std::string> {
  static std::string answer(Scope& scope) { return TaskRecord::of(scope).name(); }
};
struct AskNow : Question<AskNow, Deadline> {
  static Deadline answer(Scope&) { return current_executor()->clock().now(); }
};
struct AskDeadline : Question<AskDeadline, std::optional<Deadline>> {
  static std::optional<Deadline> answer(Scope& scope) noexcept { return earliest_deadline(scope); }
};
struct AskCheckpoint : Question<AskCheckpoint, void> {
  static void answer(Scope& scope) {
    if (scope.cancelled()) [[unlikely]]
      throw_cancelled(scope);
  }
  [[noreturn]] MAGPIE_COLD static void throw_cancelled(Scope& scope) {
    throw CancelledError(scope.reason());
  }
};

/// Goes to the back of the queue. Parked in the scope meanwhile? No: it comes round by itself, and
/// looks then.
class [[nodiscard("co_await it")]] YieldOperation : public Operation<YieldOperation, void> {
 public:
  static constexpr const char* kWhat = "yield";
  YieldOperation() {}
  YieldOperation(YieldOperation&& other) noexcept
      : Operation<YieldOperation, void>(std::move(other)) {}
  MAGPIE_EXPORT bool start() noexcept;
  void unqueue() noexcept {}
  void deposit(Slot<void>& slot) {
    if (scope()->cancelled()) {
      slot.set_cancelled(cancel_reason());
    } else {
      slot.emplace();
    }
  }
};

}  // namespace detail

namespace this_task {

/// Lets other ready work run. A cancellation point.
inline detail::YieldOperation yield() {
  return {};
}
/// A cancellation point that does not suspend: a load, for long loops.
inline detail::AskCheckpoint checkpoint() {
  return {};
}
/// A token of the current scope. It may be kept: then it follows the enclosing scopes up to the end
/// of the task.
inline detail::AskToken token() {
  return {};
}
/// The executor that the coroutine runs on.
inline detail::AskExecutor executor() {
  return {};
}
/// The task that the coroutine belongs to.
inline detail::AskId id() {
  return {};
}
inline detail::AskName name() {
  return {};
}
/// The executor's time.
inline detail::AskNow now() {
  return {};
}
/// The earliest deadline that can reach this point; those outside an `uncancellable` cannot.
inline detail::AskDeadline deadline() {
  return {};
}

}  // namespace this_task
}  // namespace magpie
