// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// gather: runs tasks side by side and gives all their results.
//
//     auto [a, b] = co_await gather(fetch(1), fetch(2));
//     std::vector<int> all = co_await gather(std::move(tasks));
//     // A Result<T> for each:
//     auto results = co_await gather(return_exceptions, fetch(1), fetch(2));
//
// What it takes: tasks, any other awaitable, and callables that are run as children (one that
// returns a task has it awaited). When it returns or throws, every child has ended: it is not a way
// to start something in the background.
//
//   gather(...)                     the first failure cancels the siblings, which are waited for,
//                                   and is rethrown
//   gather(keep_going, ...)         siblings run on; then the first failure is thrown
//   gather(return_exceptions, ...)  nothing is thrown once it is entered: a Result<T> for each
//
// A child that ended cancelled on its own counts as a failure; a real error goes before a
// cancellation. If the caller is cancelled, so are the children; if they all return values
// nevertheless, these are returned. Cancellation point on entry, unless empty. No order between
// children is promised. Starts when awaited; resumes on the executor where it was awaited. A fork
// that no other worker takes costs no atomic read-modify-write (executor/JOIN.md).

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/children.h>
#include <magpie/detail/gathered.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

namespace detail {

/// The join of a gather: who failed first.
// Before the join, whose first words are cleared with the last one here. What is cleared does not
// begin with the awaitable's own address, nor does the join: every path through the coroutine would
// compute that at its beginning, and keep it in a register that has to be saved. So the first word
// is one that is not cleared.
struct GatherState {
  std::uint64_t owed = 1;  // whether there is anything to destroy, see Children::kNothingLeft
  // 0 while every child that has ended gave a value. Else kAny, and the numbers (from 1) of the
  // first child that failed and of the first that ended cancelled on its own; or a mark.
  std::atomic<std::uint64_t> failures{0};
};

struct GatherJoin : GatherState, Join {
  static constexpr std::uint64_t kAny = std::uint64_t{1} << 63;
  static constexpr int kCancelledShift = 32;
  static constexpr std::uint64_t kNumber = 0x7fffffff;
  static constexpr std::uint64_t kRefused = ~std::uint64_t{0};  // cancelled before it began

  static std::uint32_t first_error(std::uint64_t failures) noexcept {
    return static_cast<std::uint32_t>(failures & 0xffffffff);
  }
  static std::uint32_t first_cancelled(std::uint64_t failures) noexcept {
    return static_cast<std::uint32_t>((failures >> kCancelledShift) & kNumber);
  }

  MAGPIE_EXPORT static void settle_fail_fast(Join* join, Rec* rec, SlotState outcome) noexcept;
  MAGPIE_EXPORT static void settle_keep_going(Join* join, Rec* rec, SlotState outcome) noexcept;
  MAGPIE_EXPORT static void settle_nothing(Join* join, Rec* rec, SlotState outcome) noexcept;
  /// After the join, when something went wrong: leaves the scope, and throws unless all that
  /// happened is that the scope was touched.
  MAGPIE_EXPORT MAGPIE_COLD static void conclude_slowly(Join* join, Outcomes outcomes);
};

/// Throws what a combinator throws that was cancelled: the reason from outside, else `own`, else
/// `fallback`.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_join_cancelled(const Scope& scope,
                                                                 const ReasonRef& own,
                                                                 const ReasonRef& fallback);

template <class Policy, class Children>
class GatherBase : public CombinatorBase, protected GatherJoin {
 public:
  template <class... A>
  MAGPIE_FLAT explicit GatherBase(std::in_place_t, A&&... given)
      : children_(std::in_place, std::forward<A>(given)...) {}
  MAGPIE_FLAT ~GatherBase() {
    if (owed == 0) [[likely]] {
      children_.free_memory();
      return;
    }
    destroy_unspent_sparing(this);
  }
  GatherBase(GatherBase&& other) : children_(std::move(other.children_)) {}

  MAGPIE_FLAT bool await_ready() {
    if (children_.spent()) [[unlikely]]
      throw_awaited_twice();
    return children_.size() == 0;
  }

