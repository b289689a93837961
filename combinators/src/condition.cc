// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>
#include <utility>

#include <magpie/condition.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/wake_list.h>

namespace magpie {
namespace detail {

inline ConditionWaiter& ConditionTraits::wait(Waiter& w) noexcept {
  return static_cast<ConditionWaiter&>(static_cast<OperationBase&>(w));
}
inline ConditionPart<StdEnv>& ConditionTraits::part(ConditionWaiter& w) noexcept {
  return w.part_;
}
inline Scope& ConditionTraits::scope(ConditionWaiter& w) noexcept {
  return *w.scope();
}
inline PermitCore<MutexTraits>& ConditionTraits::mutex(ConditionWaiter& w) noexcept {
  return w.mutex_->core_;
}
inline void ConditionTraits::lets_go(ConditionWaiter& w) noexcept {
  w.lock_->mutex_ = nullptr;
}
inline void ConditionTraits::cancelled(ConditionWaiter& w) noexcept {
  w.outcome_.set_cancelled(w.cancel_reason());
}
// Which has nothing to do with the mutex.
inline void ConditionTraits::leaves_race(ConditionWaiter& w) noexcept {
  if (w.race == RacePart::asks) w.leave_race();
}
inline bool ConditionTraits::destroyed(ConditionWaiter&) noexcept {
  return thread_state()->divert != nullptr;
}
inline void ConditionTraits::runs_again(ConditionWaiter& w) noexcept {
  w.executor = current_executor();
}
inline void ConditionTraits::leave_mask(ConditionWaiter& w) noexcept {
  leave_scope(w.part_.mask);
}

}  // namespace detail

void Condition::require_mutex(Mutex& mutex) {
  // Relaxed: the pointer is only compared.
  Mutex* first = mutex_.load(std::memory_order_relaxed);
  if (first == &mutex) [[likely]]
    return;
  if (first == nullptr && mutex_.compare_exchange_strong(first, &mutex, std::memory_order_relaxed))
    return;
  if (first == &mutex) return;
  throw std::invalid_argument(
      "Condition::wait() was given a lock of another mutex than before: a condition belongs to one "
      "mutex");
}

void Condition::notify_one() noexcept {
  core_.notify_one();
}
void Condition::notify_all() noexcept {
  core_.notify_all();
}

namespace detail {

bool ConditionWaiter::start(const WaitKind& meanwhile) {
  mutex_ = lock_->mutex_;
  outcome_.reset();  // of an await before this one
  part_.notified = false;
  if (mutex_ == nullptr) {
    throw std::logic_error(
        "Condition::wait() needs a lock that holds its mutex: this one was released or moved from");
  }
  if (refused()) return false;
  condition_->require_mutex(*mutex_);
  if (satisfied_ != nullptr && satisfied_(this)) {
    state.set(WaitPhase::done_at_once);
    return false;
  }
  go_on_ = std::exchange(how, &meanwhile);
  if (condition_->core_.wait(*this)) return true;
  how = go_on_;
  return false;
}

// With the mutex held: true if the predicate does not hold yet.
bool ConditionWaiter::wants_more() noexcept {
  if (satisfied_ == nullptr || !outcome_.empty()) return false;
  install_locals(*scope());
  try {
    return !satisfied_(this);
  } catch (...) {
    outcome_.capture_current_exception();
    return false;
  }
}

// On the waiting strand's executor, in place of the awaiter, until the wait has ended.
void ConditionWaiter::resumed(Runnable* node) noexcept {
  auto* const self = static_cast<ConditionWaiter*>(node);
  using Core = ConditionCore<ConditionTraits>;
  Core& core = self->condition_->core_;
  const Core::Resumed resumed = core.resume(*self);
  if (resumed == Core::Resumed::waiting) return;
  if (resumed == Core::Resumed::holding) {
    self->lock_->mutex_ = self->mutex_;
    if (self->wants_more()) {
      if (core.wait(*self)) return;
      self->outcome_.set_cancelled(self->cancel_reason());
    }
  }
  self->state.set(WaitPhase::done_at_once);
  self->how = self->go_on_;
  self->run();
}

}  // namespace detail
}  // namespace magpie
