// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Steps that complete several operations together or not at all, although each may be a contestant
// of a race of its own: a sender and a receiver that meet in a channel without a buffer, the
// parties of a barrier.
//
// Winning a race cannot be undone, so nobody may win before it is known that all can. Whoever makes
// the step holds the verdicts of their races meanwhile (BasicArbiter::hold); others who want one
// wait for these few instructions. Holding several takes one lock for all such steps of the
// process, which is for races that meet each other only: without races, nothing of this happens.
// The page: combinators/DESIGN.md, "Pacts".

#include <cstdint>
#include <mutex>

#include <magpie/config.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// An operation as far as its completion goes.
template <class Env>
struct Contestant {
  BasicWaitState<Env>& state;
  BasicArbiter<Env>* arbiter;  // null: in no race
  std::uint32_t index;
};

enum class Met : std::uint8_t {
  both,      // both have completed
  not_he,    // the parked one cannot: cancelled, of a race that is decided, or of the same race
  too_late,  // the active one has lost its race
};

/// Completes an operation that is just starting, and one that is parked. Under the primitive's
/// lock; the parked one was in its queue.
template <class Env>
Met meet(SpinLock<Env>& pact, const Contestant<Env>& active,
         const Contestant<Env>& parked) noexcept {
  using Hold = typename BasicArbiter<Env>::Hold;
  BasicArbiter<Env>* const mine = active.arbiter;
  BasicArbiter<Env>* const his = parked.arbiter;
  if (mine != nullptr && mine == his) return Met::not_he;  // one race has one winner
  const bool several = mine != nullptr && his != nullptr;
  std::unique_lock guard(pact, std::defer_lock);
  if (several && !Env::mutant(Mutant::pact_no_lock)) guard.lock();
  const auto hold = [several](BasicArbiter<Env>& arbiter) noexcept {
    return several ? arbiter.hold_among_others() : arbiter.hold();
  };
  if (mine != nullptr && hold(*mine) != Hold::held) return Met::too_late;
  if (his != nullptr && hold(*his) != Hold::held) {
    if (mine != nullptr) mine->let_go();
    return Met::not_he;
  }
  if (Env::mutant(Mutant::pact_win_first) && mine != nullptr) {
    mine->decide(active.index);
    const bool completed = parked.state.try_complete();
    if (his != nullptr) completed ? his->decide(parked.index) : his->let_go();
    if (!completed) return Met::not_he;
    active.state.set(WaitPhase::done_at_once);
    return Met::both;
  }
  const bool met = parked.state.try_complete();
  if (his != nullptr) met ? his->decide(parked.index) : his->let_go();
  if (mine != nullptr) met ? mine->decide(active.index) : mine->let_go();
  if (!met) return Met::not_he;
  active.state.set(WaitPhase::done_at_once);
  return Met::both;
}

/// The one lock of whoever holds more than one verdict.
MAGPIE_EXPORT SpinLock<StdEnv>& pact_lock() noexcept;

inline Contestant<StdEnv> contestant(OperationBase& op) noexcept {
  return {op.state, op.arbiter(), op.contestant()};
}

}  // namespace magpie::detail
