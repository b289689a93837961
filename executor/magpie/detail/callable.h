// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a callable that is kept is called. F is its type as deduced: an lvalue reference if it is
// somebody else's, which is called as the lvalue that it is, however often. What was moved in and
// is called exactly once is called as an rvalue, as std::thread does, if it can be called as one;
// what is called repeatedly, as an lvalue.

#include <concepts>
#include <type_traits>

namespace magpie::detail {

/// `std::invoke(static_cast<once_t<F, Args...>>(function), ...)` is the one call.
template <class F, class... Args>
using once_t = std::conditional_t<std::invocable<F, Args...>, F&&, F&>;

template <class F, class... Args>
concept InvocableOnce = std::invocable<once_t<F, Args...>, Args...>;

template <class F, class... Args>
using once_result_t = std::invoke_result_t<once_t<F, Args...>, Args...>;

/// What answers yes or no, each time it is asked: all that an `if` takes.
template <class F, class... Args>
concept Predicate =
    std::invocable<std::remove_reference_t<F>&, Args...> &&
    std::constructible_from<bool, std::invoke_result_t<std::remove_reference_t<F>&, Args...>>;

}  // namespace magpie::detail
