// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Timeouts: a cancellation scope and a timer.
//
//   timeout(task, 3s), timeout_at(task, deadline)   the value, or TimeoutError
//   with_timeout(task, 3s, fallback)                the value, or the fallback
//   with_timeout(task, 3s)                          of a task without a value: true, or false
//   try_timeout(task, 3s)                           a Result<T>: is_timeout() only for this timeout
//   timeout_scope(3s, body)                         a block whose deadline can be moved
//
// At the deadline the task is cancelled, and waited for: a task that ignores cancellation delays
// its timeout. If it finished at the deadline, or returns a value although it was timed out, the
// value wins; a real error that it throws on the way is thrown. If the outer scope is cancelled
// too, CancelledError wins over TimeoutError; when an outer and an inner timeout have both expired,
// the outer one's is thrown. A duration of nothing starts no task (a handle that is done gives its
// result).
//
// Time is the executor's clock, and starts when the timeout is awaited. Deadlines are seen by
// cancellation points also while every worker is busy. In a cancelled scope nothing is started:
// CancelledError.

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/body.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/timer.h>
#include <magpie/errors.h>
#include <magpie/result.h>
#include <magpie/this_task.h>

namespace magpie {

namespace detail {

/// The scope with its timer.
class MAGPIE_EXPORT DeadlineTimer : public DeadlineScope, private Timer {
 public:
  DeadlineTimer() = default;

  /// Opens the scope and arms the timer. False: the deadline has passed, nothing was opened.
  bool open(Scope& outer, std::int64_t ns, bool relative) noexcept;
  /// Opens the scope without looking at the clock.
  void open_without_deadline(Scope& outer) noexcept;
  /// Afterwards the timer neither fires nor touches anything; leaves the scope.
  void close() noexcept;

  bool reschedule(std::int64_t ns) noexcept;
  bool expired() const noexcept {
    return expired_.load(std::memory_order_acquire);
  }  // pairs with the claim

 private:
  void arm(std::int64_t ns) noexcept;
  void bind() noexcept;
  Executor* home_ = nullptr;
  TimerWord<StdEnv> word_;
  std::atomic<bool> expired_{false};
};

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_timed_out();
MAGPIE_EXPORT std::exception_ptr make_timed_out() noexcept;

/// What a timeout was given as: a length of time or a point.
struct TimeLimit {
  std::int64_t ns;
  bool relative;
  static TimeLimit in(Duration duration) noexcept { return {duration.count(), true}; }
  static TimeLimit at(Deadline deadline) noexcept { return {to_ns(deadline), false}; }
};

template <class Callee>
class TimeoutBase : public CombinatorBase {
 public:
  TimeoutBase(Callee&& callee, TimeLimit limit) : callee_(std::move(callee)), limit_(limit) {}
  TimeoutBase(TimeoutBase&& other) : callee_(std::move(other.callee_)), limit_(other.limit_) {}

  bool await_ready() const {
    callee_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    phase_ = Phase::running;
    if (outer.cancelled()) [[unlikely]] {
      phase_ = Phase::refused;
      timer_.open_without_deadline(outer);
      return detail::transfer(awaiting);
    }
    if (!timer_.open(outer, limit_.ns, limit_.relative)) {
      timer_.open_without_deadline(outer);
      if (!callee_.done()) {
        phase_ = Phase::too_late;
        return detail::transfer(awaiting);
      }
    }
    awaiting_.begin(awaiting, outer);
    return detail::transfer(callee_.start(timer_, awaiting_));
  }

 protected:
  enum class Phase : std::uint8_t { running, refused, too_late };

  /// True: timed out. Else the slot holds the outcome; a cancellation from outside was thrown.
  bool conclude() {
    if (phase_ == Phase::running) [[likely]]
      callee_.finish();
    timer_.close();
    if (phase_ == Phase::refused) throw CancelledError(timer_.outside_reason());
    if (phase_ == Phase::too_late) return true;
    if (callee_.slot.state() == SlotState::cancelled) [[unlikely]] {
      if (timer_.cancelled_from_outside()) throw CancelledError(timer_.outside_reason());
      return timer_.expired();
    }
    return false;
  }

  Callee callee_;

 private:
  TimeLimit limit_;
  Phase phase_ = Phase::running;
  DeadlineTimer timer_;
  Awaiting awaiting_;
};

template <class Callee>
class [[nodiscard("co_await it")]] TimeoutAwaiter : public TimeoutBase<Callee> {
 public:
  using value_type = typename Callee::value_type;
  using TimeoutBase<Callee>::TimeoutBase;
  value_type await_resume() {
    if (this->conclude()) throw_timed_out();
    return this->callee_.slot.take();
  }
};

template <class Callee>
class [[nodiscard("co_await it")]] WithTimeoutAwaiter : public TimeoutBase<Callee> {
 public:
  using value_type = typename Callee::value_type;
  template <class U>
  WithTimeoutAwaiter(Callee&& callee, TimeLimit limit, U&& fallback)
      : TimeoutBase<Callee>(std::move(callee), limit), fallback_(std::forward<U>(fallback)) {}
  value_type await_resume() {
    if (this->conclude()) return static_cast<value_type&&>(fallback_);
    return this->callee_.slot.take();
  }

