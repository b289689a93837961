// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// CPU loops: many calls of a plain function, shared among the workers.
//
//     co_await parallel_for(0, n, 0, [&](int i) { c[i] = a[i] + b[i]; });
//     co_await parallel_for_each(images, 1, [](Image& image) { image.sharpen(); });
//     long sum = co_await parallel_reduce(0, n, 0, 0L, [&](int i) { return a[i]; }, std::plus<>());
//
// Not for waiting: the functions are plain ones, and whoever wants to await something for each item
// uses gather or task_group.
//
// A loop is cut into grains: so many positions that one thread runs one after the other, in a plain
// loop. `grain` is that number; 0 lets the library choose (about 1/64 of a thread's share, at
// most 65,536). A range of one grain is a plain call. Grains begin at first + k * grain. Between
// grains a thread looks whether it is cancelled, whether others need it, and whether they have
// work: if not, it offers half of what it has left (lazy binary splitting, Tzannes et al., PPoPP
// 2010). No order between grains is promised.
//
// The functions are called by several threads at once, as lvalues; a function given as an lvalue is
// referenced, an rvalue is moved in. They run as part of the awaiting task, on its executor's
// threads.
//
// Cancellation: a cancellation point on entry, unless the range is empty, and between grains; what
// runs is waited for, and if nothing was left out the loop has its value all the same. Errors: the
// first exception stops the loop, as soon as the other threads have ended their grain, and is
// thrown; a real error goes before a cancellation. When the loop returns or throws, no function of
// it is running.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/fork_join.h>
#include <magpie/detail/loop.h>
#include <magpie/detail/ranges.h>
#include <magpie/task.h>

namespace magpie {

namespace detail {

template <class I>
concept LoopInteger = std::integral<I> && !std::same_as<std::remove_cv_t<I>, bool> &&
                      sizeof(I) <= sizeof(std::uint64_t);

/// What loops over first to last count with, and how far it is.
template <LoopInteger First, LoopInteger Last>
struct LoopRange {
  using Index = std::common_type_t<First, Last>;

  LoopRange(First the_first, Last the_last) : first(static_cast<Index>(the_first)) {
    // Signs first: -1 is not above every unsigned number.
    const bool first_below_zero = below_zero(the_first);
    const bool last_below_zero = below_zero(the_last);
    if (last_below_zero && !first_below_zero) return;
    if (first_below_zero == last_below_zero &&
        static_cast<std::uint64_t>(the_last) <= static_cast<std::uint64_t>(the_first))
      return;
    unsigned_below_zero = first_below_zero && std::is_unsigned_v<Index>;
    count = static_cast<std::uint64_t>(the_last) - static_cast<std::uint64_t>(the_first);
  }

  Index at(std::uint64_t position) const noexcept {
    return static_cast<Index>(static_cast<std::uint64_t>(first) +
                              position);  // modulo 2^64, so no number is out of range
  }

  /// How many; std::invalid_argument.
  std::uint64_t size() const {
    if (unsigned_below_zero) [[unlikely]]
      throw_unsigned();
    return count;
  }

  Index first;
  std::uint64_t count = 0;
  bool unsigned_below_zero = false;

 private:
  template <class I>
  static bool below_zero(I i) noexcept {
    if constexpr (std::is_signed_v<I>) {
      return i < 0;
    } else {
      return false;
    }
  }
  [[noreturn]] static void throw_unsigned() {
    throw std::invalid_argument(
        "a loop that begins below zero cannot count with an unsigned type: give both ends a signed "
        "one");
  }
};

template <class R>
constexpr void require_plain() {
  static_assert(!Awaitable<R>,
                "the functions of a CPU loop are plain ones: for tasks use gather, map_concurrent "
                "or task_group");
}

template <class Range, class Fn>  // Fn may be an lvalue reference
class [[nodiscard("co_await it")]] ParallelFor : public PlainLoop<ParallelFor<Range, Fn>> {
  using Base = PlainLoop<ParallelFor>;

 public:
  ParallelFor(const Range& range, std::size_t grain, Fn&& fn)
      : Base(grain), range_(range), fn_(std::forward<Fn>(fn)) {
    require_plain<std::invoke_result_t<Fn&, typename Range::Index>>();
  }
  ParallelFor(ParallelFor&& other)
      : Base(std::move(other)), range_(other.range_), fn_(std::forward<Fn>(other.fn_)) {}

  /// For the library.
  std::uint64_t size() const { return range_.size(); }
  void run_grain(std::uint64_t first, std::uint64_t last) {
    MAGPIE_ALIGNED_LOOP
    for (std::uint64_t i = first; i != last; ++i) static_cast<void>(std::invoke(fn_, range_.at(i)));
  }

 private:
  Range range_;
  Fn fn_;
};

template <class R, class Fn>  // R and Fn may be lvalue references
class [[nodiscard("co_await it")]] ParallelForEach : public PlainLoop<ParallelForEach<R, Fn>> {
  using Base = PlainLoop<ParallelForEach>;
  using Iterator = std::ranges::iterator_t<R>;

