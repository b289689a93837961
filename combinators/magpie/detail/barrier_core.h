// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A barrier's state and steps, over what its users are made of: the library's operations, or the
// models' (tests/model/gates_model_test.cc).
//
// `Traits` as OperationTraits (detail/operation.h), and
//   Party, party(waiter)          the operation, which has a BarrierPart named `part`
//   contestant(party)             its state and its race
//   pact_lock()
//
// Three steps under the lock: look whether there are enough; choose them, holding the verdicts of
// their races; complete all. The page: combinators/DESIGN.md, "Pacts".

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>

#include <magpie/detail/pact.h>
#include <magpie/detail/spin_lock.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

/// What a party knows of its phase.
struct BarrierPart {
  bool last = false;
  // Under the barrier's lock.
  bool chosen = false;  // a phase is about to be completed with it
  bool passed = false;  // a phase was, although a cancellation claimed it in that moment
};

template <class Traits>
class BarrierCore {
  using Env = typename Traits::Env;
  using Node = typename Traits::Waiter;
  using Party = typename Traits::Party;
  using WakeList = typename Traits::WakeList;
  using Hold = typename BasicArbiter<Env>::Hold;

 public:
  explicit BarrierCore(std::size_t parties) noexcept : parties_(parties) {}

  /// True: parked, and not to be touched any more.
  bool start(Party& op) noexcept;
  /// A cancelled operation leaves the queue. True: a phase has been completed with it.
  bool leave(Party& op) noexcept;

 private:
  enum class Phase : std::uint8_t { open, complete, too_late };

  Phase arrive(Party& last, WakeList& woken) noexcept;
  Phase choose(Party& last) noexcept;
  void complete(Party& last, WakeList& woken) noexcept;
  void let_go_of_all(Party& last) noexcept;

  static BasicArbiter<Env>* race_of(Party& party) noexcept {
    return Traits::contestant(party).arbiter;
  }

  SpinLock<Env> lock_;
  const std::size_t parties_;
  std::size_t waiting_ = 0;  // how many are in the queue
  BasicWaitQueue<Env> waiters_;
};

template <class Traits>
auto BarrierCore<Traits>::arrive(Party& last, WakeList& woken) noexcept -> Phase {
  if (waiting_ + 1 < parties_) return Phase::open;
  // Who is claimed by a cancellation already has left the count, although he is still in the queue.
  std::size_t there = 1;
  bool races = race_of(last) != nullptr;
  for (Node* w = waiters_.front(); w != nullptr; w = w->queue_next) {
    Party& party = Traits::party(*w);
    if (party.state.phase() != WaitPhase::waiting) continue;
    races = races || race_of(party) != nullptr;
    ++there;
  }
  if (there < parties_) return Phase::open;
  std::unique_lock pact(Traits::pact_lock(), std::defer_lock);
  if (races && !Env::mutant(Mutant::barrier_no_pact)) pact.lock();
  const Phase phase = choose(last);
  if (phase == Phase::complete) complete(last, woken);
  return phase;
}

template <class Traits>
auto BarrierCore<Traits>::choose(Party& last) noexcept -> Phase {
  if (race_of(last) != nullptr && race_of(last)->hold_among_others() != Hold::held)
    return Phase::too_late;
  std::size_t there = 1;
  for (Node* w = waiters_.front(); w != nullptr && there < parties_; w = w->queue_next) {
    Party& candidate = Traits::party(*w);
    if (candidate.state.phase() != WaitPhase::waiting) continue;
    // Another contestant of a race that is chosen already, or one whose race is decided, is no
    // party.
    if (race_of(candidate) != nullptr && race_of(candidate)->hold_among_others() != Hold::held)
      continue;
    candidate.part.chosen = true;
    ++there;
  }
  if (there == parties_) return Phase::complete;
  if (!Env::mutant(Mutant::barrier_keeps_verdicts)) let_go_of_all(last);
  return Phase::open;
}

template <class Traits>
void BarrierCore<Traits>::let_go_of_all(Party& last) noexcept {
  for (Node* w = waiters_.front(); w != nullptr; w = w->queue_next) {
    Party& candidate = Traits::party(*w);
    if (!std::exchange(candidate.part.chosen, false)) continue;
    if (race_of(candidate) != nullptr) race_of(candidate)->let_go();
  }
  if (race_of(last) != nullptr) race_of(last)->let_go();
}

// Nothing can come between any more: a cancellation that claims one of them in this moment finds,
// when it wants to leave the queue under this lock, that it has passed.
template <class Traits>
void BarrierCore<Traits>::complete(Party& last, WakeList& woken) noexcept {
  Node* next = nullptr;
  for (Node* w = waiters_.front(); w != nullptr; w = next) {
    next = w->queue_next;
    Party& chosen = Traits::party(*w);
    if (!std::exchange(chosen.part.chosen, false)) continue;
    waiters_.remove(*w);
    --waiting_;
    const Contestant<Env> contestant = Traits::contestant(chosen);
    if (contestant.arbiter != nullptr) contestant.arbiter->decide(contestant.index);
    if (chosen.state.try_complete()) {
      woken.add(*w);
    } else {
      chosen.part.passed = true;
    }
  }
  const Contestant<Env> contestant = Traits::contestant(last);
  if (contestant.arbiter != nullptr) contestant.arbiter->decide(contestant.index);
  last.part.last = true;
  last.state.set(WaitPhase::done_at_once);
}

template <class Traits>
bool BarrierCore<Traits>::start(Party& op) noexcept {
  WakeList woken;
  bool parked = false;
  {
    std::lock_guard guard(lock_);
    switch (arrive(op, woken)) {
      case Phase::open:
        parked = Traits::park(op);
        if (parked) {
          waiters_.push_back(op);
          ++waiting_;
        }
        break;
      case Phase::complete:
        break;
      case Phase::too_late:
        op.state.set(WaitPhase::cancelled_at_once);
        break;
    }
  }
  woken.wake_all();
  return parked;
}

template <class Traits>
bool BarrierCore<Traits>::leave(Party& op) noexcept {
  std::unique_lock guard(lock_, std::defer_lock);
  if (!Env::mutant(Mutant::barrier_leave_unlocked)) guard.lock();
  if (op.queued) {
    waiters_.remove(op);
    --waiting_;
  }
  return op.part.passed && !Env::mutant(Mutant::barrier_forgets_passed);
}

}  // namespace magpie::detail
