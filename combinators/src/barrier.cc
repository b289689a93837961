// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <stdexcept>
#include <string>

#include <magpie/barrier.h>
#include <magpie/detail/wake_list.h>

namespace magpie {
namespace {

std::size_t checked(std::size_t parties) {
  if (parties == 0) throw std::invalid_argument("a Barrier needs at least one party");
  if (parties > PTRDIFF_MAX)
    throw std::invalid_argument("a Barrier can have up to PTRDIFF_MAX parties, not " +
                                std::to_string(parties));
  return parties;
}

}  // namespace

namespace detail {

inline BarrierWait& BarrierTraits::party(Waiter& w) noexcept {
  return static_cast<BarrierWait&>(static_cast<OperationBase&>(w));
}
inline Contestant<StdEnv> BarrierTraits::contestant(BarrierWait& party) noexcept {
  return detail::contestant(party);
}

}  // namespace detail

Barrier::Barrier(std::size_t parties) : core_(checked(parties)) {}

namespace detail {

bool BarrierWait::start() noexcept {
  part = {};  // of an await before this one
  return !refused() && barrier_->core_.start(*this);
}

bool BarrierWait::unqueue() noexcept {
  return barrier_->core_.leave(*this);
}

SpinLock<StdEnv>& pact_lock() noexcept {
  static constinit SpinLock<StdEnv> lock;
  return lock;
}

}  // namespace detail
}  // namespace magpie