 public:
  ParallelForEach(R&& range, std::size_t grain, Fn&& fn)
      : Base(grain), range_(std::forward<R>(range)), fn_(std::forward<Fn>(fn)) {
    require_plain<std::invoke_result_t<Fn&, std::iter_reference_t<Iterator>>>();
  }
  ParallelForEach(ParallelForEach&& other)
      : Base(std::move(other)),
        range_(std::forward<R>(other.range_)),
        fn_(std::forward<Fn>(other.fn_)) {}

  /// For the library. The range stays where it is from here on.
  std::uint64_t size() {
    begin_.emplace(std::ranges::begin(range_));
    return static_cast<std::uint64_t>(std::ranges::distance(range_));
  }
  void run_grain(std::uint64_t first, std::uint64_t last) {
    const Iterator begin = *begin_;
    MAGPIE_ALIGNED_LOOP
    for (std::uint64_t i = first; i != last; ++i) {
      static_cast<void>(std::invoke(fn_, begin[static_cast<std::iter_difference_t<Iterator>>(i)]));
    }
  }

 private:
  R range_;
  Fn fn_;
  std::optional<Iterator> begin_;
};

/// A piece and what its stretch gives.
template <class T>
struct ReducePiece : Piece {
  std::optional<T> value;
};

template <class Range, class T, class Map,
          class Combine>  // Map and Combine may be lvalue references
class [[nodiscard("co_await it")]] ParallelReduce : public CombinatorBase, private Loop {
  using Index = typename Range::Index;
  using Mapped = std::invoke_result_t<Map&, Index>;

 public:
  using value_type = T;

  ParallelReduce(const Range& range, std::size_t grain, T&& identity, Map&& map, Combine&& combine)
      : Loop(kKind, grain),
        range_(range),
        identity_(std::move(identity)),
        map_(std::forward<Map>(map)),
        combine_(std::forward<Combine>(combine)) {
    require_plain<Mapped>();
    require_plain<std::invoke_result_t<Combine&, T&&, T&&>>();
  }
  ParallelReduce(ParallelReduce&& other)
      : Loop(std::move(other)),
        range_(other.range_),
        identity_(std::move(other.identity_)),
        map_(std::forward<Map>(other.map_)),
        combine_(std::forward<Combine>(other.combine_)) {}

  bool await_ready() const {
    require();
    return range_.size() == 0;
  }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    return start(*awaiting.promise().scope, awaiting, root_, range_.count);
  }
  T await_resume() {
    if (range_.count == 0) return std::move(identity_);
    conclude();
    return std::move(*root_.value);
  }

 private:
  using MyPiece = ReducePiece<T>;

  static ParallelReduce& of(Piece& piece) noexcept {
    return *static_cast<ParallelReduce*>(piece.loop);
  }

  // Left and right in one. The combination may refer to what it was given, so it is kept before
  // they are replaced.
  static void put(std::optional<T>& value, T&& combined) {
    if constexpr (std::is_move_assignable_v<T>) {
      *value = std::move(combined);
    } else {
      value.emplace(std::move(combined));
    }
  }

  T mapped(std::uint64_t position) {
    return static_cast<T>(std::invoke(map_, range_.at(position)));
  }

  // From here on a local variable, which the compiler may keep in a register.
  void run_grain(MyPiece& piece, std::uint64_t first, std::uint64_t last) {
    std::uint64_t i = first;
    std::optional<T>& value = piece.value;
    if constexpr (std::convertible_to<Mapped, T> || std::constructible_from<T, Mapped>) {
      if (!value) value.emplace(mapped(i++));
      if constexpr (std::is_trivially_copyable_v<T> && std::copy_constructible<T> &&
                    std::is_copy_assignable_v<T>) {
        T sum = *value;
        MAGPIE_ALIGNED_LOOP
        for (; i != last; ++i) sum = static_cast<T>(std::invoke(combine_, T(sum), mapped(i)));
        *value = sum;
      } else {
        for (; i != last; ++i)
          put(value, static_cast<T>(std::invoke(combine_, std::move(*value), mapped(i))));
      }
    } else {
      // What map gives is no T: it is combined with one.
      if (!value) value.emplace(std::as_const(identity_));
      for (; i != last; ++i) {
        put(value, static_cast<T>(
                       std::invoke(combine_, std::move(*value), std::invoke(map_, range_.at(i)))));
      }
    }
  }

  static constexpr LoopKind kKind{
      [](Piece& piece, std::uint64_t first, std::uint64_t last) {
        of(piece).run_grain(static_cast<MyPiece&>(piece), first, last);
      },
      []() noexcept -> Piece* { return allocate_piece<MyPiece>(); },
      [](Piece& left, Piece& right) {
        std::optional<T>& value = static_cast<MyPiece&>(left).value;
        put(value, static_cast<T>(std::invoke(of(left).combine_, std::move(*value),
                                              std::move(*static_cast<MyPiece&>(right).value))));
      },
      [](Piece* piece) noexcept { free_piece(static_cast<MyPiece*>(piece)); },
  };

