// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who wins a race: one word, that the contestants ask.

#include <cstdint>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/backoff.h>

namespace magpie::detail {

/// Decides a race: the first contestant to complete takes it. Operations that take something (a
/// permit, an item) ask it before they do, so that a loser takes nothing.
template <class Env>
class BasicArbiter {
 public:
  static constexpr std::uint32_t kNobody = 0xffffffff;

  /// True for the one winner. acq_rel: the winner's writes are ordered for whoever reads the
  /// verdict.
  bool win(std::uint32_t index) noexcept {
    std::uint32_t expected = kNobody;
    if constexpr (Env::mutant(Mutant::arbiter_plain_win)) {
      if (winner() != kNobody) return false;
      winner_.store(index, std::memory_order_release);
      return true;
    }
    if constexpr (Env::mutant(Mutant::arbiter_relaxed_win)) {
      return winner_.compare_exchange_strong(expected, index, std::memory_order_relaxed,
                                             std::memory_order_relaxed);
    }
    if (winner_.compare_exchange_strong(expected, index, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) [[likely]] {
      return true;
    }
    if (Env::mutant(Mutant::arbiter_win_while_held) && expected >= kHeldAmongOthers) {
      winner_.store(index, std::memory_order_release);
      return true;
    }
    return expected >= kHeldAmongOthers && win_after_holder(index);
  }
  std::uint32_t winner() const noexcept {
    const std::uint32_t winner = winner_.load(std::memory_order_acquire);
    return winner >= kHeldAmongOthers ? kNobody : winner;
  }

  // A step that completes several operations or none holds the verdicts of their races meanwhile:
  // nobody else wins them, whoever tries waits. One verdict alone may be held at any time. Who
  // holds several holds the one lock for that, too (Pact), so that two of them never wait for each
  // other; and nobody waits for anything else while he holds one.
  enum class Hold : std::uint8_t { held, decided, mine };

  Hold hold() noexcept { return hold_as(kHeldAlone); }
  /// `mine`: the holder of the pact's lock has it already.
  Hold hold_among_others() noexcept { return hold_as(kHeldAmongOthers); }
  /// Ends a hold. Release: pairs with the next one's compare-and-swap.
  void let_go() noexcept { winner_.store(kNobody, std::memory_order_release); }
  void decide(std::uint32_t index) noexcept { winner_.store(index, std::memory_order_release); }

 private:
  static constexpr std::uint32_t kHeldAlone = 0xfffffffe;
  static constexpr std::uint32_t kHeldAmongOthers = 0xfffffffd;

  MAGPIE_COLD bool win_after_holder(std::uint32_t index) noexcept {
    Backoff<Env> backoff;
    std::uint32_t expected = kNobody;
    while (!winner_.compare_exchange_strong(expected, index, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      if (expected < kHeldAmongOthers) return false;
      backoff.wait();
      expected = kNobody;
    }
    return true;
  }

  Hold hold_as(std::uint32_t mark) noexcept {
    Backoff<Env> backoff;
    std::uint32_t expected = kNobody;
    while (!winner_.compare_exchange_strong(expected, mark, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      if (expected < kHeldAmongOthers) return Hold::decided;
      if (expected == mark && mark == kHeldAmongOthers) return Hold::mine;
      backoff.wait();
      expected = kNobody;
    }
    return Hold::held;
  }

  typename Env::template Atomic<std::uint32_t> winner_{kNobody};
};
using Arbiter = BasicArbiter<StdEnv>;

}  // namespace magpie::detail
