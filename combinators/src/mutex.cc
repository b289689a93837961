// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <mutex>

#include <magpie/detail/wake_list.h>
#include <magpie/mutex.h>

namespace magpie {

std::optional<Mutex::Lock> Mutex::try_lock() noexcept {
  std::lock_guard guard(lock_);
  if (held_) return std::nullopt;
  held_ = true;
  return std::optional<Lock>(std::in_place, *this);
}

// Handed to the oldest waiter that still wants it: between two holders the mutex is never free.
void Mutex::release() noexcept {
  detail::WakeList woken;
  {
    std::lock_guard guard(lock_);
    bool handed_over = false;
    while (!handed_over && !waiters_.empty()) handed_over = woken.claim_front(waiters_);
    held_ = handed_over;
  }
  woken.wake_all();
}

namespace detail {

bool LockOperation::start() noexcept {
  if (refused()) return false;
  std::lock_guard guard(mutex_->lock_);
  if (!mutex_->held_) {
    mutex_->held_ = complete_at_once();
    return false;
  }
  if (!park()) return false;
  mutex_->waiters_.push_back(*this);
  return true;
}

void LockOperation::unqueue() noexcept {
  std::lock_guard guard(mutex_->lock_);
  mutex_->waiters_.forget(*this);
}

}  // namespace detail
}  // namespace magpie
