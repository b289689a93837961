// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <mutex>
#include <stdexcept>

#include <magpie/condition.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/wake_list.h>

namespace magpie {
namespace detail {
namespace {

// Notified waiters go on to the mutex, in their order.
void relock_all(WakeList& notified) noexcept {
  WakeList woken;
  while (Waiter* const waiter = notified.pop_front())
    static_cast<ConditionWaiter*>(waiter)->relock(woken);
  woken.wake_all();
}

}  // namespace
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
  detail::WakeList notified;
  {
    std::lock_guard guard(lock_);
    while (!waiters_.empty() && !notified.claim_front(waiters_)) {
    }
  }
  detail::relock_all(notified);
}

void Condition::notify_all() noexcept {
  detail::WakeList notified;
  {
    std::lock_guard guard(lock_);
    while (!waiters_.empty()) notified.claim_front(waiters_);
  }
  detail::relock_all(notified);
}

namespace detail {

bool ConditionWaiter::start() {
  mutex_ = lock_->mutex_;
  outcome_.reset();  // of an await before this one
  notified_ = false;
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
  go_on_ = run;
  run = resumed;
  return enqueue();
}

// From holding the mutex to waiting without. False: cancelled, and the mutex still held.
bool ConditionWaiter::enqueue() noexcept {
  Mutex& mutex = *mutex_;  // from the end of the section on, this wait may be over
  {
    std::lock_guard guard(condition_->lock_);
    stage_ = Stage::condition;
    if (!park()) return false;
    lock_->mutex_ = nullptr;
    condition_->waiters_.push_back(*this);
  }
  mutex.release();
  return true;
}

void ConditionWaiter::relock(WakeList& woken) noexcept {
  if (state.phase() == WaitPhase::lost) {
    outcome_.set_cancelled(cancel_reason());
  } else {
    notified_ = true;
  }
  scope()->unpark(*this);
  if (take_mutex_back()) woken.add(*this);
}

// True: it has the mutex. False: it is in the mutex's queue, where no cancellation reaches it.
bool ConditionWaiter::take_mutex_back() noexcept {
  if (race == RacePart::asks) leave_race();  // which has nothing to do with the mutex
  stage_ = Stage::holding;
  return mutex_->core_.take_or_queue(*this, [this]() noexcept {
    stage_ = Stage::mutex;
    state.set(WaitPhase::waiting);
    mask_.enter(scope(), scope()->task(), ScopeKind::masked);
    mask_.park(*this);  // behind a mask it is not refused
  });
}

// False: the simulator destroys the strand, and the mutex was not handed over.
bool ConditionWaiter::leave_mutex_queue() noexcept {
  const bool handed_over = state.phase() == WaitPhase::done;
  if (handed_over) {
    mask_.unpark(*this);
  } else {
    mutex_->core_.leave(*this);
  }
  leave_scope(mask_);
  return handed_over;
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
  bool holding = true;
  switch (self->stage_) {
    case Stage::condition:  // a cancellation has claimed it
      self->outcome_.set_cancelled(self->cancel_reason());
      {
        std::lock_guard guard(self->condition_->lock_);
        self->condition_->waiters_.forget(*self);
      }
      if (thread_state()->divert !=
          nullptr) {  // the simulator destroys the strand, and the mutex maybe before
        holding = false;
        break;
      }
      if (!self->take_mutex_back()) return;
      break;
    case Stage::mutex:
      holding = self->leave_mutex_queue();
      break;
    case Stage::holding:
      break;
  }
  if (holding) {
    self->lock_->mutex_ = self->mutex_;
    if (self->wants_more()) {
      if (self->enqueue()) return;
      self->outcome_.set_cancelled(self->cancel_reason());
    }
  }
  self->state.set(WaitPhase::done_at_once);
  self->run = self->go_on_;
  self->go_on_(self);
}

}  // namespace detail
}  // namespace magpie
