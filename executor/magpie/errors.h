// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/reason.h>

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// What the library throws.
//
// Not here: errors that belong to one optional header (StatusError, testing::DeadlockError) live in
// it. Misuse of an operation is std::invalid_argument or std::logic_error with a sentence.
//
// All classes copy without throwing, may be thrown by users too, and can be read from several
// threads at once.

namespace magpie {

/// Thrown by a cancellation point in a cancelled scope. On purpose not a std::exception, so that
/// `catch (const std::exception&)` does not swallow a cancellation. A task that ends with it ends
/// cancelled; users may throw one for that. What goes on from a task that ended so is the reason:
/// an error class derived from this one arrives as a plain CancelledError with its reason.
class MAGPIE_EXPORT CancelledError {
 public:
  /// An empty message stands for the sentence of the kind (and for none if it is `requested`).
  explicit CancelledError(CancelReason reason = {}) noexcept
      : reason_(detail::ReasonRef::make(reason.kind, std::move(reason.message))) {}
  /// Used by the library: a null handle counts as `requested`.
  explicit CancelledError(detail::ReasonRef reason) noexcept
      : reason_(reason ? std::move(reason) : detail::ReasonRef::of_kind(CancelKind::requested)) {}

  // No moves: one that was moved from would have no reason.
  CancelledError(const CancelledError&) noexcept = default;
  CancelledError& operator=(const CancelledError&) noexcept = default;

  /// Why; lives as long as this object and every copy of it. Builds the message at the first call.
  [[nodiscard]] const CancelReason& reason() const noexcept { return reason_.get(); }

  /// Used by the library.
  [[nodiscard]] const detail::ReasonRef& reason_ref() const noexcept { return reason_; }

 private:
  detail::ReasonRef reason_;
};

/// A timeout's own deadline passed, and what ran under it has ended.
class MAGPIE_EXPORT TimeoutError : public std::runtime_error {
 public:
  TimeoutError() : TimeoutError("the operation timed out") {}
  using std::runtime_error::runtime_error;
  TimeoutError(const TimeoutError&) noexcept = default;
  TimeoutError& operator=(const TimeoutError&) noexcept = default;
  ~TimeoutError() override;
};

/// A handle was asked for a result that it does not have, not yet or not any more.
class MAGPIE_EXPORT InvalidStateError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
  InvalidStateError(const InvalidStateError&) noexcept = default;
  InvalidStateError& operator=(const InvalidStateError&) noexcept = default;
  ~InvalidStateError() override;
};

/// Send on a closed channel.
class MAGPIE_EXPORT ChannelClosedError : public std::runtime_error {
 public:
  ChannelClosedError() : ChannelClosedError("the channel is closed") {}
  using std::runtime_error::runtime_error;
  ChannelClosedError(const ChannelClosedError&) noexcept = default;
  ChannelClosedError& operator=(const ChannelClosedError&) noexcept = default;
  ~ChannelClosedError() override;
};

/// A Promise died without a value or an error.
class MAGPIE_EXPORT BrokenPromiseError : public std::runtime_error {
 public:
  BrokenPromiseError() : BrokenPromiseError("the promise was destroyed before it was set") {}
  using std::runtime_error::runtime_error;
  BrokenPromiseError(const BrokenPromiseError&) noexcept = default;
  BrokenPromiseError& operator=(const BrokenPromiseError&) noexcept = default;
  ~BrokenPromiseError() override;
};

/// Work was given to an executor that has shut down.
class MAGPIE_EXPORT ExecutorShutdownError : public std::runtime_error {
 public:
  ExecutorShutdownError() : ExecutorShutdownError("the executor has shut down") {}
  using std::runtime_error::runtime_error;
  ExecutorShutdownError(const ExecutorShutdownError&) noexcept = default;
  ExecutorShutdownError& operator=(const ExecutorShutdownError&) noexcept = default;
  ~ExecutorShutdownError() override;
};

