// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/reason.h>

#include <cassert>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

// Where the outcome of a task is kept: nothing yet, a value, an error or a cancellation.
//
// Not a Result: a slot may be empty, and it checks nothing that its owner knows anyway. It is
// written once for every child of every combinator, so that emplace() and take() of a value are a
// store and a compare; whatever throws is out of line.
//
// Threads: one at a time; whoever publishes the slot orders the accesses.

namespace magpie::detail {

enum class SlotState : std::uint8_t { empty, value, error, cancelled };

// What a Result notes about the error in its slot; here, because here is a byte to spare.
enum class TimeoutMark : std::uint8_t {
  by_type,  // a timeout if the stored exception is a TimeoutError
  never,    // an error whatever its type: somebody else's timeout
  always,
};

class SlotBase {
 public:
  SlotState state() const noexcept { return state_; }
  bool empty() const noexcept { return state_ == SlotState::empty; }
  bool has_value() const noexcept { return state_ == SlotState::value; }

  // Of any slot, with the address that its failure() gives.
  [[noreturn]] MAGPIE_COLD MAGPIE_EXPORT static void throw_failure(SlotState state,
                                                                   const void* failure);

  TimeoutMark timeout_mark() const noexcept { return mark_; }
  void set_timeout_mark(TimeoutMark mark) noexcept { mark_ = mark; }

  // There is an empty slot at this address again, whose memory had another use meanwhile.
  static void make_empty(void* place) noexcept { ::new (place) SlotBase; }

 protected:
  SlotBase() noexcept = default;
  SlotBase(const SlotBase&) noexcept = default;
  SlotBase& operator=(const SlotBase&) noexcept = default;
  ~SlotBase() = default;

  MAGPIE_EXPORT static void keep_for_ever(const std::exception_ptr& error) noexcept;
  // `failure` is the storage that holds the exception_ptr or the reason.
  MAGPIE_COLD MAGPIE_EXPORT static void destroy_failure(SlotState state, void* failure) noexcept;
  MAGPIE_SPARING static void destroy_failure_sparing(SlotState state, void* failure) noexcept {
    destroy_failure(state, failure);
  }
  MAGPIE_COLD MAGPIE_EXPORT static void copy_failure(SlotState state, void* to,
                                                     const void* from) noexcept;

  SlotState state_ = SlotState::empty;
  TimeoutMark mark_ = TimeoutMark::by_type;
};

struct Nothing {};

// T may be an object type, void, or an lvalue reference (kept as a pointer).
template <class T>
class Slot : public SlotBase {
  static_assert(!std::is_rvalue_reference_v<T>,
                "a task cannot return an rvalue reference: return the object itself");
  static_assert(std::is_void_v<T> || std::is_reference_v<T> || std::is_object_v<T>,
                "a task returns an object, an lvalue reference or void");
  static_assert(!std::is_array_v<T>, "a task cannot return an array: use std::array");

  static constexpr bool is_void = std::is_void_v<T>;
  static constexpr bool is_reference = std::is_reference_v<T>;
  using Stored = std::conditional_t<
      is_void, Nothing,
      std::conditional_t<is_reference, std::remove_reference_t<T>*, std::remove_cv_t<T>>>;
  static constexpr bool copyable = std::is_copy_constructible_v<Stored>;
  static constexpr bool movable = std::is_move_constructible_v<Stored>;
  static constexpr bool nothrow_movable = std::is_nothrow_move_constructible_v<Stored>;
  static constexpr bool nothrow_copyable = std::is_nothrow_copy_constructible_v<Stored>;

 public:
  using Reference = std::add_lvalue_reference_t<T>;  // void for void
  using ConstReference =
      std::conditional_t<is_reference, T, std::add_lvalue_reference_t<std::add_const_t<T>>>;

  Slot() noexcept : nothing_() {}

  // A slot that was moved from keeps its state: the value is moved from, a failure is still there.
  Slot(Slot&& other) noexcept(nothrow_movable)
  requires movable
      : nothing_() {
    take_over(std::move(other));
  }
  Slot(const Slot& other) noexcept(nothrow_copyable)
  requires copyable
      : nothing_() {
    take_over(other);
  }
  // When the value's move or copy throws, the target holds that exception: never nothing.
  Slot& operator=(Slot&& other) noexcept(nothrow_movable)
  requires movable
  {
    if (this != &other) assign(std::move(other));
    return *this;
  }
  Slot& operator=(const Slot& other) noexcept(nothrow_copyable)
  requires copyable
  {
    if (this != &other) assign(other);
    return *this;
  }
  ~Slot() { destroy(); }

