// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// retry: the same work again when it has failed.
//
//     auto fetch = [&]() -> Task<Page> { ... };
//     auto pauses = Backoff::exponential(100ms, 2, 10s).jitter(Jitter::full);
//     Page page = co_await retry(
//         fetch, RetryPolicy().max_attempts(5).attempt_timeout(2s).backoff(pauses));
//
// A task can be awaited once, so what is retried is a factory: it is called for each attempt, and
// what it returns is awaited. A factory that throws is a failed attempt. When no attempt is left,
// the last error is thrown as it is. Attempts never overlap; each has ended before the next one
// begins.
//
// A cancellation is never retried, whether it comes from outside, in an attempt or in a pause, or
// an attempt ended cancelled by itself. An attempt that answers a cancellation with a real error
// ends the retry with that error. Between two attempts there is always a cancellation point, which
// lets other work run, also without a pause. In a cancelled scope nothing is started.
//
// Time is the executor's. The factory is moved in (or referenced, if an lvalue) and lives until the
// retry has ended; it is called where the retry was awaited, by one thread at a time. Starts when
// awaited; resumes where it was awaited.
//
// Errors: what the last attempt failed with; TimeoutError if the total deadline passed before any
// attempt had failed; what retry_if or on_retry throw; std::invalid_argument for max_attempts(0).

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <type_traits>
#include <utility>

#include <magpie/as_result.h>
#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/any_factory.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/callee.h>
#include <magpie/detail/late.h>
#include <magpie/detail/random.h>
#include <magpie/errors.h>
#include <magpie/result.h>
#include <magpie/sleep.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

namespace magpie {

namespace detail {
class RetryLoop;
}

/// How a pause d is spread at random, so that many who failed together do not come back together.
/// Drawn anew for each pause of each call of retry.
enum class Jitter : std::uint8_t {
  none,          ///< d
  full,          ///< uniform in [0, d]
  equal,         ///< uniform in [d/2, d]
  decorrelated,  ///< min(max, uniform in [base, 3 x the pause before]), base before the first
};

/// How long to wait before the next attempt: a value, freely copied.
///
///     Backoff::exponential(100ms, 2, 10s).jitter(Jitter::full)
///
/// The kinds of jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
class Backoff {
 public:
  /// No pause.
  Backoff() noexcept {}
  /// No pause.
  static Backoff none() noexcept { return Backoff(); }
  /// d each time.
  static Backoff constant(Duration d) noexcept {
    return Backoff(Kind::constant, d, 1, Duration::never());
  }
  /// d, 2d, 3d and so on.
  static Backoff linear(Duration d) noexcept {
    return Backoff(Kind::linear, d, 1, Duration::never());
  }
  /// base, base x factor, base x factor^2 and so on, to the nearest nanosecond and never more than
  /// max. std::invalid_argument for a factor below 1 or not finite.
  MAGPIE_EXPORT static Backoff exponential(Duration base, double factor = 2,
                                           Duration max = Duration::never());

  /// std::invalid_argument for Jitter::decorrelated of anything but exponential().
  MAGPIE_EXPORT Backoff& jitter(Jitter kind);

  /// The pause after so many failed attempts (from 1), without jitter.
  [[nodiscard]] MAGPIE_EXPORT Duration pause_after(std::size_t failures) const noexcept;

 private:
  friend class detail::RetryLoop;
  enum class Kind : std::uint8_t { constant, linear, exponential };
  Backoff(Kind kind, Duration base, double factor, Duration max) noexcept
      : base_(base), max_(max), factor_(factor), kind_(kind) {}
  /// `previous` is the pause before, the base at first.
  std::int64_t draw(std::size_t failures, std::int64_t previous,
                    detail::Random& random) const noexcept;

  Duration base_;
  Duration max_;
  double factor_ = 1;
  Kind kind_ = Kind::constant;
  Jitter jitter_ = Jitter::none;
};

/// What on_retry is told: an attempt has failed and another will be made, after a pause.
struct RetryEvent {
  std::size_t attempt;             ///< the one that failed, from 1
  std::exception_ptr error;        ///< what it failed with
  std::chrono::nanoseconds delay;  ///< the pause that begins now
};

/// A limit that many retries share, so that a service in trouble is not drowned in second attempts:
/// a first attempt deposits `ratio`, a retry withdraws 1, and below 1 nobody retries: the error is
/// thrown. It starts full, at `reserve`, and never holds more.
///
///     RetryBudget budget(0.1, 10);   // one retry for ten requests, and ten in a row
///
/// Kept in billionths, so ten deposits of 0.1 are exactly 1; a reserve above 9 billion counts as
/// that. A retry that was cancelled in its pause has its 1 put back. Threads: any; must outlive the
/// retries that use it.
class MAGPIE_EXPORT RetryBudget {
 public:
  /// std::invalid_argument for a ratio that is negative or not finite.
  RetryBudget(double ratio, std::size_t reserve);
  RetryBudget(const RetryBudget&) = delete;
  RetryBudget& operator=(const RetryBudget&) = delete;