  template <class P>
  MAGPIE_FLAT_SUSPEND std::coroutine_handle<> await_suspend(
      std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    // First: what a child's constructor has cleared need not be written then, if nobody reads in
    // between.
    arm_children<false>(*this, children_);
    if (outer.maybe_cancelled()) [[unlikely]]
      return start_if_not_cancelled(this, outer, awaiting);
    return start(outer, awaiting);
  }

 protected:
  /// After the join: leaves the scope, throws what has to be thrown.
  MAGPIE_ALWAYS_INLINE void conclude() {
    if constexpr (std::same_as<Policy, ReturnExceptions>) {
      if (children_.size() == 0) return;
      if (failures.load(std::memory_order_relaxed) == kRefused)
        throw CancelledError(scope.parent()->reason());
      leave_scope(scope);
      children_.for_each([&](auto& child) {
        if (child.slot().empty()) child.slot().set_cancelled(scope.outside_reason());
      });
    } else {
      // Relaxed: ordered by the join. Without children there was none, and nothing was touched.
      if ((failures.load(std::memory_order_relaxed) | scope.touched()) != 0) [[unlikely]] {
        GatherJoin::conclude_slowly(this, children_.outcomes());
      } else if constexpr (Children::kNothingLeft) {
        owed = 0;
      }
    }
  }

  union {
    Children children_;
  };

 private:
  MAGPIE_FLAT std::coroutine_handle<> start(Scope& outer,
                                            std::coroutine_handle<> awaiting) noexcept {
    scope.enter(&outer, outer.task());
    kind = &kKind;
    parent = awaiting;
    return detail::start_armed(*this, children_, false);
  }
  // A call in the place of start(): nothing is read again behind it there.
  // And these functions are given the join, not the gather: see GatherState.
  MAGPIE_COLD static std::coroutine_handle<> start_if_not_cancelled(
      Join* join, Scope& outer, std::coroutine_handle<> awaiting) noexcept {
    GatherBase* const self = of(join);
    if (!outer.cancelled()) return self->start(outer, awaiting);
    refuse_children(self->children_);
    self->scope.enter(&outer, outer.task());
    self->failures.store(kRefused, std::memory_order_relaxed);
    return detail::transfer(awaiting);
  }
  static GatherBase* of(Join* join) noexcept {
    return static_cast<GatherBase*>(static_cast<GatherJoin*>(join));
  }

  void destroy_unspent() noexcept {
    std::destroy_at(&children_);
    destroy_scope();
  }
  MAGPIE_SPARING static void destroy_unspent_sparing(Join* join) noexcept {
    of(join)->destroy_unspent();
  }

  static Outcomes outcomes_of(Join* join) noexcept { return of(join)->children_.outcomes(); }

 protected:
  static constexpr JoinKind kKind{std::same_as<Policy, FailFast>    ? &GatherJoin::settle_fail_fast
                                  : std::same_as<Policy, KeepGoing> ? &GatherJoin::settle_keep_going
                                                                    : &GatherJoin::settle_nothing,
                                  &GatherBase::outcomes_of, false, Children::kStride};
};

template <class Policy, class... Child>
class [[nodiscard("co_await it")]] GatherPack : public GatherBase<Policy, ChildPack<Child...>> {
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;

 public:
  using value_type = std::conditional_t<kResults, std::tuple<Result<typename Child::value_type>...>,
                                        std::tuple<regular_t<typename Child::value_type>...>>;
  template <class... A>
  MAGPIE_FLAT explicit GatherPack(std::in_place_t, A&&... given)
      : GatherBase<Policy, ChildPack<Child...>>(std::in_place, std::forward<A>(given)...) {}

  MAGPIE_FLAT value_type await_resume() {
    this->conclude();
    return this->children_.apply([](Child&... child) {
      if constexpr (kResults) {
        return value_type(Result<typename Child::value_type>(std::move(child.slot()))...);
      } else {
        return value_type(value_of(child.slot())...);
      }
    });
  }
};

template <class Policy, class Child>
class [[nodiscard("co_await it")]] GatherVector : public GatherBase<Policy, ChildVector<Child>> {
  using T = typename Child::value_type;
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;

 public:
  using value_type = typename GatheredVector<T, kResults>::type;
  template <class R>
  MAGPIE_FLAT explicit GatherVector(std::in_place_t, R&& range)
      : GatherBase<Policy, ChildVector<Child>>(std::in_place, std::forward<R>(range)) {}

