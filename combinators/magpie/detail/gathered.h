// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What gather and its relatives take and give: their policies, ranges of children, vectors of
// results.

#include <functional>
#include <iterator>
#include <type_traits>
#include <vector>

#include <magpie/detail/children.h>
#include <magpie/detail/ranges.h>
#include <magpie/result.h>

namespace magpie {

/// Policy tags of gather.
struct KeepGoing {};
struct ReturnExceptions {};
inline constexpr KeepGoing keep_going{};
inline constexpr ReturnExceptions return_exceptions{};

namespace detail {

struct FailFast {};

/// A range of children: not itself an awaitable or callable.
template <class R>
concept ChildRange = std::ranges::input_range<R> && !ChildLike<R>;

template <class T>
struct GatheredElement {
  using type = std::remove_cv_t<T>;  // a vector has no const elements
};
template <class T>
struct GatheredElement<T&> {
  using type = std::reference_wrapper<T>;
};

/// What a range of tasks of T gives.
template <class T, bool kResults>
struct GatheredVector {
  using type = std::vector<typename GatheredElement<T>::type>;
};
template <class T>
struct GatheredVector<T, true> {
  using type = std::vector<Result<T>>;
};
template <class T>
requires std::is_void_v<T>
struct GatheredVector<T, false> {
  using type = void;
};

}  // namespace detail
}  // namespace magpie
