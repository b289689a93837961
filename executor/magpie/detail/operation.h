// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The leaf awaitables: sleep, acquire, receive, wait for an event or a handle. Each is one node
// that waits in its awaiter's frame, written once and used in two ways: awaited by a coroutine, or
// given directly to a combinator, which then needs no coroutine frame and no throw to see it
// cancelled.
//
// A derived operation provides
//
//   kWhat                     for dumps: what it waits for (or waits_for(), if that changes)
//   bool start();             true: parked. false: the state says how it ended at once
//   void unqueue() noexcept;  leaves the primitive's queue if still there, under its lock
//   bool unqueue() noexcept;  the same; true if it was served there after its cancellation had
//                             claimed it: it has completed all the same
//   void deposit(Slot<T>&);   it completed: hands over the value
//
// `start` must not touch the operation after it is parked and the primitive's lock is released: it
// may have been resumed.

#include <concepts>
#include <coroutine>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/arbiter.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

class WakeList;

/// Misuse of an awaitable whose children or callable are gone.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_awaited_twice();

/// Where an operation goes on that neither a coroutine awaits in its own scope nor a combinator
/// took as a child. Stays where it is until the operation has ended.
struct OperationPlace {
  Scope* scope = nullptr;
  void* frame = nullptr;  // of the coroutine that goes on; null: the kind given to prepare() knows
};

class MAGPIE_EXPORT OperationBase : public Waiter {
 public:
  // Movable until it is started: what is moved is what the derived class keeps, the node starts
  // afresh.
  OperationBase(OperationBase&& other) noexcept : OperationBase(other.kind()) {}
  OperationBase& operator=(OperationBase&&) = delete;

  // Where the operation waits and what goes on afterwards: its kind's `run` is called on the
  // executor. Its scope and its race are not kept here: whatever stands behind it knows them.

  /// For the coroutine of this frame, in its scope. The kind is the one that it was made with.
  void prepare(void* frame) noexcept {
    behind = frame;
    expect(Stand::frame);
  }
  /// For what goes on in the place, in the place's scope.
  void prepare(OperationPlace& place, const WaitKind& its_kind) noexcept {
    behind = &place;
    how = &its_kind;
    expect(Stand::place);
  }
  /// As a child of a join, which has given it its index.
  void prepare(Join& its_join, const WaitKind& its_kind) noexcept {
    join = &its_join;
    how = &its_kind;
    expect(Stand::join);
  }
  /// As a contestant of the join's race. `asks`: it has to win before it takes anything; else it
  /// is asked at its end.
  void enter_race(bool asks) noexcept { race = asks ? RacePart::asks : RacePart::ends; }
  /// What it does from here on decides no race.
  void leave_race() noexcept { race = RacePart::none; }

  /// By whoever has something to give, under the primitive's lock, after it took the waiter out of
  /// the queue. True: give it, and wake the waiter when the lock is released. False: the waiter
  /// gets nothing; if `*wake_anyway` it must be woken all the same.
  bool try_complete(bool* wake_anyway) noexcept {
    if (!state.try_complete()) return false;
    if (race != RacePart::asks || join->arbiter.win(index)) [[likely]]
      return true;
    state.set(WaitPhase::lost);
    *wake_anyway = true;
    return false;
  }

  Scope* scope() const noexcept {
    if (stand == Stand::frame) [[likely]]
      return promise_of(behind).scope;
    return stand == Stand::join ? &join->scope : place().scope;
  }
  bool is_child() const noexcept { return stand == Stand::join; }
  /// Of what is not a child.
  OperationPlace& place() const noexcept { return *static_cast<OperationPlace*>(behind); }
  /// Whether it is a coroutine that goes on, and has not got another way to do so meanwhile.
  bool is_awaited() const noexcept { return kind().goes_on == GoesOn::coroutine; }
  /// That coroutine. Not for children.
  std::coroutine_handle<> awaiting() const noexcept {
    return std::coroutine_handle<>::from_address(stand == Stand::frame ? behind : place().frame);
  }
  /// The race that the operation has to win before it takes anything; null: none.
  Arbiter* arbiter() const noexcept { return race == RacePart::asks ? &join->arbiter : nullptr; }
  std::uint32_t contestant() const noexcept { return index; }
  /// At the end of an operation that takes something only then: false if its race is lost.
  bool wins_at_its_end() const noexcept {
    return race != RacePart::ends || join->arbiter.win(index);
  }

  /// For the simulator: an operation that has ended, and whose coroutine is destroyed instead of
  /// resumed, leaves its lists; what it was given is given back.
  void abandon() noexcept { kind().drop(*this); }

 protected:
  explicit OperationBase(const WaitKind& its_kind) noexcept {
    index = 0;
    how = &its_kind;
  }
  ~OperationBase() = default;

  static void resume_frame(Runnable* node) noexcept {
    void* const frame = static_cast<OperationBase*>(node)->behind;
    resume_strand(std::coroutine_handle<>::from_address(frame), promise_of(frame).scope);
  }
  static void resume_placed(Runnable* node) noexcept {
    const OperationPlace& place = static_cast<OperationBase*>(node)->place();
    resume_strand(std::coroutine_handle<>::from_address(place.frame), place.scope);
  }

