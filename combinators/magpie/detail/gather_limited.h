// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The awaiters of gather_limited: lanes over tasks that lie in a vector or a tuple.

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <functional>
#include <iterator>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/children.h>
#include <magpie/detail/gathered.h>
#include <magpie/detail/limited_base.h>
#include <magpie/detail/slot.h>

namespace magpie::detail {

template <class R, class F>  // F may be an lvalue reference
Task<R> called_task(F function) {
  using Given = once_result_t<F>;
  if constexpr (Awaitable<Given>) {
    co_return co_await detail::as_task(std::invoke(static_cast<once_t<F>>(function)));
  } else {
    co_return std::invoke(static_cast<once_t<F>>(function));
  }
}

/// Anything that gather takes, as a task.
template <class A>
auto child_task(A&& given) {
  if constexpr (Awaitable<A>) {
    return detail::as_task(std::forward<A>(given));
  } else {
    return called_task<typename CallValue<A>::type, A>(std::forward<A>(given));
  }
}

template <class T>
struct LimitedChild {
  using value_type = T;
  template <class A>
  explicit LimitedChild(std::in_place_t, A&& given)
      : frame(detail::child_task(std::forward<A>(given)).take_frame()) {
    frame.require();
  }
  LimitedChild(LimitedChild&& other) noexcept
      : frame(std::move(other.frame)) {}  // not started yet: the slot is empty

  TaskFrame<T> frame;
  Slot<T> slot;
};

template <class Policy>
inline constexpr LanePolicy kLanePolicy = std::same_as<Policy, FailFast>    ? LanePolicy::fail_fast
                                          : std::same_as<Policy, KeepGoing> ? LanePolicy::keep_going
                                                                            : LanePolicy::collect;

template <class T>
Result<T> limited_result(Slot<T>& slot, const Scope& scope) {
  if (slot.empty()) slot.set_cancelled(scope.outside_reason());
  return Result<T>(std::move(slot));
}

template <class Policy, class T>
class [[nodiscard("co_await it")]] GatherLimitedVector final : public LimitedBase<Lane> {
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;

 public:
  using value_type = typename GatheredVector<T, kResults>::type;

  template <class R>
  GatherLimitedVector(std::size_t limit, R&& range)
      : LimitedBase("gather_limited", kLanePolicy<Policy>, limit) {
    if constexpr (requires { std::size(range); }) children_.reserve(std::size(range));
    for (auto&& element : range)
      children_.emplace_back(std::in_place, static_cast<typename RangeElement<R>::type>(element));
  }
  GatherLimitedVector(GatherLimitedVector&& other)
      : LimitedBase("gather_limited", kLanePolicy<Policy>, other),
        children_(std::move(other.children_)) {}

  bool await_ready() const {
    require();
    if (limit_ == 0) throw_no_limit("gather_limited");
    return children_.empty();
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    return this->suspend(awaiting, children_.size());
  }
  value_type await_resume() {
    this->concluded();
    if constexpr (!std::is_void_v<value_type>) {
      value_type results;
      results.reserve(children_.size());
      for (LimitedChild<T>& child : children_) {
        if constexpr (kResults) {
          results.push_back(limited_result(child.slot, this->scope));
        } else {
          results.push_back(value_of(child.slot));
        }
      }
      return results;
    }
  }

 private:
  std::coroutine_handle<> pull(Lane& lane) override {
    if (next_ == children_.size()) return nullptr;
    lane.item = next_++;
    LimitedChild<T>& child = children_[lane.item];
    return child.frame.bind(this->scope, sink_of(lane), child.slot);
  }
  bool anything_left() noexcept override { return next_ != children_.size(); }
  std::exception_ptr error_of(const Lane& lane) const noexcept override {
    return children_[lane.item].slot.error();
  }
  ReasonRef reason_of(const Lane& lane) const noexcept override {
    return children_[lane.item].slot.reason();
  }

  std::vector<LimitedChild<T>> children_;
  std::size_t next_ = 0;  // by whoever is at the source
};

template <class Policy, class... T>
class [[nodiscard("co_await it")]] GatherLimitedPack final : public LimitedBase<Lane> {
  static constexpr bool kResults = std::same_as<Policy, ReturnExceptions>;

 public:
  using value_type =
      std::conditional_t<kResults, std::tuple<Result<T>...>, std::tuple<regular_t<T>...>>;

  template <class... A>
  GatherLimitedPack(std::in_place_t, std::size_t limit, A&&... given)
      : LimitedBase("gather_limited", kLanePolicy<Policy>, limit),
        children_(LimitedChild<T>(std::in_place, std::forward<A>(given))...) {}
  GatherLimitedPack(GatherLimitedPack&& other)
      : LimitedBase("gather_limited", kLanePolicy<Policy>, other),
        children_(std::move(other.children_)) {}

  bool await_ready() const {
    require();
    if (limit_ == 0) throw_no_limit("gather_limited");
    return sizeof...(T) == 0;
  }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    return this->suspend(awaiting, sizeof...(T));
  }
  value_type await_resume() {
    this->concluded();
    return std::apply(
        [this](auto&... child) {
          (void)this;
          if constexpr (kResults) {
            return value_type(limited_result(child.slot, this->scope)...);
          } else {
            return value_type(value_of(child.slot)...);
          }
        },
        children_);
  }

 private:
  /// fn(child) for the child with this number.
  template <class Children, class F>
  static void with_child(Children& children, std::size_t number, F&& fn) {
    std::size_t i = 0;
    std::apply([&](auto&... child) { ((i++ == number ? fn(child) : void()), ...); }, children);
  }

  std::coroutine_handle<> pull(Lane& lane) override {
    std::coroutine_handle<> frame;
    if (next_ == sizeof...(T)) return frame;
    lane.item = next_++;
    with_child(children_, lane.item, [&](auto& child) {
      frame = child.frame.bind(this->scope, sink_of(lane), child.slot);
    });
    return frame;
  }
  bool anything_left() noexcept override { return next_ != sizeof...(T); }
  std::exception_ptr error_of(const Lane& lane) const noexcept override {
    std::exception_ptr error;
    with_child(children_, lane.item, [&](const auto& child) { error = child.slot.error(); });
    return error;
  }
  ReasonRef reason_of(const Lane& lane) const noexcept override {
    ReasonRef reason;
    with_child(children_, lane.item, [&](const auto& child) { reason = child.slot.reason(); });
    return reason;
  }

  std::tuple<LimitedChild<T>...> children_;
  std::size_t next_ = 0;  // by whoever is at the source
};

template <class Policy, class... A>
auto gather_limited_as(std::size_t limit, A&&... given) {
  if constexpr (sizeof...(A) == 1 && (ChildRange<A> && ...)) {
    return GatherLimitedVector<Policy, typename RangeChild<A...>::type::value_type>(
        limit, std::forward<A>(given)...);
  } else {
    return GatherLimitedPack<Policy, typename child_t<A>::value_type...>(std::in_place, limit,
                                                                         std::forward<A>(given)...);
  }
}

template <class... A>
concept Gatherable = (ChildLike<A> && ...) || (sizeof...(A) == 1 && (ChildRange<A> && ...));

}  // namespace magpie::detail
