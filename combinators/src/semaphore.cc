// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>

#include <magpie/detail/wake_list.h>
#include <magpie/semaphore.h>

namespace magpie {
namespace {

constexpr std::size_t kMost = PTRDIFF_MAX;

std::size_t checked(std::size_t permits) {
  if (permits > kMost) {
    throw std::invalid_argument("a semaphore can have up to PTRDIFF_MAX permits, not " +
                                std::to_string(permits));
  }
  return permits;
}

}  // namespace

Semaphore::Semaphore(std::size_t permits) : Semaphore(permits, kMost) {}
Semaphore::Semaphore(std::size_t permits, std::size_t most)
    : free_(checked(permits)), most_(most) {}

void Semaphore::check(std::size_t n) const {
  if (n <= most_) return;
  throw std::invalid_argument("acquire(" + std::to_string(n) +
                              ") can never succeed: the semaphore has at most " +
                              std::to_string(most_) + " permits, so ask for fewer");
}

std::optional<Permit> Semaphore::try_acquire(std::size_t n) {
  check(n);
  std::lock_guard guard(lock_);
  if (n != 0 && (!waiters_.empty() || free_ < n)) return std::nullopt;
  free_ -= n;
  out_ += n;
  return Permit(*this, n);
}

std::size_t Semaphore::available() const noexcept {
  std::lock_guard guard(lock_);
  return free_;
}

void Semaphore::add_permits(std::size_t n) {
  detail::WakeList woken;
  {
    std::lock_guard guard(lock_);
    if (n > most_ - free_ || free_ + n > most_ - out_) {
      if (most_ == kMost) {
        throw std::invalid_argument(
            "add_permits(" + std::to_string(n) +
            ") would give the semaphore more than PTRDIFF_MAX permits: add fewer");
      }
      throw std::logic_error(
          "add_permits(" + std::to_string(n) + ") would give the BoundedSemaphore more than its " +
          std::to_string(most_) + " permits: a permit is given back by its own release()");
    }
    free_ += n;
    serve(woken);
  }
  woken.wake_all();
}

void Semaphore::give_back(std::size_t n) noexcept {
  detail::WakeList woken;
  {
    std::lock_guard guard(lock_);
    out_ -= n;
    free_ += n;
    serve(woken);
  }
  woken.wake_all();
}

// Under the lock: what is free goes to the head of the queue, as long as it is enough for it.
void Semaphore::serve(detail::WakeList& woken) noexcept {
  while (!waiters_.empty()) {
    const std::size_t n = static_cast<detail::AcquireOperation*>(
                              static_cast<detail::OperationBase*>(waiters_.front()))
                              ->count();
    if (free_ < n) return;
    if (woken.claim_front(waiters_)) {
      free_ -= n;
      out_ += n;
    }
  }
}

void Permit::release() noexcept {
  Semaphore* const semaphore = std::exchange(semaphore_, nullptr);
  const std::size_t count = std::exchange(count_, 0);
  if (semaphore != nullptr && count != 0) semaphore->give_back(count);
}

namespace detail {

bool AcquireOperation::start() {
  semaphore_->check(count_);
  if (refused()) return false;
  std::lock_guard guard(semaphore_->lock_);
  if (count_ == 0 || (semaphore_->waiters_.empty() && semaphore_->free_ >= count_)) {
    if (complete_at_once()) {
      semaphore_->free_ -= count_;
      semaphore_->out_ += count_;
    }
    return false;
  }
  if (!park()) return false;
  semaphore_->waiters_.push_back(*this);
  return true;
}

// A large request that leaves the head may make way for the ones behind it.
void AcquireOperation::unqueue() noexcept {
  WakeList woken;
  {
    std::lock_guard guard(semaphore_->lock_);
    semaphore_->waiters_.forget(*this);
    semaphore_->serve(woken);
  }
  woken.wake_all();
}

}  // namespace detail
}  // namespace magpie
