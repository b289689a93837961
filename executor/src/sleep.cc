// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <mutex>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/timers.h>
#include <magpie/sleep.h>
#include <magpie/this_task.h>

namespace magpie::detail {

void go_round(OperationBase& operation) noexcept {
  operation.executor->schedule_behind(operation);
}

bool YieldOperation::start() noexcept {
  if (refused()) return false;
  state.set(WaitPhase::done_at_once);
  go_round(*this);
  return true;
}

bool SleepOperation::start() noexcept {
  if (refused()) return false;
  Timers& timers = ExecutorAccess::timers(*executor);
  const std::int64_t now = timers.now_ns();
  const std::int64_t deadline =
      relative_ ? to_ns(deadline_after(from_ns(now), std::chrono::nanoseconds(ns_))) : ns_;
  if (deadline <= now) {
    if (!complete_at_once()) return false;
    yielded_ = true;
    go_round(*this);
    return true;
  }
  deadline_ns = deadline;
  claim = [](Timer* timer) noexcept {
    auto* const self = static_cast<SleepOperation*>(timer);
    bool wake_anyway = false;
    return self->try_complete(&wake_anyway) || wake_anyway;
  };
  fire = [](Timer* timer) noexcept {
    auto* const self = static_cast<SleepOperation*>(timer);
    self->executor->schedule(*self);
  };
  TimerShard& here = timers.shard_here();
  shard = &here;  // once parked, a cancellation may send somebody to unqueue()
  {
    std::lock_guard guard(here.lock);
    if (!park()) return false;
    Timers::arm(here, *this);
  }
  // Only the timers are touched from here on: the sleep may be over. They live as long as the
  // executor runs this task's thread.
  timers.armed(deadline);
  return true;
}

void SleepOperation::unqueue() noexcept {
  std::lock_guard guard(shard->lock);
  Timers::disarm(*shard, *this);
}

std::optional<Deadline> earliest_deadline(const Scope& scope) noexcept {
  std::int64_t earliest = kNeverNs;
  for (const Scope* s = &scope; s != nullptr; s = s->parent()) {
    if (s->baggage() == ScopeBaggage::deadline) {
      // Relaxed: a deadline that is being rescheduled is either the old or the new one.
      const auto* const d = static_cast<const DeadlineScope*>(s);
      earliest = std::min(earliest, d->due_ns.load(std::memory_order_relaxed));
    }
    if (s->kind() == ScopeKind::masked) break;
  }
  if (earliest == kNeverNs) return std::nullopt;
  return from_ns(earliest);
}

}  // namespace magpie::detail
