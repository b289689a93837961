// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How map_concurrent and batch get at the items of a range that somebody else wrote.

#include <concepts>
#include <iterator>
#include <type_traits>

#include <magpie/detail/awaitable.h>
#include <magpie/detail/ranges.h>

namespace magpie::detail {

/// The items of a range of type R (an lvalue reference, or moved in), and what F gets of them.
template <class R, class F>
struct MapTraits {
  using Range = std::remove_reference_t<R>;
  using Function = std::remove_reference_t<F>&;
  using Reference = std::ranges::range_reference_t<Range>;
  static constexpr bool kReadAgain = std::ranges::forward_range<Range>;
  static constexpr bool kInPlace = kReadAgain && std::is_lvalue_reference_v<Reference>;
  // What is kept beside the task: what was made on the way as it is; of what passes by just once, a
  // value.
  using Kept = std::conditional_t<kReadAgain, std::remove_cvref_t<Reference>,
                                  std::ranges::range_value_t<Range>>;
  // Whether nobody else has the item. A view's elements are somebody else's.
  static constexpr bool kOurs =
      !kInPlace || (!std::is_lvalue_reference_v<R> && !std::ranges::view<std::remove_cv_t<Range>> &&
                    !std::is_const_v<std::remove_reference_t<Reference>>);
  using Item = std::conditional_t<kInPlace, std::remove_reference_t<Reference>, Kept>;
  using Argument = std::conditional_t<kOurs && std::invocable<Function, Item&&>, Item&&, Item&>;

  /// What is kept of the item at `at`; what cannot be copied from there is moved.
  template <class Iterator>
  static Kept keep(Iterator& at) {
    if constexpr (std::constructible_from<Kept, Reference>) {
      return Kept(*at);
    } else {
      return Kept(std::ranges::iter_move(at));
    }
  }
};

/// What F gives for an item, before it is awaited.
template <class R, class F>
using map_call_t =
    std::invoke_result_t<typename MapTraits<R, F>::Function, typename MapTraits<R, F>::Argument>;

template <class R, class F>
concept Mappable =
    std::ranges::input_range<std::remove_reference_t<R>> &&
    std::invocable<typename MapTraits<R, F>::Function, typename MapTraits<R, F>::Argument> &&
    Awaitable<map_call_t<R, F>>;

}  // namespace magpie::detail
