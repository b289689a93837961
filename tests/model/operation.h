// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/operation.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/waiter_state.h>

#include <concepts>

#include "sim.h"
#include "strand.h"

// Operations of the models' own for the cores of the primitives, as detail/operation.h and
// detail/wake_list.h have them: they wait in a scope, may be contestants of a race, and go on as
// strands.

namespace magpie::model {

template <class Env>
struct Wait : StrandWaiter<Env> {
  Wait(Strand<Env>& its_strand, detail::BasicScope<Env>& its_scope,
       detail::BasicArbiter<Env>* its_race)
      : StrandWaiter<Env>(its_strand), scope(its_scope), race(its_race) {}

  bool won() { return race == nullptr || race->win(0); }
  bool refused() {
    if (!scope.cancelled()) return false;
    this->state.set(detail::WaitPhase::cancelled_at_once);
    return true;
  }

  detail::BasicScope<Env>& scope;
  detail::BasicArbiter<Env>* race;  // its rival is contestant 1
};

template <class Env>
class ModelWakeList {
 public:
  bool claim_front(detail::BasicWaitQueue<Env>& queue) {
    auto& wait = static_cast<Wait<Env>&>(*queue.front());
    queue.remove(wait);
    if (!wait.state.try_complete()) return false;
    add(wait);
    if (wait.won()) return true;
    wait.state.set(detail::WaitPhase::lost);
    return false;
  }
  void add(detail::BasicWaiter<Env>& waiter) {
    waiter.queue_next = nullptr;
    *tail_ = &waiter;
    tail_ = &waiter.queue_next;
  }
  void wake_all() {
    while (first_ != nullptr) {
      detail::BasicWaiter<Env>* const next = first_->queue_next;
      schedule(*first_);
      first_ = next;
    }
  }

 private:
  detail::BasicWaiter<Env>* first_ = nullptr;
  detail::BasicWaiter<Env>** tail_ = &first_;
};

// What the traits of all cores have.
template <class Environment>
struct WaitTraits {
  using Env = Environment;
  using Waiter = detail::BasicWaiter<Env>;
  using WakeList = ModelWakeList<Env>;

  static bool park(Wait<Env>& wait) {
    wait.state.set(detail::WaitPhase::waiting);
    if (wait.scope.park(wait)) return true;
    wait.state.set(detail::WaitPhase::cancelled_at_once);
    return false;
  }
  static bool complete_at_once(Wait<Env>& wait) {
    const bool won = wait.won();
    wait.state.set(won ? detail::WaitPhase::done_at_once : detail::WaitPhase::cancelled_at_once);
    return won;
  }
};

// On the resumed strand: true if the operation has completed. leave() takes a cancelled one out of
// its queue; it may say that it has completed all the same.
template <class Env, class Leave>
bool finish_wait(Wait<Env>& wait, Leave leave) {
  using detail::WaitPhase;
  switch (wait.state.phase()) {
    case WaitPhase::done_at_once:
      return true;
    case WaitPhase::done:
    case WaitPhase::lost:
      wait.scope.unpark(wait);
      return wait.state.phase() == WaitPhase::done;
    case WaitPhase::cancelled:
      if constexpr (std::same_as<decltype(leave()), bool>) {
        return leave();
      } else {
        leave();
        return false;
      }
    case WaitPhase::cancelled_at_once:
      return false;
    default:
      Sim::current().fail("an operation ended without an outcome");
      return false;
  }
}

// Every step holds a lock: exhaustive without store buffers, and random schedules with them.
inline Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

}  // namespace magpie::model
