// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/atomic.h>

// How a thread waits for something that another thread does in a moment: a few pauses, each round
// twice as long, then the processor goes to whoever needs it.
//
// Not a way to wait for anything long or unbounded: that is EventCount.
//
//     Backoff<Env> backoff;
//     while (!done.load(std::memory_order_acquire)) backoff.wait();
//
// Threads: one object per waiting thread, on its stack. No cancellation, no errors.

namespace magpie::detail {

template <class Env = StdEnv>
class Backoff {
 public:
  Backoff() noexcept = default;
  // Begins as if it had waited so many rounds.
  explicit Backoff(unsigned rounds) noexcept : round_(rounds < kRounds ? rounds : kRounds) {}

  void wait() noexcept {
    if (round_ < kRounds) {
      for (unsigned i = 0; i < 1U << round_; ++i) Env::pause();
      ++round_;
    } else {
      Env::yield_thread();
    }
  }

  void reset() noexcept { round_ = 0; }

 private:
  // 1 + 2 + .. + 32 pauses: 1 to 3 us. Who holds a lock that long has most likely been preempted,
  // and with more threads than processors only a yield lets it go on.
  static constexpr unsigned kRounds = Env::kModel ? 0 : 6;

  unsigned round_ = 0;
};

}  // namespace magpie::detail
