// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <stdexcept>
#include <string>

#include <magpie/detail/wake_list.h>
#include <magpie/latch.h>

namespace magpie {
namespace {

constexpr std::size_t kMostCounts = PTRDIFF_MAX;

[[noreturn]] void throw_too_many(std::size_t n) {
  throw std::invalid_argument(
      "a Latch was counted down by " + std::to_string(n) +
      ", which is more than was left of its count: construct it with the number of all arrivals");
}

}  // namespace

Latch::Latch(std::size_t count) : core_(count) {
  if (count > kMostCounts)
    throw std::invalid_argument("a Latch can count from up to PTRDIFF_MAX, not " +
                                std::to_string(count));
}

void Latch::count_down(std::size_t n) {
  if (!core_.count_down(n)) throw_too_many(n);
}

bool Latch::try_wait() const noexcept {
  return core_.open();
}

namespace detail {

bool LatchWait::start() {
  if (refused()) return false;
  const std::size_t arrives = arrives_;  // what is parked may be gone
  const LatchStart started = latch_->core_.start(*this, arrives);
  if (started == LatchStart::too_many) throw_too_many(arrives);
  return started == LatchStart::parked;
}

void LatchWait::unqueue() noexcept {
  latch_->core_.leave(*this);
}

}  // namespace detail
}  // namespace magpie