 private:
  value_type fallback_;
};

template <class Callee>
class [[nodiscard("co_await it")]] InTimeAwaiter : public TimeoutBase<Callee> {
 public:
  using value_type = bool;
  using TimeoutBase<Callee>::TimeoutBase;
  value_type await_resume() {
    if (this->conclude()) return false;
    this->callee_.slot.take();
    return true;
  }
};

template <class Callee>
class [[nodiscard("co_await it")]] TryTimeoutAwaiter : public TimeoutBase<Callee> {
 public:
  using value_type = Result<typename Callee::value_type>;
  using TimeoutBase<Callee>::TimeoutBase;
  value_type await_resume() {
    if (this->conclude()) return value_type::timed_out(make_timed_out());
    return value_type::from_slot(std::move(this->callee_.slot), true);
  }
};

template <class F>
class TimeoutScopeBlock;

}  // namespace detail

/// The block's own handle in timeout_scope, which makes it: valid until the block ends; from any
/// thread that knows that it has not.
class TimeoutScope {
 public:
  TimeoutScope(const TimeoutScope&) = delete;
  TimeoutScope& operator=(const TimeoutScope&) = delete;

  /// Moves the deadline, or takes it away. False once expired: then nothing changes.
  bool reschedule(std::optional<Deadline> deadline) noexcept {
    return timer_.reschedule(deadline ? detail::to_ns(*deadline) : detail::kNeverNs);
  }
  /// Whether the deadline has passed. The block is cancelled a moment later: a cancellation point
  /// in between may still let it go on.
  [[nodiscard]] bool expired() const noexcept { return timer_.expired(); }
  /// The deadline now, if there is one.
  [[nodiscard]] std::optional<Deadline> deadline() const noexcept {
    const std::int64_t ns = timer_.due_ns.load(std::memory_order_relaxed);
    if (ns == detail::kNeverNs) return std::nullopt;
    return detail::from_ns(ns);
  }

  /// For the library.
  detail::DeadlineTimer& timer() noexcept { return timer_; }

 private:
  template <class F>
  friend class detail::TimeoutScopeBlock;
  TimeoutScope() = default;

  detail::DeadlineTimer timer_;
};

namespace detail {

template <class F>
class [[nodiscard("co_await it")]] TimeoutScopeBlock : public CombinatorBase {
 public:
  using value_type = typename Body<F, TimeoutScope>::value_type;
  TimeoutScopeBlock(TimeLimit limit, F&& body) : body_(std::forward<F>(body)), limit_(limit) {}
  TimeoutScopeBlock(TimeoutScopeBlock&& other)
      : body_(std::move(other.body_)), limit_(other.limit_) {}

  bool await_ready() const {
    body_.require();
    return false;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    DeadlineTimer& timer = block_.timer();
    refused_ = outer.cancelled();
    if (refused_) {
      timer.open_without_deadline(outer);
      return detail::transfer(awaiting);
    }
    too_late_ = !timer.open(outer, limit_.ns, limit_.relative);
    if (too_late_) {
      timer.open_without_deadline(outer);
      return detail::transfer(awaiting);
    }
    awaiting_.begin(awaiting, outer);
    const auto started = body_.start(block_, timer, awaiting_.continuation());
    return detail::transfer(started ? started : std::coroutine_handle<>(awaiting));
  }
  value_type await_resume() {
    DeadlineTimer& timer = block_.timer();
    timer.close();
    if (refused_) throw CancelledError(timer.outside_reason());
    if (too_late_) throw_timed_out();
    if (body_.slot.state() == SlotState::cancelled) {
      if (timer.cancelled_from_outside()) throw CancelledError(timer.outside_reason());
      if (timer.expired()) throw_timed_out();
    }
    return body_.slot.take();
  }

 private:
  Body<F, TimeoutScope> body_;
  TimeLimit limit_;
  TimeoutScope block_;
  Awaiting awaiting_;
  bool refused_ = false;
  bool too_late_ = false;
};

}  // namespace detail

/// The task's value; TimeoutError after the task has been cancelled at the deadline and has ended.
template <detail::Awaitable A>
auto timeout(A&& task, Duration duration) {
  return detail::TimeoutAwaiter<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)),
                                                     detail::TimeLimit::in(duration));
}
/// The same with a point in the executor's time.
template <detail::Awaitable A>
auto timeout_at(A&& task, Deadline deadline) {
  return detail::TimeoutAwaiter<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)),
                                                     detail::TimeLimit::at(deadline));
}

/// The task's value; the fallback if this timeout expired. Other errors, an inner timeout's too, go
/// on. {} is a value as T makes it.
template <detail::Awaitable A, class U = detail::awaited_t<A>>
requires(std::constructible_from<detail::awaited_t<A>, U &&> &&
         (!std::is_reference_v<detail::awaited_t<A>> || std::is_lvalue_reference_v<U &&>))
auto with_timeout(A&& task, Duration duration, U&& fallback) {
  return detail::WithTimeoutAwaiter<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)),
                                                         detail::TimeLimit::in(duration),
                                                         std::forward<U>(fallback));
}

/// Of a task without a value: true, or false if this timeout expired. All else as above.
template <detail::Awaitable A>
requires std::is_void_v<detail::awaited_t<A>>
auto with_timeout(A&& task, Duration duration) {
  return detail::InTimeAwaiter<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)),
                                                    detail::TimeLimit::in(duration));
}

/// The task's outcome as a Result: is_timeout() only for this timeout, an inner one's is
/// is_error(). Cancellation of the outer scope is thrown.
template <detail::Awaitable A>
auto try_timeout(A&& task, Duration duration) {
  return detail::TryTimeoutAwaiter<detail::callee_t<A>>(detail::make_callee(std::forward<A>(task)),
                                                        detail::TimeLimit::in(duration));
}

/// Runs body(TimeoutScope&) -> Task<T> with a deadline that can be moved; TimeoutError at expiry.
template <class F>
requires detail::BodyOf<F, TimeoutScope>
auto timeout_scope(Duration duration, F&& body) {
  return detail::TimeoutScopeBlock<F>(detail::TimeLimit::in(duration), std::forward<F>(body));
}

}  // namespace magpie
