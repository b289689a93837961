// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/resume_on.h>

namespace magpie::detail {
namespace {

// Where the parent of the nearest combinator waits for this strand; null: it is the task's own. The
// parent is counted there, so the strand is neither struck off there when it leaves nor counted
// when it comes back.
const Executor* parent_waits_at(const OperationBase& op) noexcept {
  if (op.is_child()) return op.join->home;
  void* coroutine = op.awaiting().address();
  for (;;) {
    const Continuation next =
        std::coroutine_handle<PromiseBase>::from_address(coroutine).promise().continuation;
    if (next.is_rec()) return next.rec()->join->home;
    if (next.is_task()) return nullptr;
    if (!next.is_coroutine()) return next.sink()->waits_at;
    coroutine = next.coroutine().address();
  }
}

}  // namespace

// A strand that is not on its task's own executor counts as live work of the one that it visits. It
// is counted where it goes before it leaves, and is not touched once it is scheduled.

bool ResumeOn::start() {
  if (refused()) return false;
  Executor& from = *executor;
  Executor& own = *TaskRecord::of(*scope()).executor();
  if (target_ == &from) {
    // The place that it comes back to is kept, as if it left: it may go elsewhere by a way of its
    // own, on which it is struck off here.
    if (back_ == Return::yes && &from != &own && &from != parent_waits_at(*this))
      ExecutorAccess::admit_post(from);
    state.set(WaitPhase::done_at_once);
    return false;
  }
  const Executor* const kept = &from == &own && target_ == &own ? nullptr : parent_waits_at(*this);
  if (target_ != &own && target_ != kept)
    ExecutorAccess::admit_post(*target_);  // throws ExecutorShutdownError: the strand stays
  state.set(WaitPhase::done_at_once);
  Executor* const target = target_;
  const bool back = back_ == Return::yes;
  if (&from == &own) {
    note_strand_moves(own, &from, target);  // virtual time stands still before it leaves
    target->schedule(*this);
  } else {
    ExecutorAccess::enter(own);  // the task may end as soon as it is scheduled
    target->schedule(*this);
    note_strand_moves(own, &from, target);
    if (!back && &from != kept) ExecutorAccess::retire_post(from);
    ExecutorAccess::leave(own);
  }
  return true;
}

bool GoHome::start() noexcept {
  Executor& from = *executor;
  Executor* const target = target_;
  Executor& own = *TaskRecord::of(*scope()).executor();
  state.set(WaitPhase::done_at_once);
  if (target == &from) {
    // It came back by a way of its own, on which it was counted, or has not left: the place that
    // was kept for it is free.
    if (&from != &own && &from != parent_waits_at(*this)) ExecutorAccess::retire_post(from);
    return false;
  }
  const Executor* const kept = parent_waits_at(*this);  // before it is scheduled
  if (&from == &own) {
    note_strand_moves(own, &from, target);
    target->schedule(*this);
  } else {
    ExecutorAccess::enter(own);  // as above
    target->schedule(*this);
    note_strand_moves(own, &from, target);
    if (&from != kept) ExecutorAccess::retire_post(from);
    ExecutorAccess::leave(own);
  }
  return true;
}

}  // namespace magpie::detail
