// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Semaphore: permits, handed out first in, first out.
//
//     Semaphore slots(10);
//     Permit permit = co_await slots.acquire();   // given back when it goes out of scope
//
// No barging: while somebody waits, a released permit belongs to the oldest waiter; neither
// try_acquire nor a newcomer overtakes it, and an acquire(n) at the head is not starved by smaller
// ones. A cancelled waiter leaves nothing behind; what was granted before the cancellation is
// delivered. acquire is a cancellation point; in a cancelled scope it takes nothing, also if a
// permit is free.
//
// Threads: all members from any thread; the semaphore must outlive its waiters and permits. No
// allocation. A permit that is free is taken with one locked instruction, and given back with one
// while nobody waits.

#include <cstddef>
#include <optional>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/semaphore_core.h>
#include <magpie/limited.h>

namespace magpie {

class Semaphore;
class BoundedSemaphore;

/// Permits that somebody holds: given back by release() or the destructor.
class [[nodiscard("the permit is given back when this object dies")]] Permit {
 public:
  Permit() noexcept = default;
  Permit(Permit&& other) noexcept
      : count_(std::exchange(other.count_, 0)),
        semaphore_(std::exchange(other.semaphore_, nullptr)) {}
  Permit& operator=(Permit&& other) noexcept {
    if (this != &other) {
      release();
      count_ = std::exchange(other.count_, 0);
      semaphore_ = std::exchange(other.semaphore_, nullptr);
    }
    return *this;
  }
  ~Permit() { give_back(); }

  /// Gives the permits back; a second call does nothing. From any thread.
  void release() noexcept { const Permit given_back(std::move(*this)); }
  /// How many permits are held.
  [[nodiscard]] std::size_t count() const noexcept { return count_; }

  /// For the library.
  Permit(Semaphore& semaphore, std::size_t count) noexcept
      : count_(count), semaphore_(&semaphore) {}

 private:
  void give_back() const noexcept;
  // Not in the order of AcquireOperation's: a compiler copies both by one load of 16 bytes there,
  // to which a processor cannot forward the two stores of 8 that came right before, and waits for
  // them (bench/NOTES.md, "A load that waits for two stores").
  std::size_t count_ = 0;  // none: the semaphore may be gone
  Semaphore* semaphore_ = nullptr;
};

namespace detail {

class AcquireOperation;

/// What a Semaphore is made of, for SemaphoreCore.
struct SemaphoreTraits : OperationTraits {
  using Acquire = AcquireOperation;
  using Word = std::size_t;

  static std::size_t count(const Acquire& op) noexcept;
  static std::size_t count(const Waiter& w) noexcept;
};

class [[nodiscard("co_await it")]] AcquireOperation : public Operation<AcquireOperation, Permit> {
 public:
  static constexpr const char* kWhat = "a semaphore";
  static constexpr bool kTakes = true;
  AcquireOperation(Semaphore& semaphore, std::size_t count) noexcept
      : semaphore_(&semaphore), count_(count) {}
  AcquireOperation(AcquireOperation&& other) noexcept
      : Operation<AcquireOperation, Permit>(std::move(other)),
        semaphore_(other.semaphore_),
        count_(other.count_) {}
  MAGPIE_EXPORT bool start();
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<Permit>& slot) noexcept { slot.emplace(*semaphore_, count_); }

  // As the operation's own, but for a free permit without the steps of a wait.
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) {
    if (takes_at_once(*awaiting.promise().scope)) [[likely]]
      return false;
    return Operation<AcquireOperation, Permit>::await_suspend(awaiting);
  }
  Permit await_resume() {
    if (completed_at_once()) [[likely]]
      return Permit(*semaphore_, count_);
    return Operation<AcquireOperation, Permit>::await_resume();
  }

 private:
  friend struct SemaphoreTraits;
  bool takes_at_once(const Scope& its_scope) noexcept;
  Semaphore* semaphore_;
  std::size_t count_;
};

}  // namespace detail

class MAGPIE_EXPORT Semaphore {
 public:
  /// As Mutex::Lock is named.
  using Permit = magpie::Permit;

  /// std::invalid_argument above PTRDIFF_MAX.
  explicit Semaphore(std::size_t permits);
  Semaphore(const Semaphore&) = delete;
  Semaphore& operator=(const Semaphore&) = delete;

  /// Waits for n permits at once; acquire(0) completes at once. std::invalid_argument above
  /// PTRDIFF_MAX, or for a BoundedSemaphore above its number.
  detail::AcquireOperation acquire(std::size_t n = 1) noexcept {
    return detail::AcquireOperation(*this, n);
  }
  /// Without waiting; nothing if somebody waits already.
  [[nodiscard]] std::optional<Permit> try_acquire(std::size_t n = 1);
  /// What is free now.
  [[nodiscard]] std::size_t available() const noexcept;
  /// More permits. std::invalid_argument if there would be more than PTRDIFF_MAX; of a
  /// BoundedSemaphore, past its initial value, std::logic_error.
  void add_permits(std::size_t n);

 protected:
  Semaphore(std::size_t permits, std::size_t most);

 private:
  friend class magpie::Permit;
  friend class detail::AcquireOperation;
  void check(std::size_t n) const;
  void give_back(std::size_t n) noexcept {
    if (!core_.give_back_if_open(n)) [[unlikely]]
      give_back_to_closed(n);
  }
  void give_back_to_closed(std::size_t n) noexcept;

  detail::SemaphoreCore<detail::SemaphoreTraits> core_;
};

/// A semaphore that never has more permits than it began with: adding more is std::logic_error.
class BoundedSemaphore : public Semaphore {
 public:
  explicit BoundedSemaphore(std::size_t permits) : Semaphore(permits, permits) {}
};

inline void Permit::give_back() const noexcept {
  if (count_ != 0) semaphore_->give_back(count_);
}

inline bool detail::AcquireOperation::takes_at_once(const Scope& its_scope) noexcept {
  if (its_scope.maybe_cancelled() || !semaphore_->core_.take_if_open(count_)) [[unlikely]]
    return false;
  has_completed_at_once();
  return true;
}

}  // namespace magpie
