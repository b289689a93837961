// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The leaf awaitables: sleep, acquire, receive, wait for an event or a handle. Each is one node
// that waits in its awaiter's frame, written once and used in two ways: awaited by a coroutine, or
// given directly to a combinator, which then needs no coroutine frame and no throw to see it
// cancelled.
//
// A derived operation provides
//   bool start();             // true: parked. false: the state says how it ended at once
//   void unqueue() noexcept;  // leave the primitive's queue if still there (takes the primitive's
//   lock); may return bool: true if it
//                             // was served there after its cancellation had claimed it, so that it
//                             has completed all the same
//   void deposit(Slot<T>&);   // it completed: hand over the value
//
// `start` must not touch the operation after it is parked and the primitive's lock is released: it
// may have been resumed.

#include <atomic>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/backoff.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/reason.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// Misuse of an awaitable whose children or callable are gone.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_awaited_twice();

/// Decides a race: the first contestant to complete takes it. Operations that take something (a
/// permit, an item) ask it before they do, so that a loser takes nothing.
template <class Env>
class BasicArbiter {
 public:
  static constexpr std::uint32_t kNobody = 0xffffffff;

  /// True for the one winner. acq_rel: the winner's writes are ordered for whoever reads the
  /// verdict.
  bool win(std::uint32_t index) noexcept {
    std::uint32_t expected = kNobody;
    if constexpr (Env::mutant(Mutant::arbiter_plain_win)) {
      if (winner() != kNobody) return false;
      winner_.store(index, std::memory_order_release);
      return true;
    }
    if constexpr (Env::mutant(Mutant::arbiter_relaxed_win)) {
      return winner_.compare_exchange_strong(expected, index, std::memory_order_relaxed,
                                             std::memory_order_relaxed);
    }
    if (winner_.compare_exchange_strong(expected, index, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) [[likely]] {
      return true;
    }
    if (Env::mutant(Mutant::arbiter_win_while_held) && expected >= kHeldAmongOthers) {
      winner_.store(index, std::memory_order_release);
      return true;
    }
    return expected >= kHeldAmongOthers && win_after_holder(index);
  }
  std::uint32_t winner() const noexcept {
    const std::uint32_t winner = winner_.load(std::memory_order_acquire);
    return winner >= kHeldAmongOthers ? kNobody : winner;
  }

  // A step that completes several operations or none holds the verdicts of their races meanwhile:
  // nobody else wins them, whoever tries waits. One verdict alone may be held at any time. Who
  // holds several holds the one lock for that, too (Pact), so that two of them never wait for each
  // other; and nobody waits for anything else while he holds one.
  enum class Hold : std::uint8_t { held, decided, mine };

  Hold hold() noexcept { return hold_as(kHeldAlone); }
  /// `mine`: the holder of the pact's lock has it already.
  Hold hold_among_others() noexcept { return hold_as(kHeldAmongOthers); }
  /// Ends a hold. Release: pairs with the next one's compare-and-swap.
  void let_go() noexcept { winner_.store(kNobody, std::memory_order_release); }
  void decide(std::uint32_t index) noexcept { winner_.store(index, std::memory_order_release); }

 private:
  static constexpr std::uint32_t kHeldAlone = 0xfffffffe;
  static constexpr std::uint32_t kHeldAmongOthers = 0xfffffffd;

  MAGPIE_COLD bool win_after_holder(std::uint32_t index) noexcept {
    Backoff<Env> backoff;
    std::uint32_t expected = kNobody;
    while (!winner_.compare_exchange_strong(expected, index, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      if (expected < kHeldAmongOthers) return false;
      backoff.wait();
      expected = kNobody;
    }
    return true;
  }

  Hold hold_as(std::uint32_t mark) noexcept {
    Backoff<Env> backoff;
    std::uint32_t expected = kNobody;
    while (!winner_.compare_exchange_strong(expected, mark, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      if (expected < kHeldAmongOthers) return Hold::decided;
      if (expected == mark && mark == kHeldAmongOthers) return Hold::mine;
      backoff.wait();
      expected = kNobody;
    }
    return Hold::held;
  }

  typename Env::template Atomic<std::uint32_t> winner_{kNobody};
};
using Arbiter = BasicArbiter<StdEnv>;

class MAGPIE_EXPORT OperationBase : public Waiter {
 public:
  OperationBase() = default;
  // Movable until it is started: what is moved is what the derived class keeps, the node starts
  // afresh.
  OperationBase(OperationBase&& other) noexcept : drop_(other.drop_) { what = other.what; }
  OperationBase& operator=(OperationBase&&) = delete;

  /// Where the operation waits and what goes on afterwards: `run` is called on the home executor.
  void prepare(Scope* scope, void (*run_when_ended)(Runnable*) noexcept, void* target) noexcept {
    scope_ = scope;
    target_ = target;
    run = run_when_ended;
    home = current_executor();
  }
  void set_arbiter(Arbiter* arbiter, std::uint32_t index) noexcept {
    arbiter_ = arbiter;
    index_ = index;
  }

  /// By whoever has something to give, under the primitive's lock, after it took the waiter out of
  /// the queue. True: give it, and wake the waiter when the lock is released. False: the waiter
  /// gets nothing; if `*wake_anyway` it must be woken all the same.
  bool try_complete(bool* wake_anyway) noexcept {
    if (!state.try_complete()) return false;
    if (arbiter_ == nullptr || arbiter_->win(index_)) [[likely]]
      return true;
    state.set(WaitPhase::lost);
    *wake_anyway = true;
    return false;
  }

  /// Hands a claimed waiter to its executor. The last touch of it.
  void wake() noexcept;

  Scope* scope() const noexcept { return scope_; }
  void* target() const noexcept { return target_; }
  /// The race that the operation has to win before it takes anything; null: none.
  Arbiter* arbiter() const noexcept { return arbiter_; }
  std::uint32_t contestant() const noexcept { return index_; }

  /// For the simulator: an operation that has ended, and whose coroutine is destroyed instead of
  /// resumed, leaves its lists; what it was given is given back.
  void abandon() noexcept { drop_(this); }

  static void resume_target(Runnable* node) noexcept {
    auto* const op = static_cast<OperationBase*>(node);
    resume_strand(std::coroutine_handle<>::from_address(op->target_), op->scope_);
  }

 protected:
  ~OperationBase() = default;

  /// In start(), first: a cancelled scope lets nothing begin.
  bool refused() noexcept {
    if (!scope_->cancelled()) [[likely]]
      return false;
    state.set(WaitPhase::cancelled_at_once);
    return true;
  }
  /// In start(), where it can complete without parking: false if its race has been won by another.
  bool complete_at_once() noexcept {
    if (arbiter_ != nullptr && !arbiter_->win(index_)) {
      state.set(WaitPhase::cancelled_at_once);
      return false;
    }
    state.set(WaitPhase::done_at_once);
    return true;
  }
  /// In start(), under the primitive's lock and before the waiter is put in its queue. False:
  /// cancelled, do not queue.
  bool park() noexcept {
    state.set(WaitPhase::waiting);
    if (scope_->park(*this)) [[likely]]
      return true;
    state.set(WaitPhase::cancelled_at_once);
    return false;
  }

  ReasonRef cancel_reason() const noexcept {
    ReasonRef reason = scope_->reason();
    return reason ? std::move(reason) : ReasonRef::of_kind(CancelKind::lost_race);
  }

  /// Leaves the lists that the winner left it in; true if it completed.
  template <class Derived>
  bool leave_lists(Derived& derived) noexcept {
    switch (state.phase()) {
      case WaitPhase::done_at_once:
        return true;
      case WaitPhase::done:
        scope_->unpark(*this);
        return true;
      case WaitPhase::lost:
        scope_->unpark(*this);
        return false;
      case WaitPhase::cancelled:
        if constexpr (std::same_as<decltype(derived.unqueue()), bool>) {
          return derived.unqueue();
        } else {
          derived.unqueue();
          return false;
        }
      default:
        return false;
    }
  }

 private:
  Scope* scope_ = nullptr;
  void* target_ = nullptr;
  Arbiter* arbiter_ = nullptr;
  std::uint32_t index_ = 0;

 protected:
  void (*drop_)(OperationBase*) noexcept = nullptr;
};

template <class Derived, class T, class Base = OperationBase>
class Operation : public Base {
 public:
  using value_type = T;

  bool await_ready() const noexcept { return false; }

  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    static_assert(std::derived_from<P, PromiseBase>,
                  "this awaitable works inside a magpie::Task only: wrap the coroutine in one");
    this->prepare(awaiting.promise().scope, &OperationBase::resume_target, awaiting.address());
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

 protected:
  Operation() noexcept {
    this->drop_ = [](OperationBase* op) noexcept {
      Slot<T> unwanted;
      static_cast<Derived*>(op)->finish(unwanted);
    };
  }
  Operation(Operation&&) noexcept = default;
  ~Operation() = default;

 private:
  Derived& derived() noexcept { return static_cast<Derived&>(*this); }
};

}  // namespace magpie::detail
