// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>

#include <magpie/barrier.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/wake_list.h>

namespace magpie {

using detail::Arbiter;
using detail::BarrierWait;
using detail::OperationBase;
using detail::Waiter;
using detail::WaitPhase;

namespace {

BarrierWait& party(Waiter& waiter) noexcept {
  return static_cast<BarrierWait&>(static_cast<OperationBase&>(waiter));
}

}  // namespace

Barrier::Barrier(std::size_t parties) : parties_(parties) {
  if (parties == 0) throw std::invalid_argument("a Barrier needs at least one party");
  if (parties > PTRDIFF_MAX)
    throw std::invalid_argument("a Barrier can have up to PTRDIFF_MAX parties, not " +
                                std::to_string(parties));
}

// The rest is under the lock. Three steps: look whether there are enough; choose them, holding the
// verdicts of their races; complete.
Barrier::Phase Barrier::arrive(BarrierWait& last, detail::WakeList& woken) noexcept {
  if (waiting_ + 1 < parties_) return Phase::open;
  // Who is claimed by a cancellation already has left the count, although he is still in the queue.
  std::size_t there = 1;
  bool races = last.arbiter() != nullptr;
  for (Waiter* w = waiters_.front(); w != nullptr; w = w->queue_next) {
    if (w->state.phase() != WaitPhase::waiting) continue;
    races = races || party(*w).arbiter() != nullptr;
    ++there;
  }
  if (there < parties_) return Phase::open;
  std::unique_lock pact(detail::pact_lock(), std::defer_lock);
  if (races) pact.lock();
  const Phase phase = choose(last, races);
  if (phase == Phase::complete) complete(last, woken);
  return phase;
}

Barrier::Phase Barrier::choose(BarrierWait& last, bool races) noexcept {
  if (races && last.arbiter() != nullptr &&
      last.arbiter()->hold_among_others() != Arbiter::Hold::held)
    return Phase::too_late;
  std::size_t there = 1;
  for (Waiter* w = waiters_.front(); w != nullptr && there < parties_; w = w->queue_next) {
    BarrierWait& candidate = party(*w);
    if (candidate.state.phase() != WaitPhase::waiting) continue;
    // Another contestant of a race that is chosen already, or one whose race is decided, is no
    // party.
    if (races && candidate.arbiter() != nullptr &&
        candidate.arbiter()->hold_among_others() != Arbiter::Hold::held)
      continue;
    candidate.chosen_ = true;
    ++there;
  }
  if (there == parties_) return Phase::complete;
  for (Waiter* w = waiters_.front(); w != nullptr; w = w->queue_next) {
    BarrierWait& candidate = party(*w);
    if (!std::exchange(candidate.chosen_, false)) continue;
    if (candidate.arbiter() != nullptr) candidate.arbiter()->let_go();
  }
  if (last.arbiter() != nullptr) last.arbiter()->let_go();
  return Phase::open;
}

// Nothing can come between any more: a cancellation that claims one of them in this moment finds,
// when it wants to leave the queue under this lock, that it has passed.
void Barrier::complete(BarrierWait& last, detail::WakeList& woken) noexcept {
  Waiter* next = nullptr;
  for (Waiter* w = waiters_.front(); w != nullptr; w = next) {
    next = w->queue_next;
    BarrierWait& chosen = party(*w);
    if (!std::exchange(chosen.chosen_, false)) continue;
    waiters_.remove(*w);
    --waiting_;
    if (chosen.arbiter() != nullptr) chosen.arbiter()->decide(chosen.contestant());
    if (chosen.state.try_complete()) {
      woken.add(*w);
    } else {
      chosen.passed_ = true;
    }
  }
  if (last.arbiter() != nullptr) last.arbiter()->decide(last.contestant());
  last.last_ = true;
  last.state.set(WaitPhase::done_at_once);
}

namespace detail {

bool BarrierWait::start() noexcept {
  last_ = passed_ = false;  // of an await before this one
  if (refused()) return false;
  WakeList woken;
  bool parked = false;
  {
    std::lock_guard guard(barrier_->lock_);
    switch (barrier_->arrive(*this, woken)) {
      case Barrier::Phase::open:
        parked = park();
        if (parked) {
          barrier_->waiters_.push_back(*this);
          ++barrier_->waiting_;
        }
        break;
      case Barrier::Phase::complete:
        break;
      case Barrier::Phase::too_late:
        state.set(WaitPhase::cancelled_at_once);
        break;
    }
  }
  woken.wake_all();
  return parked;
}

bool BarrierWait::unqueue() noexcept {
  std::lock_guard guard(barrier_->lock_);
  if (queued) {
    barrier_->waiters_.remove(*this);
    --barrier_->waiting_;
  }
  return passed_;
}

SpinLock<StdEnv>& pact_lock() noexcept {
  static constinit SpinLock<StdEnv> lock;
  return lock;
}

}  // namespace detail
}  // namespace magpie
