// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bridge to services that speak Abseil: results as statuses, and statuses as errors.
//
//     absl::StatusOr<Reply> handle(const Request& request) {        // at the edge of the service
//       return to_status_or(executor.run(as_result(serve(request))));
//     }
//     Task<Row> serve(const Request& request) {                     // within it
//       co_return value_or_throw(table.find(request.key()));        // throws StatusError
//     }
//
//   a value                    OK
//   timed out                  DEADLINE_EXCEEDED, with what() of the TimeoutError
//   cancelled                  CANCELLED, with the reason
//   failed with a StatusError  its own status
//   failed otherwise           UNKNOWN, with what()
//
// "Timed out" is what Result::is_timeout() says: after try_timeout an inner timeout's error is an
// error as any other. Not in <magpie/magpie.h>, as it includes Abseil: link magpie::status.
//
// Threads: free functions of values.

#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/utility/utility.h>
#include <magpie/config.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

/// A status that is not OK, as an exception; what() is the status's text.
class MAGPIE_EXPORT StatusError : public std::runtime_error {
 public:
  /// std::invalid_argument for a status that is OK.
  explicit StatusError(absl::Status status)
      : std::runtime_error(text_of(status)), status_(std::move(status)) {}
  // Copying a status counts a reference, but does not say that it never throws.
  StatusError(const StatusError& other) noexcept
      : std::runtime_error(other), status_(other.status_) {}
  StatusError& operator=(const StatusError& other) noexcept {
    std::runtime_error::operator=(other);
    status_ = other.status_;
    return *this;
  }
  ~StatusError() override = default;

  [[nodiscard]] const absl::Status& status() const noexcept { return status_; }

 private:
  static std::string text_of(const absl::Status& status) {
    if (status.ok()) {
      throw std::invalid_argument(
          "a StatusError needs a status that is not OK: this one is no error");
    }
    return status.ToString();
  }

  absl::Status status_;
};

/// The outcome as a status; the table is at the head of the file.
template <class T>
[[nodiscard]] absl::Status to_status(const Result<T>& result) {
  const std::exception_ptr error = result.error();
  switch (result.outcome()) {
    case Outcome::value:
      break;
    case Outcome::timed_out:
      return absl::DeadlineExceededError(detail::describe(error));
    case Outcome::cancelled:
      return absl::CancelledError(detail::describe(error));
    case Outcome::error:
      if (const auto* const own = detail::exception_cast<StatusError>(error)) return own->status();
      return absl::UnknownError(detail::describe(error));
  }
  return absl::OkStatus();
}

/// The value, or the outcome as a status. A reference becomes a std::reference_wrapper; a result
/// without a value has to_status() alone.
template <class T>
[[nodiscard]] auto to_status_or(Result<T> result) {
  static_assert(!std::is_void_v<T>,
                "a Result<void> has no value that a StatusOr could hold: use to_status()");
  if constexpr (std::is_reference_v<T>) {
    using Value = absl::StatusOr<std::reference_wrapper<std::remove_reference_t<T>>>;
    return result.has_value() ? Value(std::ref(result.value())) : Value(magpie::to_status(result));
  } else {
    using Value = absl::StatusOr<std::remove_cv_t<T>>;
    return result.has_value() ? Value(absl::in_place, std::move(result).value())
                              : Value(magpie::to_status(result));
  }
}

/// The value; StatusError if there is none.
template <class T>
T value_or_throw(absl::StatusOr<T> value) {
  if (!value.ok()) throw StatusError(std::move(value).status());
  return *std::move(value);
}

/// Nothing; StatusError if the status is not OK.
inline void value_or_throw(const absl::Status& status) {
  if (!status.ok()) throw StatusError(status);
}

}  // namespace magpie
