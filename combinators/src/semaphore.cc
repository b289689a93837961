// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <stdexcept>
#include <string>

#include <magpie/detail/wake_list.h>
#include <magpie/semaphore.h>

namespace magpie {
namespace {

constexpr std::size_t kMostPermits = PTRDIFF_MAX;

std::size_t checked(std::size_t permits) {
  if (permits > kMostPermits) {
    throw std::invalid_argument("a semaphore can have up to PTRDIFF_MAX permits, not " +
                                std::to_string(permits));
  }
  return permits;
}

[[noreturn]] MAGPIE_COLD void refuse(std::size_t n, std::size_t most) {
  throw std::invalid_argument("acquire(" + std::to_string(n) +
                              ") can never succeed: the semaphore has at most " +
                              std::to_string(most) + " permits, so ask for fewer");
}

}  // namespace

namespace detail {

inline std::size_t SemaphoreTraits::count(const AcquireOperation& op) noexcept {
  return op.count_;
}
inline std::size_t SemaphoreTraits::count(const Waiter& w) noexcept {
  return static_cast<const AcquireOperation&>(static_cast<const OperationBase&>(w)).count_;
}

}  // namespace detail

Semaphore::Semaphore(std::size_t permits) : Semaphore(permits, kMostPermits) {}
Semaphore::Semaphore(std::size_t permits, std::size_t most) : core_(checked(permits), most) {}

void Semaphore::check(std::size_t n) const {
  if (n > core_.most()) [[unlikely]]
    refuse(n, core_.most());
}

std::optional<Permit> Semaphore::try_acquire(std::size_t n) {
  check(n);
  if (!core_.try_take(n)) return std::nullopt;
  return Permit(*this, n);
}

std::size_t Semaphore::available() const noexcept {
  return core_.available();
}

void Semaphore::add_permits(std::size_t n) {
  if (core_.add(n)) return;
  if (core_.most() == kMostPermits) {
    throw std::invalid_argument(
        "add_permits(" + std::to_string(n) +
        ") would give the semaphore more than PTRDIFF_MAX permits: add fewer");
  }
  throw std::logic_error(
      "add_permits(" + std::to_string(n) + ") would give the BoundedSemaphore more than its " +
      std::to_string(core_.most()) + " permits: a permit is given back by its own release()");
}

void Semaphore::give_back_to_closed(std::size_t n) noexcept {
  core_.give_back_to_closed(n);
}

namespace detail {

bool AcquireOperation::start() {
  semaphore_->check(count_);
  return !refused() && semaphore_->core_.start(*this);
}

void AcquireOperation::unqueue() noexcept {
  semaphore_->core_.leave(*this);
}

}  // namespace detail
}  // namespace magpie
