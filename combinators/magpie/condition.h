// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Condition: waits, with a mutex released meanwhile, until another task says that something has
// changed.
//
//     Mutex::Lock lock = co_await mutex.lock();
//     co_await condition.wait(lock, [&] { return !queue.empty(); });
//     // Holds the lock again, and the queue is not empty. Elsewhere, with or without the mutex:
//     condition.notify_one();
//
// First in, first out: notify_one wakes the task that has waited longest. What is notified queues
// for the mutex there and then, so that nobody overtakes it on its way. There are no wake-ups
// without a notification; after one, somebody else may have come first, which is what the form with
// a predicate looks at.
//
// wait() returns or throws with the lock held, always: a cancelled wait takes the mutex back first,
// which cannot be cancelled, and then throws the cancellation that had ended it. A notification
// that meets a cancelled waiter, or one that has lost its race, goes to the next. The form with a
// predicate ends only when that is true; it is asked with the lock held, on the waiting task's
// executor. If such a wait is given to a race directly, and loses after it was notified, it passes
// the notification on. wait() is a cancellation point; in a cancelled scope it neither releases the
// mutex nor asks the predicate.
//
// Errors: std::logic_error for a Lock that holds nothing; std::invalid_argument if the condition is
// used with another mutex than the first time: a condition belongs to one mutex. What the predicate
// throws leaves wait(), with the lock held.
//
// Threads: notify_one and notify_all from any thread; the Lock belongs to the waiting task. The
// condition must outlive its waiters, the Lock object its wait. No allocation of its own.

#include <atomic>
#include <concepts>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/callable.h>
#include <magpie/detail/condition_core.h>
#include <magpie/detail/operation.h>
#include <magpie/mutex.h>

namespace magpie {

namespace detail {

class ConditionWaiter;

/// What a Condition is made of, for ConditionCore.
struct ConditionTraits : OperationTraits {
  using Wait = ConditionWaiter;
  static ConditionWaiter& wait(Waiter& w) noexcept;
  static ConditionPart<StdEnv>& part(ConditionWaiter& w) noexcept;
  static Scope& scope(ConditionWaiter& w) noexcept;
  static PermitCore<MutexTraits>& mutex(ConditionWaiter& w) noexcept;
  static void lets_go(ConditionWaiter& w) noexcept;
  static void cancelled(ConditionWaiter& w) noexcept;
  static void leaves_race(ConditionWaiter& w) noexcept;
  static bool destroyed(ConditionWaiter& w) noexcept;
  static void leave_mask(ConditionWaiter& w) noexcept;
  static void runs_again(ConditionWaiter& w) noexcept;
};

/// A wait for a condition, in two stages: in the condition's queue until it is notified or
/// cancelled, then in the mutex's, behind a mask. The page: combinators/DESIGN.md, "Condition".
class MAGPIE_EXPORT ConditionWaiter : public OperationBase {
 public:
  /// When the wait has ended it is in no list any more.
  void unqueue() noexcept {}
  const char* waits_for() const noexcept {
    return part_.stage == ConditionStage::mutex ? "a condition's mutex" : "a condition";
  }

 protected:
  using OperationBase::OperationBase;
  ConditionWaiter(ConditionWaiter&& other) noexcept
      : OperationBase(std::move(other)), condition_(other.condition_), lock_(other.lock_) {}
  ~ConditionWaiter() = default;

  /// It may have to wait for its mutex first, so it goes on in a way of its own, and is no part of
  /// a row: `meanwhile` is the kind that runs resumed().
  bool start(const WaitKind& meanwhile);
  static void resumed(Runnable* node) noexcept;

  Condition* condition_ = nullptr;
  Mutex::Lock* lock_ = nullptr;
  /// Asks the predicate; null: being notified is enough.
  bool (*satisfied_)(ConditionWaiter*) = nullptr;
  bool notified() const noexcept { return part_.notified; }
  Slot<void> outcome_;  // empty: it has completed

 private:
  friend struct ConditionTraits;
  bool wants_more() noexcept;

  Mutex* mutex_ = nullptr;
  const RunKind* go_on_ = nullptr;  // how the awaiter goes on
  ConditionPart<StdEnv> part_;
};

class [[nodiscard("co_await it")]] ConditionWait
    : public Operation<ConditionWait, void, ConditionWaiter> {
 public:
  static constexpr bool kTakes = true;
  ConditionWait(Condition& condition, Mutex::Lock& lock) noexcept {
    condition_ = &condition;
    lock_ = &lock;
  }
  ConditionWait(ConditionWait&&) noexcept = default;
  bool start() { return ConditionWaiter::start(kKind<resumed, GoesOn::otherwise>); }
  void deposit(Slot<void>& slot) noexcept {
    outcome_.empty() ? slot.emplace() : void(slot = std::move(outcome_));
  }
};

template <class F>
class [[nodiscard("co_await it")]] PredicateWait
    : public Operation<PredicateWait<F>, void, ConditionWaiter> {
 public:
  // Being notified decides no race: the predicate may be false.
  static constexpr bool kTakesAtItsEnd = true;
  PredicateWait(Condition& condition, Mutex::Lock& lock, F&& predicate)
      : predicate_(std::forward<F>(predicate)) {
    this->condition_ = &condition;
    this->lock_ = &lock;
  }
  PredicateWait(PredicateWait&& other)
      : Operation<PredicateWait, void, ConditionWaiter>(std::move(other)),
        predicate_(std::forward<F>(other.predicate_)) {}

  bool start() {
    this->satisfied_ = [](ConditionWaiter* waiter) {
      return static_cast<bool>(std::invoke(static_cast<PredicateWait*>(waiter)->predicate_));
    };
    using Wait = Operation<PredicateWait, void, ConditionWaiter>;
    return ConditionWaiter::start(
        Wait::template kKind<ConditionWaiter::resumed, GoesOn::otherwise>);
  }
  void deposit(Slot<void>& slot) noexcept;

 private:
  F predicate_;
};

}  // namespace detail

class MAGPIE_EXPORT Condition {
 public:
  Condition() = default;
  Condition(const Condition&) = delete;
  Condition& operator=(const Condition&) = delete;

  /// Releases the mutex, waits to be notified, and takes the mutex back.
  detail::ConditionWait wait(Mutex::Lock& lock) noexcept {
    return detail::ConditionWait(*this, lock);
  }
  /// Waits until predicate(), as a condition of an `if`, is true; does not wait if it is. The
  /// predicate is moved in, or referenced if it is an lvalue.
  template <class F>
  requires detail::Predicate<F>
  detail::PredicateWait<F> wait(Mutex::Lock& lock, F&& predicate) {
    return detail::PredicateWait<F>(*this, lock, std::forward<F>(predicate));
  }

  /// Wakes the one that has waited longest; nobody waits: nothing happens.
  void notify_one() noexcept;
  /// Wakes all that wait now.
  void notify_all() noexcept;

 private:
  friend class detail::ConditionWaiter;
  void require_mutex(Mutex& mutex);

  detail::ConditionCore<detail::ConditionTraits> core_;
  std::atomic<Mutex*> mutex_{nullptr};  // the first that it was used with
};

template <class F>
void detail::PredicateWait<F>::deposit(Slot<void>& slot) noexcept {
  if (!this->outcome_.empty()) {
    slot = std::move(this->outcome_);
  } else if (this->wins_at_its_end()) {
    slot.emplace();
  } else {
    slot.set_cancelled(ReasonRef::of_kind(CancelKind::lost_race));
    if (this->notified()) this->condition_->notify_one();
  }
}

}  // namespace magpie
