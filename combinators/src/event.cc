// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <mutex>

#include <magpie/detail/wake_list.h>
#include <magpie/event.h>

namespace magpie {

void Event::set() noexcept {
  detail::WakeList woken;
  {
    std::lock_guard guard(lock_);
    set_ = true;
    while (!waiters_.empty()) woken.claim_front(waiters_);
  }
  woken.wake_all();
}

void Event::clear() noexcept {
  std::lock_guard guard(lock_);
  set_ = false;
}

bool Event::is_set() const noexcept {
  std::lock_guard guard(lock_);
  return set_;
}

namespace detail {

bool EventWait::start() noexcept {
  if (refused()) return false;
  std::lock_guard guard(event_->lock_);
  if (event_->set_) {
    complete_at_once();
    return false;
  }
  if (!park()) return false;
  event_->waiters_.push_back(*this);
  return true;
}

void EventWait::unqueue() noexcept {
  std::lock_guard guard(event_->lock_);
  event_->waiters_.forget(*this);
}

}  // namespace detail
}  // namespace magpie
