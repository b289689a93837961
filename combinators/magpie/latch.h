// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Latch: a count that goes down once, and those who wait for it to reach nothing.
//
//     Latch ready(3);                // three workers
//     ready.count_down();            // each of them, when it is ready
//     co_await ready.wait();         // until all are
//
// wait() is a cancellation point and takes nothing. arrive_and_wait() is count_down() and then
// wait(): in a cancelled scope it does neither; what has been counted stays counted, also if the
// wait is cancelled later or loses a race.
//
// Threads: all members from any thread; the latch must outlive its waiters. Who was woken may
// destroy it. No allocation.

#include <cstddef>

#include <magpie/config.h>
#include <magpie/detail/latch_core.h>
#include <magpie/detail/operation.h>
#include <magpie/task.h>

namespace magpie {

class Latch;

namespace detail {

class [[nodiscard("co_await it")]] LatchWait : public Operation<LatchWait, void> {
 public:
  static constexpr const char* kWhat = "a latch";
  LatchWait(Latch& latch, std::size_t arrives) noexcept : latch_(&latch), arrives_(arrives) {}
  LatchWait(LatchWait&& other) noexcept
      : Operation<LatchWait, void>(std::move(other)),
        latch_(other.latch_),
        arrives_(other.arrives_) {}
  MAGPIE_EXPORT bool start();
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }

 private:
  Latch* latch_;
  std::size_t arrives_;
};

}  // namespace detail

class MAGPIE_EXPORT Latch {
 public:
  /// std::invalid_argument above PTRDIFF_MAX. A latch of 0 is open from the start.
  explicit Latch(std::size_t count);
  Latch(const Latch&) = delete;
  Latch& operator=(const Latch&) = delete;

  /// Counts down; who brings it to 0 wakes all waiters. std::invalid_argument if n is more than
  /// what is left.
  void count_down(std::size_t n = 1);
  /// Whether the count is 0.
  [[nodiscard]] bool try_wait() const noexcept;
  /// Waits until the count is 0.
  detail::LatchWait wait() noexcept { return detail::LatchWait(*this, 0); }
  /// Counts down by one and waits. std::invalid_argument if the count is 0 already.
  detail::LatchWait arrive_and_wait() noexcept { return detail::LatchWait(*this, 1); }

 private:
  friend class detail::LatchWait;
  detail::LatchCore<detail::OperationTraits> core_;
};

}  // namespace magpie
