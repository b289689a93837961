// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Barrier: a fixed number of tasks that wait for each other, phase after phase.
//
//     Barrier barrier(3);
//     while (more()) {
//       work();
//       const bool one_of_them = co_await barrier.arrive_and_wait();   // until three have arrived
//       if (one_of_them) swap_buffers();
//     }
//
// Exactly one of the parties of a phase gets true: the one that arrived last. The others have not
// waited for it to go on: what it then does is not ordered before their next steps. A party that is
// cancelled while it waits leaves the count, and the phase needs a full number without it; if the
// phase was complete before the cancellation, the arrival's value is delivered. arrive_and_wait is
// a cancellation point; in a cancelled scope one does not arrive. Given directly to race or any, a
// party takes part only if it wins: either all parties of a phase win their races, or the phase is
// not complete. Two contestants of one race are one party.
//
// Threads: all members from any thread; the barrier must outlive its waiters. No allocation.

#include <cstddef>

#include <magpie/config.h>
#include <magpie/detail/barrier_core.h>
#include <magpie/detail/operation.h>
#include <magpie/task.h>

namespace magpie {

class Barrier;

namespace detail {

class BarrierWait;

/// What a Barrier is made of, for BarrierCore.
struct BarrierTraits : OperationTraits {
  using Party = BarrierWait;
  static Party& party(Waiter& w) noexcept;
  static Contestant<StdEnv> contestant(Party& party) noexcept;
  static SpinLock<StdEnv>& pact_lock() noexcept { return detail::pact_lock(); }
};

class [[nodiscard("co_await it")]] BarrierWait : public Operation<BarrierWait, bool> {
 public:
  static constexpr const char* kWhat = "a barrier";
  static constexpr bool kTakes = true;
  explicit BarrierWait(Barrier& barrier) noexcept : barrier_(&barrier) {}
  BarrierWait(BarrierWait&& other) noexcept
      : Operation<BarrierWait, bool>(std::move(other)), barrier_(other.barrier_) {}
  MAGPIE_EXPORT bool start() noexcept;
  MAGPIE_EXPORT bool unqueue() noexcept;
  void deposit(Slot<bool>& slot) noexcept { slot.emplace(part.last); }

  /// For BarrierCore.
  BarrierPart part;

 private:
  Barrier* barrier_;
};

}  // namespace detail

class MAGPIE_EXPORT Barrier {
 public:
  /// std::invalid_argument for 0 parties, or more than PTRDIFF_MAX.
  explicit Barrier(std::size_t parties);
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;

  /// Waits until as many have arrived; true for one of them.
  detail::BarrierWait arrive_and_wait() noexcept { return detail::BarrierWait(*this); }

 private:
  friend class detail::BarrierWait;
  detail::BarrierCore<detail::BarrierTraits> core_;
};

}  // namespace magpie