/// Several failures in one.
///
///     try { co_await task_group(body); }
///     catch (const ExceptionGroup& group) {
///       group.for_each<std::system_error>([](const std::system_error& error) { log(error); });
///       if (auto rest = group.split<std::system_error>().second) throw *rest;
///     }
///
/// The queries descend into nested groups and match derived classes. They look at the failures, not
/// at the groups around them: `contains<std::runtime_error>()` does not count a nested group,
/// although that is one. Only a query for ExceptionGroup itself (or a class derived from it) finds
/// nested groups, whole.
///
/// Groups may be nested as deep as memory allows: to make one costs the same whatever is in the
/// nested ones, and neither the queries nor the last release recurse. A query needs memory only
/// where nested groups are followed by other failures; if there is none, std::bad_alloc.
class MAGPIE_EXPORT ExceptionGroup : public std::runtime_error {
 public:
  /// std::invalid_argument when the list is empty or has a null in it.
  ExceptionGroup(std::string message, std::vector<std::exception_ptr> exceptions);
  /// Without a message of its own.
  explicit ExceptionGroup(std::vector<std::exception_ptr> exceptions)
      : ExceptionGroup(std::string(), std::move(exceptions)) {}
  ExceptionGroup(const ExceptionGroup&) noexcept = default;
  ExceptionGroup& operator=(const ExceptionGroup&) noexcept = default;
  ~ExceptionGroup() override;

  /// In the order in which they happened. Not empty, none is null.
  [[nodiscard]] const std::vector<std::exception_ptr>& exceptions() const noexcept;

  /// What the group was made with; what() also has the number of failures and the first three, each
  /// cut after 200 bytes.
  [[nodiscard]] const std::string& message() const noexcept;

  /// Is there an E anywhere in the group?
  template <class E>
  [[nodiscard]] bool contains() const {
    for (Walk walk(*this); const std::exception_ptr* error = walk.next();) {
      if (matches<E>(*error) != nullptr) return true;
    }
    return false;
  }

  /// Calls function(const E&) for each E in order. What it throws goes through.
  template <class E, class F>
  requires requires(F& function, const E& error) { function(error); }
  void for_each(F&& function) const {
    for (Walk walk(*this); const std::exception_ptr* error = walk.next();) {
      if (const E* match = matches<E>(*error)) function(*match);
    }
  }

  /// The part of the group that is an E, nothing if none is. Nested groups stay nested groups, with
  /// the same messages.
  template <class E>
  [[nodiscard]] std::optional<ExceptionGroup> subgroup() const {
    return split<E>().first;
  }

  /// The part that is an E, and the rest.
  template <class E>
  [[nodiscard]] std::pair<std::optional<ExceptionGroup>, std::optional<ExceptionGroup>> split()
      const {
    return split_by(
        [](const std::exception_ptr& error) noexcept { return matches<E>(error) != nullptr; });
  }

 private:
  struct Content;

  // All that is in a group, in order; a nested group comes before what is in it.
  class MAGPIE_EXPORT Walk {
   public:
    explicit Walk(const ExceptionGroup& group) noexcept : here_(group) {}
    // Null: there is no more.
    const std::exception_ptr* next();

   private:
    struct Rest {
      explicit Rest(const ExceptionGroup& group) noexcept
          : next(group.exceptions().data()), end(next + group.exceptions().size()) {}
      const std::exception_ptr* next;
      const std::exception_ptr* end;
    };
    Rest here_;
    std::vector<Rest> outer_;  // of the groups around it, where something is left
  };

  static const ExceptionGroup* as_group(const std::exception_ptr& error) noexcept {
    return detail::exception_cast<ExceptionGroup>(error);
  }

  template <class E>
  static const E* matches(const std::exception_ptr& error) noexcept {
    const E* match = detail::exception_cast<E>(error);
    if constexpr (!std::is_base_of_v<ExceptionGroup, E>) {
      if (match != nullptr && as_group(error) != nullptr) return nullptr;
    }
    return match;
  }

  // Out of line, as nothing of it depends on E.
  [[nodiscard]] std::pair<std::optional<ExceptionGroup>, std::optional<ExceptionGroup>> split_by(
      bool (*is_one)(const std::exception_ptr&) noexcept) const;
  [[nodiscard]] std::optional<ExceptionGroup> part(
      std::vector<std::exception_ptr> exceptions) const;

  std::shared_ptr<const Content> content_;
};

}  // namespace magpie