  Range range_;
  T identity_;
  Map map_;
  Combine combine_;
  MyPiece root_;
};

}  // namespace detail

/// Calls fn(i) once for each integer i with first <= i < last; nothing if there is none. The index
/// has the common type of the two ends (std::invalid_argument if `first` is below zero and that is
/// unsigned). See the head of the file.
template <detail::LoopInteger First, detail::LoopInteger Last, class Fn>
requires std::invocable<std::remove_reference_t<Fn>&, std::common_type_t<First, Last>>
auto parallel_for(First first, Last last, std::size_t grain, Fn&& fn) {
  using Range = detail::LoopRange<First, Last>;
  return detail::ParallelFor<Range, Fn>(Range(first, last), grain, std::forward<Fn>(fn));
}

/// Calls fn(element) once for each element of a random-access range. A range given as an lvalue is
/// referenced, an rvalue is moved in; the elements live until the loop has ended.
template <std::ranges::random_access_range R, class Fn>
requires(!std::same_as<std::ranges::sentinel_t<R>, std::unreachable_sentinel_t> &&
         std::invocable<std::remove_reference_t<Fn>&, std::ranges::range_reference_t<R>>)
auto parallel_for_each(R&& range, std::size_t grain, Fn&& fn) {
  return detail::ParallelForEach<R, Fn>(std::forward<R>(range), grain, std::forward<Fn>(fn));
}

/// The combination of map(i) over the integers first <= i < last: combine(combine(map(first),
/// map(first + 1)), ...), grouped in any way but never reordered, so `combine` must be associative
/// and need not be commutative. Both arguments of combine, and the result, have the type of
/// `identity` (a map that gives something else has it converted); that may be move-only. `identity`
/// is the result of an empty range and is a neutral element of combine otherwise.
template <detail::LoopInteger First, detail::LoopInteger Last, class T, class Map, class Combine>
requires(std::invocable<std::remove_reference_t<Map>&, std::common_type_t<First, Last>> &&
         std::invocable<std::remove_reference_t<Combine>&, T, T>)
auto parallel_reduce(First first, Last last, std::size_t grain, T identity, Map&& map,
                     Combine&& combine) {
  using Range = detail::LoopRange<First, Last>;
  return detail::ParallelReduce<Range, T, Map, Combine>(Range(first, last), grain,
                                                        std::move(identity), std::forward<Map>(map),
                                                        std::forward<Combine>(combine));
}

/// Calls two plain functions, side by side if a worker is free, and gives both results as a pair:
/// void as std::monostate, references as they are. For recursion over data: a fork that nobody
/// takes costs a few nanoseconds more than the two calls.
///
///     auto [left, right] =
///         fork_join([&] { return sum(first, middle); }, [&] { return sum(middle, last); });
///
/// On a worker of a WorkStealingExecutor, in a task or in a function that one calls, it offers g to
/// the other workers, runs f, and then g, unless one of them has begun it. Then it waits, and
/// meanwhile runs only what other calls of fork_join have offered, on top of its own stack: never a
/// coroutine, so no task goes on in the middle of another. Do not hold a lock around it that such a
/// function may want. Anywhere else, on TbbExecutor and SimulatedExecutor too, it calls f and then
/// g.
///
/// Both always run and end before it returns or throws. f's exception goes before g's, which is
/// dropped then. It blocks its worker and is no cancellation point: for waiting, and for work that
/// should stop early, there is gather. Any thread may call it. The protocol: executor/FORK_JOIN.md;
/// after Lace (van Dijk and van de Pol, 2014) and Cilk's THE protocol.
template <detail::InvocableOnce F, detail::InvocableOnce G>
MAGPIE_ALWAYS_INLINE auto fork_join(F&& f, G&& g)
    -> std::pair<detail::fork_value_t<F>, detail::fork_value_t<G>> {
  using First = detail::fork_value_t<F>;
  detail::require_plain<detail::once_result_t<F>>();
  detail::require_plain<detail::once_result_t<G>>();
  const detail::ThisThread thread = detail::this_thread();
  detail::LocalQueue* const queue = thread->queue;
  if (queue == nullptr) [[unlikely]]
    return detail::both_in_turn<F, G>(f, g);
  detail::ForkedHalf<G> half(g, thread->locals);
  if (!detail::offer_job(queue, &half)) [[unlikely]]
    return detail::both_in_turn<F, G>(f, g);
  First first = detail::own_half<F, G>(f, queue, &half, g);
  if (detail::take_back(queue, &half)) [[likely]]
    return {static_cast<First&&>(first), detail::call_half<G>(g)};
  return {static_cast<First&&>(first), half.take()};
}

}  // namespace magpie