  /// In start(), first: a cancelled scope lets nothing begin.
  bool refused() noexcept {
    if (!scope()->cancelled()) [[likely]]
      return false;
    state.set(WaitPhase::cancelled_at_once);
    return true;
  }
  /// In start(), where it can complete without parking: false if its race has been won by another.
  bool complete_at_once() noexcept {
    if (race == RacePart::asks && !join->arbiter.win(index)) {
      state.set(WaitPhase::cancelled_at_once);
      return false;
    }
    state.set(WaitPhase::done_at_once);
    return true;
  }
  /// For those that complete where they are awaited, without having been prepared.
  void has_completed_at_once() noexcept { state.set(WaitPhase::done_at_once); }
  bool completed_at_once() const noexcept { return state.phase() == WaitPhase::done_at_once; }
  /// In start(), under the primitive's lock and before the waiter is put in its queue. False:
  /// cancelled, do not queue.
  bool park() noexcept {
    state.set(WaitPhase::waiting);
    if (scope()->park(*this)) [[likely]]
      return true;
    state.set(WaitPhase::cancelled_at_once);
    return false;
  }

  ReasonRef cancel_reason() const noexcept {
    ReasonRef reason = scope()->reason();
    return reason ? std::move(reason) : ReasonRef::of_kind(CancelKind::lost_race);
  }

  /// Leaves the lists that the winner left it in; true if it completed.
  template <class Derived>
  MAGPIE_ALWAYS_INLINE bool leave_lists(Derived& derived) noexcept {
    const WaitPhase phase = state.phase();
    if (phase == WaitPhase::done_at_once) return true;
    if (phase == WaitPhase::done || phase == WaitPhase::lost) {
      scope()->unpark(*this);
      return phase == WaitPhase::done;
    }
    if (phase == WaitPhase::cancelled) {
      if constexpr (std::same_as<decltype(derived.unqueue()), bool>) {
        return derived.unqueue();
      } else {
        derived.unqueue();
      }
    }
    return false;
  }

 private:
  friend struct OperationTraits;
  static PromiseBase& promise_of(void* frame) noexcept {
    return std::coroutine_handle<PromiseBase>::from_address(frame).promise();
  }
  void expect(Stand its_stand) noexcept {
    stand = its_stand;
    executor = current_executor();
  }
};

/// What the cores of all primitives (EventCore, ChannelCore, ...) ask of the library's operations.
/// The models have it for theirs (tests/model/operation.h).
struct OperationTraits {
  using Env = StdEnv;
  using Waiter = detail::Waiter;
  using Operation = OperationBase;
  using WakeList = detail::WakeList;

  /// Whether it has to win a race before it takes anything.
  static bool asks(const OperationBase& op) noexcept { return op.arbiter() != nullptr; }
  static bool park(OperationBase& op) noexcept { return op.park(); }
  static bool complete_at_once(OperationBase& op) noexcept { return op.complete_at_once(); }
};

template <class Derived, class T, class Base = OperationBase>
class Operation : public Base {
 public:
  using value_type = T;

  bool await_ready() const noexcept { return false; }

  /// For the coroutine of the place, in the place's scope.
  void prepare(OperationPlace& place) noexcept {
    Base::prepare(place, kKind<Base::resume_placed, GoesOn::coroutine>);
  }
  using Base::prepare;

  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    static_assert(std::derived_from<P, PromiseBase>,
                  "this awaitable works inside a magpie::Task only: wrap the coroutine in one");
    this->prepare(awaiting.address());
    return derived().start();
  }

  T await_resume() {
    Slot<T> slot;
    derived().finish(slot);
    return slot.take();
  }

  /// After the operation has ended: its outcome, never thrown.
  void finish(Slot<T>& slot) noexcept {
    if (this->leave_lists(derived())) [[likely]] {
      try {
        derived().deposit(slot);
      } catch (...) {
        slot.capture_current_exception();
      }
    } else {
      slot.set_cancelled(this->cancel_reason());
    }
  }

  /// For prepare(): what these waits have in common that go on in this way.
  template <void (*Run)(Runnable*) noexcept, GoesOn End>
  static constexpr WaitKind kKind{Run, End, &Operation::what_for, &Operation::drop_it};

 protected:
  Operation() noexcept : Base(kKind<Base::resume_frame, GoesOn::coroutine>) {}
  Operation(Operation&&) noexcept = default;
  ~Operation() = default;

 private:
  static const char* what_for(const Waiter& waiter) noexcept {
    if constexpr (requires(const Derived& derived) { derived.waits_for(); }) {
      return static_cast<const Derived&>(static_cast<const OperationBase&>(waiter)).waits_for();
    } else {
      return Derived::kWhat;
    }
  }
  static void drop_it(Waiter& waiter) noexcept {
    Slot<T> unwanted;
    static_cast<Derived&>(static_cast<OperationBase&>(waiter)).finish(unwanted);
  }

  Derived& derived() noexcept { return static_cast<Derived&>(*this); }
};

}  // namespace magpie::detail