  /// How many retries there would be now if nobody deposited.
  [[nodiscard]] std::size_t available() const noexcept;

 private:
  friend class detail::RetryLoop;
  void add(std::uint64_t amount) noexcept;
  bool withdraw() noexcept;

  const std::uint64_t ratio_;
  const std::uint64_t cap_;
  std::atomic<std::uint64_t> level_;
};

/// How often, how fast and what to retry. A value with chained setters; each replaces what was set
/// before.
class MAGPIE_EXPORT RetryPolicy {
 public:
  // Out of line, with the setters of functions: they would cost every program compile time.
  RetryPolicy() noexcept;
  RetryPolicy(const RetryPolicy& other);
  RetryPolicy(RetryPolicy&& other) noexcept;
  RetryPolicy& operator=(const RetryPolicy& other);
  RetryPolicy& operator=(RetryPolicy&& other) noexcept;
  ~RetryPolicy();

  /// How many attempts there are, the first one included. 3 if not set; retry() of 0 is
  /// std::invalid_argument.
  RetryPolicy& max_attempts(std::size_t n) noexcept {
    max_attempts_ = n;
    return *this;
  }
  /// A deadline for each attempt, from its own start: TimeoutError, which is an error as any other.
  /// None if not set.
  RetryPolicy& attempt_timeout(Duration timeout) noexcept {
    attempt_timeout_ = timeout;
    return *this;
  }
  /// A deadline for attempts and pauses together. A pause that would end past it is not begun: the
  /// error is thrown at once. If it passes within an attempt, that is cancelled: the error of the
  /// attempt before, or TimeoutError. None if not set.
  RetryPolicy& total_timeout(Duration timeout) noexcept {
    total_timeout_ = timeout;
    return *this;
  }
  /// The pauses. None if not set.
  RetryPolicy& backoff(Backoff backoff) noexcept {
    backoff_ = backoff;
    return *this;
  }
  /// fn(const std::exception_ptr&) -> bool: whether to retry after this error. Asked only when an
  /// attempt is left, never about a cancellation. Every error is retried if not set.
  RetryPolicy& retry_if(std::function<bool(const std::exception_ptr&)> fn) noexcept;
  /// The same for what gives something that only an `if` takes for a bool.
  template <detail::Predicate<const std::exception_ptr&> F>
  requires(!std::convertible_to<F, std::function<bool(const std::exception_ptr&)>>)
  RetryPolicy& retry_if(F fn) {
    return retry_if(std::function<bool(const std::exception_ptr&)>(
        [fn = std::move(fn)](const std::exception_ptr& error) mutable {
          return static_cast<bool>(std::invoke(fn, error));
        }));
  }
  /// fn(const RetryEvent&): called before each pause, once it is certain.
  RetryPolicy& on_retry(std::function<void(const RetryEvent&)> fn) noexcept;
  /// A budget that this retry shares with others; it must outlive the retry.
  RetryPolicy& budget(RetryBudget& budget) noexcept {
    budget_ = &budget;
    return *this;
  }
  /// For tests: every retry with this policy draws the same jitter. Without it each call draws its
  /// own; on a SimulatedExecutor what it draws follows from the executor's seed.
  RetryPolicy& seed(std::uint64_t seed) noexcept {
    seed_ = seed;
    return *this;
  }

