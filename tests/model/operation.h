// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/operation.h>
#include <magpie/detail/pact.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/waiter_state.h>

#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "expect.h"
#include "sim.h"
#include "strand.h"

#include <support/soak.h>

// Operations of the models' own for the cores of the primitives, as detail/operation.h and
// detail/wake_list.h have them: they wait in a scope, may be contestants of a race, and go on as
// strands.

namespace magpie::model {

template <class Env>
struct Wait : StrandWaiter<Env> {
  Wait(Strand<Env>& its_strand, detail::BasicScope<Env>& its_scope,
       detail::BasicArbiter<Env>* its_race)
      : StrandWaiter<Env>(its_strand), scope(its_scope), race(its_race) {}

  bool won() { return race == nullptr || race->win(index); }
  bool refused() {
    if (!scope.cancelled()) return false;
    this->state.set(detail::WaitPhase::cancelled_at_once);
    return true;
  }

  detail::BasicScope<Env>& scope;
  detail::BasicArbiter<Env>* race;
  std::uint32_t index = 0;  // its rival is contestant 1
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
  detail::BasicWaiter<Env>* pop_front() {
    detail::BasicWaiter<Env>* const waiter = first_;
    if (waiter == nullptr) return nullptr;
    first_ = waiter->queue_next;
    if (first_ == nullptr) tail_ = &first_;
    return waiter;
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
  using Operation = Wait<Env>;
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

// An operation, and where it waits and competes. The scope is left when all is over, so that others
// may cancel it at any time.
template <class Env, class Op>
struct Actor {
  detail::BasicScope<Env> scope;
  detail::BasicArbiter<Env> race;
  Strand<Env> strand;
  Frame<Op> op;

  void cancel() { cancel_now(scope); }
  // Its rival wins their race, if it can.
  void lose() {
    if (race.win(1)) cancel_now(scope);
  }
};

// Where the operations of a model play.
template <class Env, class Op, std::size_t kActors = 3>
class Stage {
 public:
  Stage() { root_.enter_root(nullptr, &task_); }

  // The operation is made with its strand and its scope, and what else it wants.
  template <class... Args>
  Actor<Env, Op>& enter(std::size_t i, Args&&... args) {
    Actor<Env, Op>& actor = actors_[i];
    actor.scope.enter(&root_, &task_);
    actor.op.make(actor.strand, actor.scope, std::forward<Args>(args)...);
    played_[i] = true;
    return actor;
  }
  bool has(std::size_t i) const { return played_[i]; }
  static constexpr std::size_t size() { return kActors; }
  Actor<Env, Op>& operator[](std::size_t i) { return actors_[i]; }
  const Actor<Env, Op>& operator[](std::size_t i) const { return actors_[i]; }

  // When all have ended.
  void check_end() {
    for (std::size_t i = 0; i < kActors; ++i) {
      if (!played_[i]) continue;
      actors_[i].scope.exit();
      Sim::current().check(actors_[i].op.gone_and_untouched(),
                           "an operation was touched after its end");
    }
    Sim::current().check(task_.cancels.load(std::memory_order_relaxed) == 0,
                         "a cancellation is counted for ever");
  }

 private:
  detail::BasicTaskCore<Env> task_;
  detail::BasicScope<Env> root_;
  std::array<Actor<Env, Op>, kActors> actors_;
  std::array<bool, kActors> played_{};
};

// Every step holds a lock: exhaustive without store buffers, and random schedules with them.
inline Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

// Operations of several stages or threads, where the second preemption takes minutes: two in a
// soak.
inline Options locked_for_long() {
  if (test::soak_time(std::chrono::milliseconds(0)).count() == 0) return locked(1);
  Options options = locked(2);
  options.executions = 2'000'000'000;
  return options;
}

// Of `operations` each pair that there is, in every schedule within the bound.
template <class Operations, class Run>
void expect_clean_pairs(const Operations& operations, Run run) {
  std::uint64_t executions = 0;
  for (auto a = std::begin(operations); a != std::end(operations); ++a) {
    for (auto b = a; b != std::end(operations); ++b) {
      const Report report = run(*a, *b);
      EXPECT_TRUE(report.passed() && report.exhausted) << report;
      executions += report.executions;
    }
  }
  std::printf("%llu executions\n", static_cast<unsigned long long>(executions));
}

// Random schedules with store buffers, evenly and with few preemptions (PCT).
template <class Run>
void expect_clean_in_random_schedules(Run run, std::uint64_t executions = 3'000) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report = run(
        Options{.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 200});
    EXPECT_TRUE(report.passed()) << report;
  }
}

}  // namespace magpie::model
