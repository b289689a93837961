// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <mutex>

#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/timers.h>
#include <magpie/timeout.h>

namespace magpie::detail {

bool DeadlineTimer::open(Scope& outer, std::int64_t ns, bool relative) noexcept {
  if (ns == kNeverNs) {
    open_without_deadline(outer);
    return true;
  }
  home_ = current_executor();
  Timers& timers = ExecutorAccess::timers(*home_);
  const std::int64_t now = timers.now_ns();
  const std::int64_t due =
      relative ? to_ns(deadline_after(from_ns(now), std::chrono::nanoseconds(ns))) : ns;
  if (due <= now) return false;
  enter(&outer, outer.task(), ScopeKind::plain, ScopeBaggage::deadline);
  due_ns.store(due, std::memory_order_relaxed);
  shard = &timers.shard_here();
  if (due != kNeverNs) {
    {
      std::lock_guard guard(shard->lock);
      arm(due);
    }
    timers.armed(due);
  }
  return true;
}

void DeadlineTimer::open_without_deadline(Scope& outer) noexcept {
  home_ = current_executor();
  enter(&outer, outer.task(), ScopeKind::plain, ScopeBaggage::deadline);
  due_ns.store(kNeverNs, std::memory_order_relaxed);
  shard = &ExecutorAccess::timers(*home_).shard_here();
}

void DeadlineTimer::bind() noexcept {
  claim = [](Timer* timer) noexcept {
    auto* const self = static_cast<DeadlineTimer*>(timer);
    if (!self->word_.begin_fire()) return false;
    self->expired_.store(true, std::memory_order_release);  // pairs with expired()
    return true;
  };
  fire = [](Timer* timer) noexcept {
    auto* const self = static_cast<DeadlineTimer*>(timer);
    cancel_scope_now(*self, ReasonRef::of_kind(CancelKind::timeout));
    self->word_.end_fire();  // the last touch
  };
}

// Under the shard's lock.
void DeadlineTimer::arm(std::int64_t ns) noexcept {
  bind();
  deadline_ns = ns;
  Timers::arm(*shard, *this);
}

void DeadlineTimer::close() noexcept {
  if (Timer::fire != nullptr) {
    {
      std::lock_guard guard(shard->lock);
      Timers::disarm(*shard, *this);
    }
    word_.disarm();
  }
  leave_scope(*this);
}

bool DeadlineTimer::reschedule(std::int64_t ns) noexcept {
  // Once it is armed it may fire, and end the block, this with it, and the executor's last task:
  // what is needed then is here, and an executor that is not this thread's own is held.
  Executor& home = *home_;
  Timers& timers = ExecutorAccess::timers(home);
  const bool visits = &home != current_executor();
  bool passed = false;
  bool due = false;
  {
    std::lock_guard guard(shard->lock);
    if (expired_.load(std::memory_order_relaxed)) return false;
    if (Timer::fire != nullptr) Timers::disarm(*shard, *this);
    due_ns.store(ns, std::memory_order_relaxed);
    if (ns == kNeverNs) return true;
    passed = ns <= timers.now_ns();
    if (passed) {
      bind();
      due = claim(this);
    } else {
      if (visits) ExecutorAccess::enter(home);
      arm(ns);
    }
  }
  // A deadline that has passed needs no clock to move, which may stand still: it fires here.
  if (passed) {
    if (due) fire(this);
    return true;
  }
  timers.armed(ns);
  if (visits) ExecutorAccess::leave(home);
  return true;
}

void throw_timed_out() {
  throw TimeoutError("the deadline passed before the task had ended");
}

std::exception_ptr make_timed_out() noexcept {
  return make_error<TimeoutError>("the deadline passed before the task had ended");
}

}  // namespace magpie::detail
