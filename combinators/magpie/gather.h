// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// gather: runs tasks side by side and gives all their results.
//
//     auto [a, b] = co_await gather(fetch(1), fetch(2));
//     std::vector<int> all = co_await gather(std::move(tasks));
//     auto results = co_await gather(return_exceptions, fetch(1), fetch(2));   // a Result<T> for each
//
// What it takes: tasks, any other awaitable, and callables that are run as children (one that returns a task has it awaited).
// When it returns or throws, every child has ended: it is not a way to start something in the background.
//
//   gather(...)                     the first failure cancels the siblings; they are waited for; it is rethrown
//   gather(keep_going, ...)         siblings run on; then the first failure is thrown
//   gather(return_exceptions, ...)  nothing is thrown once it is entered: a Result<T> for each
//
// A child that ended cancelled on its own counts as a failure; a real error goes before a cancellation. If the caller is cancelled,
// so are the children; if they all return values nevertheless, these are returned. Cancellation point on entry, unless empty.
// No order between children is promised. Starts when awaited; resumes on the executor where it was awaited. A fork that no other
// worker takes costs no atomic read-modify-write (executor/JOIN.md).

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/child.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie {

/// Policy tags of gather.
struct KeepGoing {};
struct ReturnExceptions {};
inline constexpr KeepGoing keep_going{};
inline constexpr ReturnExceptions return_exceptions{};

namespace detail {

struct FailFast {};

/// The join of a gather: who failed first.
struct GatherJoin : Join {
  GatherJoin() = default;
  GatherJoin(GatherJoin&&) noexcept : Join() {}

  std::atomic<Rec*> first_error{nullptr};
  std::atomic<Rec*> first_cancelled{nullptr};  // cancelled on its own
  std::atomic<bool> any_failed{false};         // some child has no value
  void* owner = nullptr;                       // the awaiter
  std::exception_ptr (*error_of)(GatherJoin*, Rec*) = nullptr;

  MAGPIE_EXPORT static void settle_fail_fast(Join* join, Rec* rec, SlotState outcome) noexcept;
  MAGPIE_EXPORT static void settle_keep_going(Join* join, Rec* rec, SlotState outcome) noexcept;
  MAGPIE_EXPORT static void settle_nothing(Join* join, Rec* rec, SlotState outcome) noexcept;
};

/// Throws what a combinator throws that was cancelled: the reason from outside, else its own, else `fallback`.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_join_cancelled(const Scope& scope, const ReasonRef& own, const ReasonRef& fallback);

template <class Policy, class Children>
class GatherBase : public CombinatorBase {
 public:
  explicit GatherBase(Children&& children) : children_(std::move(children)) {}
  GatherBase(GatherBase&& other) : children_(std::move(other.children_)) {}

  bool await_ready() const noexcept { return children_.size() == 0; }

  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    if (outer.cancelled()) [[unlikely]] {
      refused_ = outer.reason();
      return awaiting;
    }
    join_.scope.enter(&outer, outer.task());
    join_.units = static_cast<std::uint32_t>(children_.size());
    join_.parent = awaiting;
    entered_ = true;
    if constexpr (std::same_as<Policy, FailFast>) {
      join_.settle = &GatherJoin::settle_fail_fast;
    } else if constexpr (std::same_as<Policy, KeepGoing>) {
      join_.settle = &GatherJoin::settle_keep_going;
    } else {
      join_.settle = &GatherJoin::settle_nothing;
    }
    join_.error_of = [](GatherJoin* join, Rec* rec) {
      auto* const self = reinterpret_cast<GatherBase*>(join->owner);
      std::exception_ptr error;
      self->children_.for_each([&](auto& child) {
        if (static_cast<Rec*>(&child) == rec && child.slot.state() == SlotState::error) error = child.slot.error();
      });
      return error;
    };
    join_.owner = this;
    return start_join(join_, children_, nullptr);
  }

 protected:
  /// After the join: leaves the scope, throws what has to be thrown.
  void conclude() {
    if (!entered_) [[unlikely]] {
      if (children_.size() != 0) throw CancelledError(std::move(refused_));
      return;
    }
    ReasonRef own;
    if (join_.scope.cancelled_itself()) [[unlikely]] own = join_.scope.own_reason();
    leave_scope(join_.scope);
    if constexpr (std::same_as<Policy, ReturnExceptions>) {
      children_.for_each([&](auto& child) {
        if (child.slot.empty()) child.slot.set_cancelled(join_.scope.outside_reason());
      });
    } else {
      Rec* const error = join_.first_error.load(std::memory_order_relaxed);  // ordered by the join
      Rec* const cancelled = join_.first_cancelled.load(std::memory_order_relaxed);
      if (error != nullptr || cancelled != nullptr || own || join_.any_failed.load(std::memory_order_relaxed)) [[unlikely]] {
        throw_failure(error, cancelled, own);
      }
    }
  }

  Children children_;

 private:
  MAGPIE_COLD void throw_failure(Rec* error, Rec* cancelled, const ReasonRef& own) {
    bool values = true;
    ReasonRef childs;
    children_.for_each([&](auto& child) {
      if (static_cast<Rec*>(&child) == error) child.slot.require_value();
      if (child.slot.state() != SlotState::value) values = false;
      if (static_cast<Rec*>(&child) == cancelled && child.slot.state() == SlotState::cancelled) childs = child.slot.reason();
    });
    if (!values) throw_join_cancelled(join_.scope, childs, own);
  }

  GatherJoin join_;
  ReasonRef refused_;
  bool entered_ = false;
};

template <class Policy, class... Child>
class [[nodiscard("co_await it")]] GatherPack : public GatherBase<Policy, ChildPack<Child...>> {
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;

 public:
  using value_type = std::conditional_t<kResults, std::tuple<Result<typename Child::value_type>...>,
                                        std::tuple<regular_t<typename Child::value_type>...>>;
  using GatherBase<Policy, ChildPack<Child...>>::GatherBase;

  value_type await_resume() {
    this->conclude();
    return std::apply(
        [](Child&... child) {
          if constexpr (kResults) {
            return value_type(Result<typename Child::value_type>(std::move(child.slot))...);
          } else {
            return value_type(take_regular(child.slot)...);
          }
        },
        this->children_.tuple());
  }
};

template <class T>
struct GatheredElement {
  using type = T;
};
template <class T>
struct GatheredElement<T&> {
  using type = std::reference_wrapper<T>;
};

template <class Policy, class Child>
class [[nodiscard("co_await it")]] GatherVector : public GatherBase<Policy, ChildVector<Child>> {
  using T = typename Child::value_type;
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;
  template <class U>
  struct Plain {
    using type = std::vector<typename GatheredElement<U>::type>;
  };
  template <class U>
    requires std::is_void_v<U>
  struct Plain<U> {
    using type = void;
  };

 public:
  using value_type = typename std::conditional_t<kResults, std::type_identity<std::vector<Result<T>>>, Plain<T>>::type;
  using GatherBase<Policy, ChildVector<Child>>::GatherBase;

  value_type await_resume() {
    this->conclude();
    if constexpr (!std::is_void_v<value_type>) {
      value_type results;
      results.reserve(this->children_.size());
      for (Child& child : this->children_.vector()) {
        if constexpr (kResults) {
          results.push_back(Result<T>(std::move(child.slot)));
        } else {
          results.push_back(child.slot.take());
        }
      }
      return results;
    }
  }
};

template <class A>
concept GatherPolicy = std::same_as<std::remove_cvref_t<A>, KeepGoing> || std::same_as<std::remove_cvref_t<A>, ReturnExceptions>;

/// A range of children: not itself an awaitable or callable.
template <class R>
concept ChildRange = std::ranges::input_range<R> && !ChildLike<R>;

template <class Policy, class... A>
auto gather_as(A&&... given) {
  if constexpr (sizeof...(A) == 1 && (ChildRange<A> && ...)) {
    auto children = children_of(std::forward<A>(given)...);
    using Child = typename std::remove_cvref_t<decltype(children.vector())>::value_type;
    return GatherVector<Policy, Child>(std::move(children));
  } else {
    using Pack = ChildPack<child_t<A>...>;
    return GatherPack<Policy, child_t<A>...>(Pack(std::in_place, std::forward<A>(given)...));
  }
}

}  // namespace detail

/// Fails fast: see the head of the file. A tuple of the results, void as std::monostate; of a range a vector in input order,
/// nothing for tasks without a value, reference_wrappers for references.
template <class... A>
  requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
auto gather(A&&... tasks) {
  return detail::gather_as<detail::FailFast>(std::forward<A>(tasks)...);
}

/// Lets the siblings of a failed child run on, then throws the first failure.
template <class... A>
  requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
auto gather(KeepGoing, A&&... tasks) {
  return detail::gather_as<KeepGoing>(std::forward<A>(tasks)...);
}

/// A Result<T> for each, in input order. In a scope that is cancelled on entry it throws, and starts nothing.
template <class... A>
  requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
auto gather(ReturnExceptions, A&&... tasks) {
  return detail::gather_as<ReturnExceptions>(std::forward<A>(tasks)...);
}

}  // namespace magpie
