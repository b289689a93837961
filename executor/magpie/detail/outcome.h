// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// An outcome that many can wait for: what tasks in the full sense and promises have in common. A
// counted record with a place for the outcome, set once and published; handles name it, waiters
// copy the value or move it out, callbacks look at it.
//
//   OutcomePlace<T, U>   where the value lies
//   OutcomeState<T, C>   the typed place, on top of C, which derives from OutcomeCore: how it is
//                        copied, shown and moved out
//   OutcomeHandle<S>     a counted reference that counts as a handle
//   OutcomeWait<S, M>    the operation that awaits it
//
// How it is published and shared is detail/outcome_core.h.

#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/outcome_core.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/slot.h>
#include <magpie/errors.h>
#include <magpie/result.h>

namespace magpie::detail {

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_taken();

/// Where the outcome lies. Until there can be one, what starts a task may lie there: Nothing, or
/// an `Unstarted`.
template <class T, class Unstarted>
class OutcomePlace {
 public:
  OutcomePlace() noexcept {
    if constexpr (std::is_same_v<Unstarted, Nothing>) {
      make_result();
    } else {
      ::new (static_cast<void*>(std::addressof(unstarted_))) Unstarted;
    }
  }
  OutcomePlace(const OutcomePlace&) = delete;
  OutcomePlace& operator=(const OutcomePlace&) = delete;
  ~OutcomePlace() { std::destroy_at(std::addressof(result_)); }

 protected:
  Unstarted& unstarted() noexcept { return unstarted_; }
  /// From there back: the union is all that there is.
  static OutcomePlace& place_of(Unstarted& unstarted) noexcept {
    return *reinterpret_cast<OutcomePlace*>(&unstarted);
  }
  /// Once; in place of what was there.
  void make_result() noexcept {
    ::new (static_cast<void*>(std::addressof(result_))) Result<T>(ResultAccess::empty<T>());
  }