 private:
  friend class detail::RetryLoop;
  std::size_t max_attempts_ = 3;
  Duration attempt_timeout_ = Duration::never();
  Duration total_timeout_ = Duration::never();
  Backoff backoff_;
  std::function<bool(const std::exception_ptr&)> retry_if_;
  std::function<void(const RetryEvent&)> on_retry_;
  RetryBudget* budget_ = nullptr;
  std::optional<std::uint64_t> seed_;
};

namespace detail {

struct AskScope : Question<AskScope, Scope&> {
  static Scope& answer(Scope& scope) noexcept { return scope; }
};

/// What a retry knows between its attempts: all that does not depend on the value's type.
class MAGPIE_EXPORT RetryLoop {
 public:
  /// `policy` must outlive it.
  explicit RetryLoop(const RetryPolicy& policy) noexcept : policy_(policy) {}
  RetryLoop(const RetryLoop&) = delete;
  RetryLoop& operator=(const RetryLoop&) = delete;

  /// Before the first attempt. Throws if there is to be none.
  void begin(Scope& scope);
  /// The limit of the attempt that begins now.
  TimeLimit next_limit() noexcept;
  /// The attempt failed; `timed_out`: by its limit. Gives the pause before the next one, or throws
  /// the error that ends it all.
  Duration failed(std::exception_ptr error, bool timed_out);
  /// After the pause. Throws if that was cancelled, or took too long.
  void rested(Result<void>&& pause);

 private:
  [[noreturn]] void give_up();
  Duration draw_pause();

  const RetryPolicy& policy_;
  Scope* scope_ = nullptr;
  Deadline end_ = Deadline::max();  // of the total
  bool limited_by_end_ = false;
  std::size_t failures_ = 0;
  std::exception_ptr last_;
  std::int64_t previous_pause_ = 0;
  Late<Random> random_;  // for jitter: not before it is needed
};

template <class F>
concept RetryFactory = std::invocable<std::remove_reference_t<F>&> &&
                       Awaitable<std::invoke_result_t<std::remove_reference_t<F>&>>;

template <class F>
using factory_callee_t = callee_t<std::invoke_result_t<std::remove_reference_t<F>&>>;

/// Makes what is awaited in an attempt.
struct MakeAttempt {
  template <class F>
  static auto make(F& factory) {
    return detail::make_callee(std::invoke(factory));
  }
};

template <class Callee>  // what every attempt awaits
Task<typename Callee::value_type> retry_task(AnyFactory<Callee> factory, RetryPolicy policy) {
  using T = typename Callee::value_type;
  RetryLoop loop(policy);
  loop.begin(co_await AskScope());
  for (;;) {
    std::exception_ptr error;
    bool timed_out = false;
    Late<TryTimeoutAwaiter<Callee>> attempt;
    try {
      attempt.emplace(factory(), loop.next_limit());
    } catch (...) {
      error = std::current_exception();
    }
    if (attempt) {
      Result<T> outcome = co_await std::move(*attempt);
      if (outcome.has_value()) {
        if constexpr (std::is_void_v<T>) {
          co_return;
        } else {
          co_return std::move(outcome).value();
        }
      }
      error = outcome.error();
      timed_out = outcome.is_timeout();
    }
    const Duration pause = loop.failed(std::move(error), timed_out);
    Result<void> rest = co_await as_result(sleep_for(pause));
    loop.rested(std::move(rest));
  }
}

template <class F>
auto retry_with(F&& factory, RetryPolicy&& policy) {
  using Callee = factory_callee_t<F>;
  return detail::retry_task<Callee>(
      AnyFactory<Callee>(std::type_identity<MakeAttempt>(), std::forward<F>(factory)),
      std::move(policy));
}

[[nodiscard]] MAGPIE_EXPORT bool is_timeout_error(const std::exception_ptr& error) noexcept;

}  // namespace detail

/// The value of the first attempt that succeeds; see the head of the file.
template <detail::RetryFactory F>
auto retry(F&& factory, RetryPolicy policy = RetryPolicy()) {
  return detail::retry_with(std::forward<F>(factory), std::move(policy));
}

/// At most so many attempts, each with its own timeout, and a pause between them. Only a
/// TimeoutError is retried: the attempt's deadline, or one that the task threw itself. Any other
/// error is thrown at once, and the last TimeoutError without a pause.
template <detail::RetryFactory F>
auto retry_with_timeout(F&& factory, std::size_t max_attempts, Duration timeout,
                        Duration pause = std::chrono::seconds(1)) {
  RetryPolicy policy;
  policy.max_attempts(max_attempts)
      .attempt_timeout(timeout)
      .backoff(Backoff::constant(pause))
      .retry_if(detail::is_timeout_error);
  return detail::retry_with(std::forward<F>(factory), std::move(policy));
}

}  // namespace magpie
