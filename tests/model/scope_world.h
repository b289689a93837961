// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <magpie/detail/scope.h>
#include <magpie/detail/spin_lock.h>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "sim.h"
#include "strand.h"

// Tasks, nests of scopes and coroutines that wait in them, for scope_model_test.cc,
// scope_annex_model_test.cc and scope_group_model_test.cc.

namespace magpie::model {

using detail::BasicCancelEffects;
using detail::BasicScope;
using detail::BasicTaskCore;
using detail::ReasonRef;
using detail::ScopeKind;
using detail::SpinLock;
using detail::WaitPhase;

constexpr auto relaxed = std::memory_order_relaxed;

// Every step holds a lock: exhaustive without store buffers, and random schedules with them.
inline Options locked(unsigned preemptions) {
  return {.preemptions = preemptions, .store_buffers = false};
}

template <class Run>
void expect_clean_in_random_schedules(Run run, std::uint64_t executions = 20'000) {
  for (const Strategy strategy : {Strategy::random, Strategy::pct}) {
    const Report report =
        run({.strategy = strategy, .executions = executions, .pct_depth = 4, .pct_length = 150});
    EXPECT_TRUE(report.passed()) << report;
  }
}

// A task that outlives the model, with its root.
template <class Env>
struct Task {
  Task() { root.enter_root(nullptr, &core); }
  std::uint32_t counted() { return core.cancels.load(relaxed); }

  BasicTaskCore<Env> core;
  BasicScope<Env> root;
};

// Scopes one below the other, each in a frame of its own.
template <class Env>
class Nest {
 public:
  Nest(BasicScope<Env>& top, BasicTaskCore<Env>& task) : top_(top), task_(task) {}

  BasicScope<Env>& innermost() { return entered_ == 0 ? top_ : *frames_[entered_ - 1]; }
  void enter(ScopeKind kind = ScopeKind::plain) {
    BasicScope<Env>& parent = innermost();
    frames_[entered_++].make().enter(&parent, &task_, kind);
    if (deepest_ < entered_) deepest_ = entered_;
  }
  void enter(std::size_t levels) {
    for (std::size_t i = 0; i < levels; ++i) enter();
  }
  BasicCancelEffects<Env> leave() {
    const BasicCancelEffects<Env> effects = frames_[--entered_]->exit();
    frames_[entered_].destroy();
    return effects;
  }
  void leave(std::size_t levels) {
    for (std::size_t i = 0; i < levels; ++i) leave();
  }
  void check() const {
    for (std::size_t i = 0; i < deepest_; ++i) {
      Sim::current().check(frames_[i].gone_and_untouched(),
                           "a scope was touched after it had been left");
    }
  }

 private:
  BasicScope<Env>& top_;
  BasicTaskCore<Env>& task_;
  std::size_t entered_ = 0;
  std::size_t deepest_ = 0;
  std::array<Frame<BasicScope<Env>>, 3> frames_;
};

enum class Outcome { refused, completed, cancelled };

// A coroutine that waits once, for something that complete() brings. Its waiter lies in a frame of
// its own, gone when the wait has ended.
template <class Env>
class Waiting {
 public:
  // True: parked.
  bool park(BasicScope<Env>& scope) {
    std::lock_guard hold(lock_);
    StrandWaiter<Env>& waiter = frame_.make(strand_);
    scope_ = &scope;
    waiter.state.set(WaitPhase::waiting);
    queued_ = scope.park(waiter);
    if (!queued_) frame_.destroy();
    return queued_;
  }
  Outcome await(BasicScope<Env>& scope) { return park(scope) ? resumed() : Outcome::refused; }
  Outcome resumed() {
    strand_.resumed();
    const bool completed = frame_->state.phase() == WaitPhase::done;
    if (completed) {
      scope_->unpark(*frame_);
    } else {
      std::lock_guard hold(lock_);
      queued_ = false;
    }
    frame_.destroy();
    return completed ? Outcome::completed : Outcome::cancelled;
  }
  void complete() {
    {
      std::lock_guard hold(lock_);
      if (!queued_ || !frame_->state.try_complete()) return;
      queued_ = false;
    }
    strand_.schedule();
  }

 private:
  // The primitive.
  SpinLock<Env> lock_;
  bool queued_ = false;

  Strand<Env> strand_;
  Frame<StrandWaiter<Env>> frame_;
  BasicScope<Env>* scope_ = nullptr;
};

}  // namespace magpie::model