  // The slot must be empty. When T's constructor throws it stays empty.
  template <class... A>
  void emplace(A&&... arguments) noexcept(is_void || is_reference ||
                                          std::is_nothrow_constructible_v<Stored, A...>) {
    assert(empty());
    if constexpr (is_void) {
      static_assert(sizeof...(A) == 0, "void has no value");
    } else if constexpr (is_reference) {
      static_assert(sizeof...(A) == 1, "a reference is bound to one object");
      T object(std::forward<A>(arguments)...);
      std::construct_at(&value_, std::addressof(object));
    } else {
      std::construct_at(std::addressof(value_), std::forward<A>(arguments)...);
    }
    state_ = SlotState::value;
  }
  void set_error(std::exception_ptr error) noexcept {
    reset();
#ifdef MAGPIE_TSAN
    // The count of an exception object is kept inside the C++ runtime, where ThreadSanitizer cannot
    // see that the last release comes after everybody's reading: there an exception that went
    // through a task is never freed.
    keep_for_ever(error);
#endif
    std::construct_at(&error_, std::move(error));
    state_ = SlotState::error;
  }
  void set_cancelled(ReasonRef reason) noexcept {
    reset();
    std::construct_at(&reason_, std::move(reason));
    state_ = SlotState::cancelled;
  }
  // In a catch handler: a CancelledError is a cancellation, anything else an error.
  MAGPIE_COLD void capture_current_exception() noexcept {
    ReasonRef reason;
    std::exception_ptr error;
    if (current_exception_is_cancelled(reason, error)) {
      set_cancelled(std::move(reason));
    } else {
      set_error(std::move(error));
    }
  }

  // These three need the matching state.
  Reference value() noexcept {
    assert(has_value());
    if constexpr (is_reference) {
      return *value_;
    } else if constexpr (!is_void) {
      return value_;
    }
  }
  ConstReference value() const noexcept {
    assert(has_value());
    if constexpr (is_reference) {
      return *value_;
    } else if constexpr (!is_void) {
      return value_;
    }
  }
  const std::exception_ptr& error() const noexcept {
    assert(state_ == SlotState::error);
    return error_;
  }
  const ReasonRef& reason() const noexcept {
    assert(state_ == SlotState::cancelled);
    return reason_;
  }

  // Where the error or the reason lies, if there is one: an std::exception_ptr, a ReasonRef.
  const void* failure() const noexcept { return &nothing_; }

  // The value, moved out; throws the error, or CancelledError with the reason. The slot must not
  // be empty, and keeps its state.
  T take() {
    require_value();
    if constexpr (is_reference) {
      return *value_;
    } else if constexpr (!is_void) {
      return std::move(value_);
    }
  }

  // Throws what the slot holds instead of a value.
  void require_value() const {
    if (MAGPIE_UNLIKELY(state_ != SlotState::value)) throw_failure(state_, &nothing_);
  }

  void reset() noexcept {
    destroy();
    state_ = SlotState::empty;
    mark_ = TimeoutMark::by_type;
  }

 private:
  void destroy() noexcept {
    if constexpr (!std::is_trivially_destructible_v<Stored>) {
      if (state_ == SlotState::value) std::destroy_at(std::addressof(value_));
    }
    if (MAGPIE_UNLIKELY(state_ > SlotState::value)) destroy_failure_sparing(state_, &nothing_);
  }

  // From an empty slot. Failures are copied also from an rvalue, so that none is left null.
  template <class Other>
  void take_over(Other&& other) {
    if (other.state_ == SlotState::value) {
      std::construct_at(std::addressof(value_), std::forward<Other>(other).value_);
    } else if (other.state_ != SlotState::empty) {
      copy_failure(other.state_, &nothing_, &other.nothing_);
    }
    state_ = other.state_;
    mark_ = other.mark_;
  }

  template <class Other>
  void assign(Other&& other) {
    reset();
    if constexpr (noexcept(Stored(std::forward<Other>(other).value_))) {
      take_over(std::forward<Other>(other));
    } else {
      try {
        take_over(std::forward<Other>(other));
      } catch (...) {
        capture_current_exception();
        throw;
      }
    }
  }

  union {
    Nothing nothing_;
    Stored value_;
    std::exception_ptr error_;
    ReasonRef reason_;
  };
};

}  // namespace magpie::detail
