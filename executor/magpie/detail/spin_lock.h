// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>

// A lock of one byte for sections of a few dozen instructions that neither block nor call out.
//
// Not fair, not recursive, and not for sections that allocate or run somebody else's code.
//
//     SpinLock<> lock;
//     { std::lock_guard hold(lock); list.push_back(node); }
//
// Threads: any. The release store in unlock() is the last touch: whoever locks next may destroy the
// lock's owner at once. No cancellation, no errors.

namespace magpie::detail {

template <class Env = StdEnv>
class SpinLock {
 public:
  SpinLock() = default;
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

  void lock() noexcept {
    if (try_lock()) [[likely]] {
      return;
    }
    lock_contended();
  }

  [[nodiscard("the lock may not have been taken")]] bool try_lock() noexcept {
    if constexpr (Env::mutant(Mutant::spin_lock_plain_lock)) {
      if (word_.load(std::memory_order_acquire) != kFree) return false;
      word_.store(kHeld, std::memory_order_relaxed);
      return true;
    }
    // Acquire: pairs with the release store in unlock().
    return word_.exchange(kHeld, std::memory_order_acquire) == kFree;
  }

  /// Leaves the line with those who share it.
  bool seems_held() const noexcept { return word_.load(std::memory_order_relaxed) != kFree; }

  void unlock() noexcept {
    // Release: pairs with the exchange in try_lock().
    word_.store(kFree, Env::mutant(Mutant::spin_lock_relaxed_unlock) ? std::memory_order_relaxed
                                                                     : std::memory_order_release);
  }

 private:
  static constexpr std::uint8_t kFree = 0;
  static constexpr std::uint8_t kHeld = 1;
  static constexpr unsigned kFirstRound = 4;  // 16 pauses, about a third of a microsecond

  [[gnu::noinline]] void lock_contended() noexcept {
    // The first wait is long enough for whoever has the line to use the lock many times: two
    // threads that took turns would wait for the line each time, at several times the cost of the
    // sections.
    Backoff<Env> backoff(kFirstRound);
    if constexpr (!Env::kModel) backoff.wait();
    do {
      // Only look until it seems free: the line stays shared among those who wait.
      while (word_.load(std::memory_order_relaxed) != kFree) backoff.wait();
    } while (!try_lock());
  }

  typename Env::template Atomic<std::uint8_t> word_{kFree};
};

static_assert(sizeof(SpinLock<>) == 1, "locks lie in frames and records by the million");

}  // namespace magpie::detail
