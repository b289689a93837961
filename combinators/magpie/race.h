// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// race and any: the first of several.
//
//     auto first = co_await race(fetch(a), fetch(b));   // Indexed<T>: first.index, first.value
//     auto good = co_await any(fetch(a), fetch(b));     // the first that succeeds
//
//   race  the first to complete; if it failed or ended cancelled on its own, that is thrown
//   any   the first to succeed; if none does, an ExceptionGroup of the failures in the order in
//         which they came; CancelledError when all ended cancelled
//
// One atomic step decides who wins. Losers are cancelled and waited for; a loser's value is
// destroyed, or handed to a function:
//
//     auto close = [](std::size_t index, auto&& value) { value.close(); };
//     auto first = co_await race(connect(a), connect(b)).on_discard(close);
//
// An operation of this library given
// directly (semaphore.acquire(), not a task around it) takes its permit or item only if it wins. A
// loser's error is dropped, unless the winner ended cancelled: a real error is not hidden by a
// cancellation.
//
// Different types give Indexed<std::variant<...>>, one alternative per argument, void as
// std::monostate, references as std::reference_wrapper. No arguments: std::invalid_argument.
// Cancellation point on entry; if the caller is cancelled before anybody won, CancelledError.
// Starts when awaited; resumes where it was awaited. Contestants that start one after the other:
// <magpie/hedge.h>, which comes along.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/children.h>
#include <magpie/errors.h>
#include <magpie/gather.h>

namespace magpie {

/// A value and which of the contestants it came from.
template <class T>
struct Indexed {
  std::size_t index;
  T value;
};
template <>
struct Indexed<void> {
  std::size_t index;
};

namespace detail {

struct RaceJoin : Join {
  RaceJoin() noexcept { std::construct_at(&arbiter); }
  std::atomic<std::uint32_t> ended{0};  // how many failures so far, for their order

  MAGPIE_EXPORT static void settle_race(Join* join, Rec* rec, SlotState outcome) noexcept;
  MAGPIE_EXPORT static void settle_any(Join* join, Rec* rec, SlotState outcome) noexcept;
  /// After the join: what the first loser to fail failed with, if one did.
  MAGPIE_EXPORT MAGPIE_COLD static void throw_error_of_a_loser(Outcomes outcomes);
  [[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_nobody_won(Outcomes outcomes) const;
};

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_race(const char* what);

enum class RaceKind : std::uint8_t { race, any };

struct NoDiscard {};

/// Whether all children give the same type, and what the combinator gives then.
template <class... T>
struct RaceValue {
  static constexpr bool kSame = false;
  template <class U>
  using Alternative =
      std::conditional_t<std::is_lvalue_reference_v<U>,
                         std::reference_wrapper<std::remove_reference_t<U>>, regular_t<U>>;
  using type = std::variant<Alternative<T>...>;
};
template <class T, class... Same>
requires(std::same_as<T, Same> && ...)
struct RaceValue<T, Same...> {
  static constexpr bool kSame = true;
  using type = T;
};

/// Whether an on_discard function takes the values of a child of type T.
template <class F, class T>
inline constexpr bool kTakesDiscarded =
    std::invocable<std::remove_reference_t<F>&, std::size_t, T&&>;
template <class F, class T>
requires std::is_void_v<T>
inline constexpr bool kTakesDiscarded<F, T> =
    std::invocable<std::remove_reference_t<F>&, std::size_t>;

template <RaceKind Kind, class Children, class Discard>
class RaceBase : public CombinatorBase, private RaceJoin {
 public:
  template <class... A>
  RaceBase(Discard&& discard, std::in_place_t, A&&... given)
      : children_(std::in_place, std::forward<A>(given)...),
        discard_(std::forward<Discard>(discard)) {}
  RaceBase(Discard&& discard, Children&& children)
      : children_(std::move(children)), discard_(std::forward<Discard>(discard)) {}
  ~RaceBase() { destroy_scope(); }
  RaceBase(RaceBase&& other)
      : children_(std::move(other.children_)), discard_(std::forward<Discard>(other.discard_)) {}

  bool await_ready() {
    if (children_.spent()) [[unlikely]]
      throw_awaited_twice();
    if (children_.size() == 0) throw_empty_race(Kind == RaceKind::race ? "race()" : "any()");
    return false;
  }

  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    scope.enter(&outer, outer.task());
    if (outer.cancelled()) [[unlikely]] {
      refused_ = true;
      refuse_children(children_);
      return detail::transfer(awaiting);
    }
    kind = &kKind;
    parent = awaiting;
    arm_children<true>(*this, children_);
    return detail::start_armed(*this, children_, true);
  }

 protected:
  /// After the join: the winner's index; throws if nobody won. Losers' values have been handed on.
  std::uint32_t conclude() {
    if (refused_) [[unlikely]]
      throw CancelledError(scope.parent()->reason());
    leave_scope(scope);
    const std::uint32_t winner = arbiter.winner();
    if constexpr (!std::same_as<Discard, NoDiscard>) {
      std::exception_ptr refusal;  // a call that throws keeps no other value from being handed on
      children_.for_each([&](auto& child) {
        if (child.slot().state() != SlotState::value || child.index == winner) return;
        try {
          hand_on(child);
        } catch (...) {
          if (!refusal) refusal = std::current_exception();
        }
      });
      if (refusal) [[unlikely]]
        std::rethrow_exception(std::move(refusal));
    }
    if (winner == Arbiter::kNobody) throw_nobody_won(children_.outcomes());
    return winner;
  }

  /// The winner's value. A winner that ended cancelled does not hide what others failed with.
  template <class T>
  T take_from(Slot<T>& slot) {
    if (slot.state() == SlotState::cancelled) [[unlikely]]
      throw_error_of_a_loser(children_.outcomes());
    return slot.take();
  }

  Children children_;
  Discard discard_;

 private:
  template <class Child>
  void hand_on(Child& child) {
    using T = typename Child::value_type;
    if constexpr (kTakesDiscarded<Discard, T>) {
      if constexpr (std::is_void_v<T>) {
        std::invoke(discard_, static_cast<std::size_t>(child.index));
      } else {
        std::invoke(discard_, static_cast<std::size_t>(child.index),
                    static_cast<T&&>(child.slot().value()));
      }
    }
  }

  static constexpr JoinKind kKind{
      Kind == RaceKind::race ? &RaceJoin::settle_race : &RaceJoin::settle_any, nullptr, true,
      Children::kStride};

  bool refused_ = false;
};

template <RaceKind Kind, class Discard, class... Child>
class [[nodiscard("co_await it")]] RacePack : public RaceBase<Kind, ChildPack<Child...>, Discard> {
  using Base = RaceBase<Kind, ChildPack<Child...>, Discard>;
  using Value = RaceValue<typename Child::value_type...>;

