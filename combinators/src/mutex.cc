// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/wake_list.h>
#include <magpie/mutex.h>

namespace magpie {

std::optional<Mutex::Lock> Mutex::try_lock() noexcept {
  if (!core_.try_take(1)) return std::nullopt;
  return std::optional<Lock>(std::in_place, *this);
}

// Handed to the oldest waiter that still wants it: while somebody waits the mutex is never free.
void Mutex::release_closed() noexcept {
  core_.give_back_to_closed(1);
}

namespace detail {

bool LockOperation::start() noexcept {
  return !refused() && mutex_->core_.start(*this);
}

void LockOperation::unqueue() noexcept {
  mutex_->core_.leave(*this);
}

}  // namespace detail
}  // namespace magpie
