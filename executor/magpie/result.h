// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>
#include <magpie/detail/slot.h>
#include <magpie/errors.h>

#include <concepts>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

// How a task ended, as a value: what as_result(), JoinHandle::result() and
// gather(return_exceptions) give.
//
//     Result<int> result = co_await as_result(work());
//     if (result.is_timeout()) co_return fallback;
//     use(result.value());   // throws what the task threw, if it did
//
// Not an std::expected: there is always a value or an exception in it, and it cannot be empty. A
// result that was moved from keeps its outcome; only its value is moved from.
//
// Threads: as any value: one writer or many readers.

namespace magpie {

/// How a task ended; each result has exactly one of these.
enum class Outcome : std::uint8_t {
  value,      ///< it returned
  error,      ///< it threw, and neither of the next two
  timed_out,  ///< it ended with a TimeoutError; for try_timeout: with that timeout's own
  cancelled,  ///< it ended with a CancelledError
};

namespace detail {
struct ResultAccess;
// Out of line: asks the exception for its type.
MAGPIE_EXPORT bool is_timeout(TimeoutMark mark, const std::exception_ptr& error) noexcept;
MAGPIE_EXPORT std::exception_ptr make_cancelled(const ReasonRef& reason) noexcept;
}  // namespace detail

/// The outcome of a Task<T>. T may be void or an lvalue reference. Copyable if T is.
template <class T>
class Result {
  static constexpr bool is_void = std::is_void_v<T>;
  static constexpr bool is_reference = std::is_reference_v<T>;

 public:
  /// Used by the library: the slot must not be empty.
  explicit Result(detail::Slot<T>&& slot) noexcept(
      std::is_nothrow_move_constructible_v<detail::Slot<T>>)
      : slot_(std::move(slot)) {}

  /// Used by the library. With own_timeout_only a TimeoutError in the slot is an error like any
  /// other: it came from a timeout further in.
  static Result from_slot(detail::Slot<T>&& slot, bool own_timeout_only = false) {
    Result result(std::move(slot));
    if (own_timeout_only) result.slot_.set_timeout_mark(detail::TimeoutMark::never);
    return result;
  }
  /// Used by the library: this timeout's own.
  static Result timed_out(std::exception_ptr error) noexcept {
    detail::Slot<T> slot;
    slot.set_error(std::move(error));
    slot.set_timeout_mark(detail::TimeoutMark::always);
    return Result(std::move(slot));
  }

  [[nodiscard]] Outcome outcome() const noexcept {
    switch (slot_.state()) {
      case detail::SlotState::error:
        return detail::is_timeout(slot_.timeout_mark(), slot_.error()) ? Outcome::timed_out
                                                                       : Outcome::error;
      case detail::SlotState::cancelled:
        return Outcome::cancelled;
      case detail::SlotState::value:
      case detail::SlotState::empty:
        break;
    }
    return Outcome::value;
  }
  [[nodiscard]] bool has_value() const noexcept { return slot_.has_value(); }
  [[nodiscard]] explicit operator bool() const noexcept { return has_value(); }
  /// Failed, and neither timed out nor cancelled.
  [[nodiscard]] bool is_error() const noexcept { return outcome() == Outcome::error; }
  /// Ended with a TimeoutError; from try_timeout: with that timeout's own.
  [[nodiscard]] bool is_timeout() const noexcept { return outcome() == Outcome::timed_out; }
  [[nodiscard]] bool is_cancelled() const noexcept {
    return slot_.state() == detail::SlotState::cancelled;
  }

  /// The value; throws what the task threw (CancelledError if it was cancelled). A reference is
  /// given as it is, whatever the result's own constness.
  std::add_lvalue_reference_t<T> value() & {
    slot_.require_value();
    return slot_.value();
  }
  typename detail::Slot<T>::ConstReference value() const& {
    slot_.require_value();
    return slot_.value();
  }
  std::add_rvalue_reference_t<T> value() && {
    slot_.require_value();
    if constexpr (!is_void) return static_cast<T&&>(slot_.value());
  }
  std::add_rvalue_reference_t<std::remove_reference_t<typename detail::Slot<T>::ConstReference>>
  value() const&&
  requires(!is_reference)
  {
    slot_.require_value();
    if constexpr (!is_void) return static_cast<const T&&>(slot_.value());
  }

  /// The value, or the other if there is none, whatever the reason.
  template <class U = std::remove_cv_t<T>>
  requires(!is_void && std::convertible_to<U, T> &&
           (!is_reference || std::is_lvalue_reference_v<U &&>))
  [[nodiscard]] T value_or(U&& other) const& {
    if (has_value()) return slot_.value();
    return static_cast<T>(std::forward<U>(other));
  }
  template <class U = std::remove_cv_t<T>>
  requires(!is_void && std::convertible_to<U, T> &&
           (!is_reference || std::is_lvalue_reference_v<U &&>))
  [[nodiscard]] T value_or(U&& other) && {
    if (has_value()) return static_cast<T&&>(slot_.value());
    return static_cast<T>(std::forward<U>(other));
  }

  /// Null when there is a value. For a cancellation a CancelledError, made at each call.
  [[nodiscard]] std::exception_ptr error() const noexcept {
    if (slot_.state() == detail::SlotState::error) return slot_.error();
    if (slot_.state() == detail::SlotState::cancelled)
      return detail::make_cancelled(slot_.reason());
    return nullptr;
  }

 private:
  friend struct detail::ResultAccess;
  Result() noexcept = default;

  detail::Slot<T> slot_;
};

namespace detail {

// For what builds a Result in place: it is empty only until its task has ended, and nobody outside
// of the library sees it before.
struct ResultAccess {
  template <class T>
  static Result<T> empty() noexcept {
    return Result<T>();
  }
  template <class T>
  static Slot<T>& slot(Result<T>& result) noexcept {
    return result.slot_;
  }
  template <class T>
  static const Slot<T>& slot(const Result<T>& result) noexcept {
    return result.slot_;
  }
};

}  // namespace detail
}  // namespace magpie