  union {
    Result<T> result_;
    Unstarted unstarted_;
  };
};

// Who moves such a value out only copies it: readers need not be counted.
template <class T>
inline constexpr bool kMovedByCopying =
    std::is_void_v<T> || std::is_reference_v<T> ||
    (std::is_trivially_copyable_v<T> && std::is_copy_constructible_v<T>);

template <class T, class Env>
using TakingOf = std::conditional_t<kMovedByCopying<T>, BasicTaken<Env>, BasicTaking<Env>>;

// Bases in this order: what is noted of the taking then lies behind the last bytes of the core.
template <class T, class Core>
class OutcomeState : public Core,
                     private TakingOf<T, typename Core::Environment>,
                     protected OutcomePlace<T, typename Core::Unstarted> {
  using Taking = TakingOf<T, typename Core::Environment>;

 public:
  using value_type = T;

  Slot<T>& slot() noexcept { return ResultAccess::slot(this->result_); }
  const Slot<T>& slot() const noexcept { return ResultAccess::slot(this->result_); }

  /// Copies the outcome. InvalidStateError if the value has been moved out.
  void copy_to(Slot<T>& target) {
    this->mark_observed();
    if constexpr (kMovedByCopying<T>) {
      target = shown_slot();
    } else if constexpr (std::is_copy_constructible_v<Slot<T>>) {
      const bool readable = this->begin_reading();
      if (readable) {
        try {
          target = slot();
        } catch (...) {
          target.capture_current_exception();
        }
      }
      this->end_reading();
      if (!readable) throw_taken();
    }
  }

  /// The same for who waited when it was published, and goes on later: of such a value it does not
  /// matter that it has been moved out meanwhile.
  void copy_kept_to(Slot<T>& target) noexcept
  requires kMovedByCopying<T>
  {
    this->mark_observed();
    target = slot();
  }

  /// Calls f(const Result<T>&) while nobody moves the value out. InvalidStateError if somebody has.
  template <class F>
  void show_to(F&& f) {
    if constexpr (kMovedByCopying<T>) {
      std::forward<F>(f)(shown());
    } else {
      struct Reader {
        Taking& taking;
        ~Reader() { taking.end_reading(); }
      };
      const bool readable = this->begin_reading();
      Reader reader{*this};
      if (!readable) throw_taken();
      std::forward<F>(f)(std::as_const(this->result_));
    }
  }

  /// Moves the outcome out, after those who are looking at it just now. By the owner of a handle.
  void move_to(Slot<T>& target) {
    this->mark_observed();
    if (slot().state() == SlotState::value && !(this->alone() ? this->take_alone() : this->take()))
      throw_taken();
    target = std::move(slot());  // failures are copied
  }

  const Result<T>& shown() const {
    if (this->taken()) throw_taken();
    return this->result_;
  }

  std::exception_ptr error() const noexcept override {
    return slot().state() == SlotState::error ? slot().error() : std::exception_ptr();
  }

 protected:
  using Core::Core;
  OutcomeState() noexcept = default;
  MAGPIE_ALWAYS_INLINE ~OutcomeState() override = default;

 private:
  const Slot<T>& shown_slot() const {
    if (this->taken()) throw_taken();
    return slot();
  }
};

[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_empty_handle();
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_not_done();

template <class State>
class OutcomeHandle {
 public:
  OutcomeHandle() = default;
  explicit OutcomeHandle(State* state) noexcept : state_(state) { state_->add_first_handle(); }
  /// The handle that the record was made with.
  static OutcomeHandle adopt(State* state) noexcept {
    OutcomeHandle handle;
    handle.state_ = state;
    return handle;
  }
  OutcomeHandle(const OutcomeHandle& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->add_handle();
  }
  OutcomeHandle(OutcomeHandle&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  OutcomeHandle& operator=(OutcomeHandle other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~OutcomeHandle() {
    if (state_ != nullptr) drop(state_);
  }
  State* get() const noexcept { return state_; }
  State& require() const {
    if (state_ == nullptr) [[unlikely]]
      throw_empty_handle();
    return *state_;
  }

 private:
  MAGPIE_NOINLINE static void drop(State* state) noexcept { State::drop_handle_of(state); }
  State* state_ = nullptr;
};

/// The wait for an outcome. `Move`: takes the value out; else copies it. State::kWhat names it in
/// dumps; State::refuse_self(scope) throws where the wait could never end.
template <class State, bool Move>
class [[nodiscard("co_await it")]] OutcomeWait
    : public Operation<OutcomeWait<State, Move>, typename State::value_type, JoinWaiter> {
  using T = typename State::value_type;
  using Base = Operation<OutcomeWait, T, JoinWaiter>;

 public:
  static constexpr const char* kWhat = State::kWhat;
  explicit OutcomeWait(OutcomeHandle<State> handle) : handle_(std::move(handle)) {}
  OutcomeWait(OutcomeWait&& other) noexcept : Base(), handle_(std::move(other.handle_)) {}

  /// Whether it ends at once; of an empty handle with an error, by start().
  bool done() const noexcept { return handle_.get() == nullptr || handle_.get()->done(); }

  /// In a race: a value is moved out only by the winner, so that a loser leaves it to other
  /// handles. Failures are copied anyway.
  static constexpr bool kTakesAtItsEnd = Move;

  bool start() {
    State& awaited = handle_.require();
    if constexpr (kGetsACopy) copied_.reset();  // of an await before this one
    awaited.refuse_self(*this->scope());
    if constexpr (kGetsACopy) {
      this->fill = copy_now;
    } else if constexpr (!Move) {
      this->fill = this->nothing();
    }
    switch (awaited.park_waiter(*this)) {
      case OutcomeCore::Parked::yes:
        return true;
      case OutcomeCore::Parked::done:
        if (!this->refused()) this->complete_at_once();  // in a cancelled scope nobody parks
        return false;
      default:
        return false;
    }
  }
  void unqueue() noexcept { handle_.get()->forget_waiter(*this); }
  MAGPIE_ALWAYS_INLINE void deposit(Slot<T>& slot) {
    if constexpr (Move) {
      if (handle_.get()->outcome() == SlotState::value && !this->wins_at_its_end()) {
        slot.set_cancelled(ReasonRef::of_kind(CancelKind::lost_race));
        return;
      }
      handle_.get()->move_to(slot);
    } else if constexpr (kGetsACopy) {
      if (!copied_.empty()) {
        slot = std::move(copied_);
      } else {
        handle_.get()->copy_to(slot);
      }
    } else if (this->completed_at_once()) {
      handle_.get()->copy_to(slot);
    } else {
      handle_.get()->copy_kept_to(slot);
    }
  }

 private:
  // When the outcome is published, before anybody can move it out.
  static constexpr bool kGetsACopy = !Move && !kMovedByCopying<T>;

  static void copy_now(JoinWaiter* waiter) noexcept {
    auto* const self = static_cast<OutcomeWait*>(waiter);
    try {
      self->handle_.get()->copy_to(self->copied_);
    } catch (...) {
      self->copied_.capture_current_exception();
    }
  }

  OutcomeHandle<State> handle_;
  [[no_unique_address]] std::conditional_t<kGetsACopy, Slot<T>, Nothing> copied_;
};

}  // namespace magpie::detail
