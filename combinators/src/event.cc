// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/wake_list.h>
#include <magpie/event.h>

namespace magpie {

void Event::set() noexcept {
  core_.set();
}
void Event::clear() noexcept {
  core_.clear();
}
bool Event::is_set() const noexcept {
  return core_.is_set();
}

namespace detail {

bool EventWait::start() noexcept {
  return !refused() && event_->core_.start(*this);
}
void EventWait::unqueue() noexcept {
  event_->core_.leave(*this);
}

}  // namespace detail
}  // namespace magpie
