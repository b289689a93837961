// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/config.h>
#include <magpie/detail/reason.h>

#include <exception>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>

// Looking into a std::exception_ptr without throwing what is in it: a throw and a catch cost more
// than a microsecond, and cancellations are sorted from errors at the end of every task that fails.
//
// With libstdc++ the question goes to the type information, as the unwinder itself does it, so
// that derived classes match and ambiguous bases do not. Elsewhere it is a rethrow and a catch.
//
// Threads: any; the pointers returned live as long as the exception does.

namespace magpie::detail {

#if defined(__GLIBCXX__)
// The E inside the exception, as void*; null when a handler for E would not take it.
[[nodiscard]] MAGPIE_EXPORT const void* find_in_exception(const std::exception_ptr& error,
                                                          const std::type_info& wanted) noexcept;
#endif

template <class E>
[[nodiscard]] const E* exception_cast(const std::exception_ptr& error) noexcept {
  static_assert(std::is_object_v<E> && !std::is_pointer_v<E> && !std::is_array_v<E>,
                "name the type of the exception object, without reference or pointer");
#if defined(__GLIBCXX__)
  return static_cast<const E*>(find_in_exception(error, typeid(E)));
#else
  if (!error) return nullptr;
  try {
    std::rethrow_exception(error);
  } catch (const E& found) {
    return &found;
  } catch (...) {
    return nullptr;
  }
#endif
}

// An E, made of the arguments. Where the memory for it is missing, the std::bad_alloc that says so:
// whoever tells of a failure must not fail, and is often noexcept.
template <class E, class... A>
[[nodiscard]] std::exception_ptr make_error(A&&... arguments) noexcept {
  try {
    return std::make_exception_ptr(E(std::forward<A>(arguments)...));
  } catch (...) {
    return std::current_exception();
  }
}

// One line for people: what() of a std::exception, the reason of a CancelledError, else the name
// of the type.
[[nodiscard]] MAGPIE_EXPORT std::string describe(const std::exception_ptr& error);

// For catch handlers. True when what is being handled is a CancelledError, and then its reason;
// else `error` is what is being handled, never null: an exception that C++ cannot hold on to
// (a foreign runtime's) becomes a std::bad_exception.
[[nodiscard]] MAGPIE_EXPORT bool current_exception_is_cancelled(ReasonRef& reason,
                                                                std::exception_ptr& error) noexcept;
[[nodiscard]] MAGPIE_EXPORT bool current_exception_is_cancelled(ReasonRef& reason) noexcept;

}  // namespace magpie::detail