 public:
  using value_type = Indexed<typename Value::type>;
  using Base::Base;

  value_type await_resume() {
    const std::uint32_t winner = this->conclude();
    return take(winner, std::index_sequence_for<Child...>());
  }

  /// What happens to the value of a child that succeeded and lost: fn(index, T&&).
  template <class F>
  auto on_discard(F&& fn) && {
    static_assert((kTakesDiscarded<F, typename Child::value_type> || ...),
                  "on_discard takes a function fn(index, T&&), T being the type of a contestant; "
                  "fn(index) where it is void");
    return RacePack<Kind, F, Child...>(std::forward<F>(fn), std::move(this->children_));
  }

 private:
  template <std::size_t... I>
  value_type take(std::uint32_t winner, std::index_sequence<I...>) {
    if constexpr (Value::kSame) {
      using T = typename Value::type;
      Slot<T>* slot = nullptr;
      ((I == winner ? void(slot = &this->children_.template get<I>().slot()) : void()), ...);
      if constexpr (std::is_void_v<T>) {
        this->take_from(*slot);
        return value_type{winner};
      } else {
        return value_type{winner, this->take_from(*slot)};
      }
    } else {
      // By a table, so that only the winner's branch makes a variant.
      using Take = typename Value::type (*)(RacePack*);
      static constexpr Take table[] = {&RacePack::take_alternative<I>...};
      return value_type{winner, table[winner](this)};
    }
  }
  template <std::size_t I>
  static typename Value::type take_alternative(RacePack* self) {
    auto& slot = self->children_.template get<I>().slot();
    using T = std::remove_reference_t<decltype(slot.take())>;
    if constexpr (std::is_void_v<T>) {
      self->take_from(slot);
      return typename Value::type(std::in_place_index<I>);
    } else {
      return typename Value::type(std::in_place_index<I>, self->take_from(slot));
    }
  }
};

template <RaceKind Kind, class Discard, class Child>
class [[nodiscard("co_await it")]] RaceVector : public RaceBase<Kind, ChildVector<Child>, Discard> {
  using Base = RaceBase<Kind, ChildVector<Child>, Discard>;
  using T = typename Child::value_type;

 public:
  using value_type = Indexed<T>;
  using Base::Base;

  value_type await_resume() {
    const std::uint32_t winner = this->conclude();
    Slot<T>& slot = this->children_[winner].slot();
    if constexpr (std::is_void_v<T>) {
      this->take_from(slot);
      return value_type{winner};
    } else {
      return value_type{winner, this->take_from(slot)};
    }
  }

  template <class F>
  auto on_discard(F&& fn) && {
    static_assert(kTakesDiscarded<F, T>,
                  "on_discard takes a function fn(index, T&&), T being the type of the "
                  "contestants; fn(index) where it is void");
    return RaceVector<Kind, F, Child>(std::forward<F>(fn), std::move(this->children_));
  }
};

template <RaceKind Kind, class... A>
auto race_as(A&&... given) {
  if constexpr (sizeof...(A) == 1 && (ChildRange<A> && ...)) {
    return RaceVector<Kind, NoDiscard, typename detail::RangeChild<A...>::type>(
        NoDiscard(), std::in_place, std::forward<A>(given)...);
  } else {
    return RacePack<Kind, NoDiscard, child_t<A>...>(NoDiscard(), std::in_place,
                                                    std::forward<A>(given)...);
  }
}

/// race() and any() of nothing at all: an awaitable that throws.
class [[nodiscard("co_await it")]] EmptyRace : public CombinatorBase {
 public:
  using value_type = Indexed<void>;
  explicit EmptyRace(const char* what) noexcept : what_(what) {}
  bool await_ready() const { throw_empty_race(what_); }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  value_type await_resume() const noexcept { return {}; }

 private:
  const char* what_;
};

}  // namespace detail

/// The first to complete; see the head of the file.
template <class... A>
requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
auto race(A&&... tasks) {
  if constexpr (sizeof...(A) == 0) {
    return detail::EmptyRace("race()");
  } else {
    return detail::race_as<detail::RaceKind::race>(std::forward<A>(tasks)...);
  }
}

/// The first to succeed; see the head of the file.
template <class... A>
requires((detail::ChildLike<A> && ...) || (sizeof...(A) == 1 && (detail::ChildRange<A> && ...)))
auto any(A&&... tasks) {
  if constexpr (sizeof...(A) == 0) {
    return detail::EmptyRace("any()");
  } else {
    return detail::race_as<detail::RaceKind::any>(std::forward<A>(tasks)...);
  }
}

}  // namespace magpie

#include <magpie/hedge.h>
