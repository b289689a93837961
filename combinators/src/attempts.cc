// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <chrono>
#include <mutex>
#include <new>
#include <stdexcept>

#include <magpie/detail/attempts.h>
#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/timers.h>
#include <magpie/errors.h>
#include <magpie/gather.h>

namespace magpie::detail {
namespace {

// Units are counted in 32 bits, and a sum of all of them must fit.
constexpr std::size_t kMostAttempts = 0x7fffffff;

}  // namespace

const JoinKind AttemptsJoin::kKind{&AttemptsJoin::skipped, nullptr};

AttemptsJoin::~AttemptsJoin() {
  destroy_scope();
}

void AttemptsJoin::throw_no_attempts() {
  throw std::invalid_argument(
      "hedge() with max_attempts(0) would never try: max_attempts counts the first one, too");
}

void AttemptsJoin::throw_nobody_won(std::vector<std::exception_ptr> errors,
                                    const ReasonRef& childs) {
  if (out_of_memory_) errors.push_back(std::make_exception_ptr(std::bad_alloc()));
  if (!errors.empty()) throw ExceptionGroup("none of the attempts succeeded", std::move(errors));
  throw_join_cancelled(scope, childs, ReasonRef::of_kind(CancelKind::lost_race));
}

std::coroutine_handle<> AttemptsJoin::start(std::coroutine_handle<> awaiting, Scope& outer,
                                            std::size_t most, Attempt& first) noexcept {
  scope.enter(&outer, outer.task());
  kind = &kKind;
  parent = awaiting;
  home = current_executor();
  start_counting(static_cast<std::uint32_t>(std::min(most, kMostAttempts)));
  most_ = units;
  reserve_ = units - 1;
  first_ = latest_ = &first;
  set_up(first, 0);
  return start_calls(&first);
}

void AttemptsJoin::set_up(Attempt& attempt, std::uint32_t index) noexcept {
  attempt.join = this;
  attempt.coroutine = 0;
  attempt.carry = 0;
  attempt.index = index;
  attempt.begin = begin_attempt;
  attempt.ended = attempt_ended;
  attempt.waits_at = home;
}

void AttemptsJoin::conclude() noexcept {
  for (Attempt* attempt = first_; attempt != nullptr; attempt = attempt->after) {
    if (attempt->shard == nullptr) continue;
    {
      std::lock_guard guard(attempt->shard->lock);
      Timers::disarm(*attempt->shard, *attempt);
    }
    attempt->word.disarm();
  }
  leave_scope(scope);
}

// --- one attempt ---------------------------------------------------------------------------------

std::coroutine_handle<> AttemptsJoin::begin_attempt(CallRec* rec) noexcept {
  auto& attempt = *static_cast<Attempt*>(rec);
  auto* const self = static_cast<AttemptsJoin*>(attempt.join);
  // The delay counts from here, but its timer is set when the call is over: so no two calls
  // overlap.
  const bool delays =
      self->delay_ns_ != 0 && self->delay_ns_ != kNeverNs && attempt.index + 1 < self->most_;
  const std::int64_t began = delays ? ExecutorAccess::timers(*self->home).now_ns() : 0;
  std::coroutine_handle<> frame;
  SlotState failure = SlotState::empty;
  try {
    frame = self->call(attempt);
  } catch (...) {
    failure = self->capture(attempt);
  }
  bool another = false;
  bool wait = false;
  {
    std::lock_guard guard(self->lock_);
    self->starting_ = false;
    if (frame && !self->closed_ && self->next_ < self->most_) {
      another = self->owed_ > 0 || self->delay_ns_ == 0;
      wait = !another && delays;
      if (another) {
        if (self->owed_ > 0) --self->owed_;
        self->take_next();
      }
    }
  }
  if (another) attempt.carry += self->launch();
  if (wait)
    self->arm(attempt,
              to_ns(deadline_after(from_ns(began), std::chrono::nanoseconds(self->delay_ns_))));
  if (!frame) self->settle(attempt, failure);
  return frame;
}

std::coroutine_handle<> AttemptsJoin::attempt_ended(EndSink* sink, SlotState outcome) noexcept {
  auto& attempt = *static_cast<Attempt*>(sink);
  auto* const self = static_cast<AttemptsJoin*>(attempt.join);
  self->settle(attempt, outcome);
  return deliver_to(self, attempt.carry + 1);
}

void AttemptsJoin::skipped(Join* join, Rec* rec, SlotState outcome) noexcept {
  static_cast<AttemptsJoin*>(join)->settle(*static_cast<Attempt*>(rec), outcome);
}

// The attempt's unit has not been handed in: the join lives.
void AttemptsJoin::settle(Attempt& attempt, SlotState outcome) noexcept {
  if (outcome == SlotState::value) {
    {
      std::lock_guard guard(lock_);
      if (winner_ != nullptr) return;
      winner_ = &attempt;
      attempt.carry += close();
    }
    cancel_scope_now(scope, ReasonRef::of_kind(CancelKind::lost_race));
    return;
  }
  // `empty`: it was never started, or its frame was destroyed by force.
  const bool over = outcome == SlotState::empty || scope.cancelled();
  {
    std::lock_guard guard(lock_);
    if (over) {
      attempt.carry += close();
      return;
    }
    if (closed_ || next_ == most_) return;
    if (starting_) {
      ++owed_;
      return;
    }
    take_next();
  }
  attempt.carry += launch();
}

// --- starting the next one -----------------------------------------------------------------------

// Under lock_: the caller bears a unit of the reserve, for the next attempt.
void AttemptsJoin::take_next() noexcept {
  starting_ = true;
  ++next_;
  --reserve_;
}

// Under lock_: the reserve goes to the caller.
std::uint32_t AttemptsJoin::close() noexcept {
  closed_ = true;
  return std::exchange(reserve_, 0);
}

// By the one who has taken it. Returns the units that are left over if there is no memory for an
// attempt; else the attempt has its unit.
std::uint32_t AttemptsJoin::launch() noexcept {
  Attempt* attempt;
  try {
    attempt = new_attempt();
  } catch (...) {
    std::lock_guard guard(lock_);
    starting_ = false;
    out_of_memory_ = true;
    return close() + 1;
  }
  set_up(*attempt, latest_->index + 1);
  latest_->after = attempt;
  latest_ = attempt;
  hand_fork_to_executor(*attempt);
  return 0;
}

void AttemptsJoin::arm(Attempt& attempt, std::int64_t due_ns) noexcept {
  if (due_ns == kNeverNs) return;
  Timers& timers = ExecutorAccess::timers(*home);
  attempt.claim = [](Timer* timer) noexcept {
    return static_cast<Attempt*>(timer)->word.begin_fire();
  };
  attempt.fire = [](Timer* timer) noexcept {
    auto& self = *static_cast<Attempt*>(timer);
    auto* const attempts = static_cast<AttemptsJoin*>(self.join);
    if (attempts->time_is_up(self)) {
      Runnable& node = self.as_node();  // which has been run: it takes the message home
      node.how = &kStartTheNext;
      attempts->home->schedule(node);
    }
    self.word.end_fire();  // the last touch: until then conclude() waits
  };
  attempt.deadline_ns = due_ns;
  attempt.shard = &timers.shard_here();
  {
    std::lock_guard guard(attempt.shard->lock);
    Timers::arm(*attempt.shard, attempt);
  }
  timers.armed(due_ns);
}

// Unless a failure has started another one since.
bool AttemptsJoin::time_is_up(const Attempt& attempt) noexcept {
  std::lock_guard guard(lock_);
  if (closed_ || starting_ || next_ == most_ || next_ != attempt.index + 1) return false;
  take_next();
  return true;
}

// At home, bearing the next attempt's unit.
void AttemptsJoin::start_the_next(Runnable* node) noexcept {
  auto* const self = static_cast<AttemptsJoin*>(static_cast<Attempt*>(node)->join);
  install_locals(self->scope);
  const std::uint32_t left_over = self->launch();
  if (left_over != 0) resume_here(deliver_to(self, left_over));
}

}  // namespace magpie::detail
