// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/resume_on.h>

namespace magpie::detail {

// A strand that is not on its task's own executor counts as live work of the one that it visits. It is counted where it goes
// before it leaves, and is not touched once it is scheduled.

bool ResumeOn::start() {
  if (refused()) return false;
  Executor& from = *home;
  Executor& own = *TaskRecord::of(*scope()).executor();
  if (target_ == &from) {
    state.set(WaitPhase::done_at_once);
    return false;
  }
  if (target_ != &own) ExecutorAccess::admit_post(*target_);  // throws ExecutorShutdownError: the strand stays
  state.set(WaitPhase::done_at_once);
  Executor* const target = target_;
  const bool back = back_ == Return::yes;
  home = target;
  if (&from == &own) {
    note_strand_moves(own, &from, target);  // virtual time stands still before it leaves
    target->schedule(*this);
  } else {
    ExecutorAccess::enter(own);  // the task may end as soon as it is scheduled
    target->schedule(*this);
    note_strand_moves(own, &from, target);
    if (!back) ExecutorAccess::retire_post(from);
    ExecutorAccess::leave(own);
  }
  return true;
}

bool GoHome::start() noexcept {
  Executor& from = *home;
  Executor* const target = target_;
  Executor& own = *TaskRecord::of(*scope()).executor();
  state.set(WaitPhase::done_at_once);
  if (target == &from) {
    // It came back by a way of its own, on which it was counted: the place that was kept for it is free.
    if (left_ && &from != &own) ExecutorAccess::retire_post(from);
    return false;
  }
  home = target;
  if (&from == &own) {
    note_strand_moves(own, &from, target);
    target->schedule(*this);
  } else {
    ExecutorAccess::enter(own);  // as above
    target->schedule(*this);
    note_strand_moves(own, &from, target);
    ExecutorAccess::retire_post(from);
    ExecutorAccess::leave(own);
  }
  return true;
}

}  // namespace magpie::detail
