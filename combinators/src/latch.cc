// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>

#include <magpie/detail/wake_list.h>
#include <magpie/latch.h>

namespace magpie {
namespace {

constexpr std::size_t kMost = PTRDIFF_MAX;

[[noreturn]] void throw_too_many(std::size_t n) {
  throw std::invalid_argument(
      "a Latch was counted down by " + std::to_string(n) +
      ", which is more than was left of its count: construct it with the number of all arrivals");
}

}  // namespace

Latch::Latch(std::size_t count) : count_(count) {
  if (count > kMost)
    throw std::invalid_argument("a Latch can count from up to PTRDIFF_MAX, not " +
                                std::to_string(count));
}

// Under the lock, so that its release is the last touch of the latch. False: there are not so many
// left.
bool Latch::arrive(std::size_t n, detail::WakeList& woken) noexcept {
  if (n > count_) return false;
  count_ -= n;
  while (count_ == 0 && !waiters_.empty()) woken.claim_front(waiters_);
  return true;
}

void Latch::count_down(std::size_t n) {
  detail::WakeList woken;
  bool counted;
  {
    std::lock_guard guard(lock_);
    counted = arrive(n, woken);
  }
  woken.wake_all();
  if (!counted) throw_too_many(n);
}

bool Latch::try_wait() const noexcept {
  std::lock_guard guard(lock_);
  return count_ == 0;
}

namespace detail {

bool LatchWait::start() {
  if (refused()) return false;
  WakeList woken;
  bool counted;
  bool parked = false;
  {
    std::lock_guard guard(latch_->lock_);
    counted = latch_->arrive(arrives_, woken);
    if (counted) {
      if (latch_->count_ == 0) {
        complete_at_once();
      } else if (park()) {
        latch_->waiters_.push_back(*this);
        parked = true;
      }
    }
  }
  woken.wake_all();
  if (!counted) throw_too_many(arrives_);
  return parked;
}

void LatchWait::unqueue() noexcept {
  std::lock_guard guard(latch_->lock_);
  latch_->waiters_.forget(*this);
}

}  // namespace detail
}  // namespace magpie