  MAGPIE_FLAT value_type await_resume() {
    this->conclude();
    if constexpr (!std::is_void_v<value_type>) {
      // From iterators that tell how many there are: memory is taken once, and whether it suffices
      // is not asked again.
      return value_type(ResultAt{this->children_.data(), this->children_.size()},
                        ResultAt{nullptr, 0});
    }
  }

 private:
  /// Where a result is moved from: so many are left, this one is the child's. What a vector's
  /// constructor asks of a random access iterator.
  struct ResultAt {
    using iterator_category = std::random_access_iterator_tag;
    using value_type = typename GatheredVector<T, kResults>::type::value_type;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = std::conditional_t<kResults, Result<T>, regular_t<T>&&>;

    reference operator*() const {
      if constexpr (kResults) {
        return Result<T>(std::move(child->slot()));
      } else if constexpr (std::is_reference_v<T>) {
        return child->slot().value();
      } else {
        return std::move(child->slot().value());
      }
    }
    ResultAt& operator++() noexcept {
      ++child;
      --left;
      return *this;
    }
    bool operator==(const ResultAt& other) const noexcept { return left == other.left; }
    difference_type operator-(const ResultAt& other) const noexcept {
      return static_cast<difference_type>(other.left - left);
    }

    Child* child;
    std::size_t left;
  };
};

#ifdef MAGPIE_HAS_IN_REGISTER
/// Frees what others gave, and throws that one is empty. All in arguments, so that nothing of it is
/// in memory, or is anybody's to free, unless it comes to that.
template <class... Frame>
[[noreturn]] MAGPIE_COLD void refuse_frames(Frame... frames) {
  for (const std::uintptr_t frame : {frames...}) {
    if (frame != 0)
      destroy_unstarted(
          std::coroutine_handle<PromiseBase>::from_address(reinterpret_cast<void*>(frame)));
  }
  throw_moved_from_task();
}

template <class... T, class... Frame>
MAGPIE_FLAT inline auto gather_frames(Frame... frames) {
  const bool all_there = (... && (frames != 0));
  if (!all_there) [[unlikely]]
    refuse_frames(frames...);
  return GatherPack<FailFast, TaskChild<T>...>(std::in_place, GivenFrame{frames}...);
}
#endif

template <class A>
concept GatherPolicy = std::same_as<std::remove_cvref_t<A>, KeepGoing> ||
                       std::same_as<std::remove_cvref_t<A>, ReturnExceptions>;

template <class Policy, class... A>
MAGPIE_FLAT inline auto gather_as(A&&... given) {
  if constexpr (sizeof...(A) == 1 && (ChildRange<A> && ...)) {
    return GatherVector<Policy, typename detail::RangeChild<A...>::type>(std::in_place,
                                                                         std::forward<A>(given)...);
  } else {
    return GatherPack<Policy, child_t<A>...>(std::in_place, std::forward<A>(given)...);
  }
}

}  // namespace detail

/// Fails fast: see the head of the file. A tuple of the results, void as std::monostate; of a range
/// a vector in input order, nothing for tasks without a value, reference_wrappers for references.
template <class... A>
requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
MAGPIE_FLAT inline auto gather(A&&... tasks) {
  return detail::gather_as<detail::FailFast>(std::forward<A>(tasks)...);
}

#ifdef MAGPIE_HAS_IN_REGISTER
// Tasks alone are given in registers.
template <class... T>
requires(sizeof...(T) > 0)
MAGPIE_FLAT inline auto gather(Task<T>... tasks) {
  return detail::gather_frames<T...>(std::move(tasks).take_frame().release()...);
}
#endif

/// Lets the siblings of a failed child run on, then throws the first failure.
template <class... A>
requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
MAGPIE_FLAT inline auto gather(KeepGoing, A&&... tasks) {
  return detail::gather_as<KeepGoing>(std::forward<A>(tasks)...);
}

/// A Result<T> for each, in input order. In a scope that is cancelled on entry it throws, and
/// starts nothing.
template <class... A>
requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
MAGPIE_FLAT inline auto gather(ReturnExceptions, A&&... tasks) {
  return detail::gather_as<ReturnExceptions>(std::forward<A>(tasks)...);
}

}  // namespace magpie

#include <magpie/limited.h>
