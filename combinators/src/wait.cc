// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/locals.h>
#include <magpie/wait.h>

namespace magpie::detail {

bool RecordWait::start() noexcept {
  if (refused()) return false;
  fill = nothing();  // not a mover: it goes on at once, with those who copy
  switch (record_->park_waiter(*this)) {
    case TaskRecord::Parked::yes:
      return true;
    case TaskRecord::Parked::done:
      complete_at_once();
      return false;
    default:
      return false;
  }
}

void RecordWait::unqueue() noexcept {
  record_->forget_waiter(*this);
}

const JoinKind WaitCore::kKind{&WaitCore::settle, nullptr, true};

WaitCore::~WaitCore() {
  destroy_scope();
}

void WaitCore::throw_nothing_to_wait_for() {
  throw std::invalid_argument(
      "wait() needs at least one handle: for none, it could not say when it is over");
}

void WaitCore::expect(std::size_t tasks) {
  nodes_.reserve(tasks);
}
void WaitCore::add(TaskRecord& record) {
  nodes_.emplace_back(RecordWait(record));
}

std::coroutine_handle<> WaitCore::start(std::coroutine_handle<> awaiting, Scope& outer) noexcept {
  outer_ = &outer;
  phase_ = Phase::parked;
  if (limit_) {
    (void)timer_.open(outer, limit_->count(), true);  // it is more than nothing, so it lies ahead
    scope.enter(&timer_, outer.task());
  } else {
    scope.enter(&outer, outer.task());
  }
  kind = &kKind;
  parent = awaiting;
  home = current_executor();
  start_counting(static_cast<std::uint32_t>(nodes_.size()));
  std::uint32_t ended = 0;
  std::uint32_t index = 0;
  // The last node to park may end the wait, on another thread: nothing of it is touched afterwards,
  // unless this thread bears units.
  for (Node& node : nodes_) {
    node.index = index++;
    if (!node.start(*this, false)) continue;
    settle(this, &node, node.slot().state());
    ++ended;
  }
  return ended == 0 ? std::noop_coroutine() : deliver_to(this, ended);
}

void WaitCore::go_round(std::coroutine_handle<> awaiting, Scope& outer) noexcept {
  outer_ = &outer;
  phase_ = Phase::round;
  parent = awaiting;
  static constexpr RunKind kGoOn{[](Runnable* node) noexcept {
    auto* const self = static_cast<WaitCore*>(static_cast<Join*>(node));
    resume_strand(self->parent, self->outer_);
  }};
  how = &kGoOn;
  current_executor()->schedule_behind(*this);
}

// A task has ended, or its node was withdrawn. Once the wait has what it waits for, the other nodes
// are.
void WaitCore::settle(Join* join, Rec* rec, SlotState outcome) noexcept {
  auto* const self = static_cast<WaitCore*>(join);
  if (outcome != SlotState::value || self->when_ == ReturnWhen::all_completed) return;
  const TaskRecord& record = static_cast<Node*>(rec)->record();
  if (self->when_ == ReturnWhen::first_exception && record.outcome() != SlotState::error) return;
  cancel_scope_now(self->scope, ReasonRef::of_kind(CancelKind::lost_race));
}

void WaitCore::leave() noexcept {
  if (phase_ != Phase::parked) return;
  leave_scope(scope);
  if (limit_) timer_.close();
}

void WaitCore::conclude(bool is_satisfied) const {
  if (phase_ == Phase::at_once || (phase_ != Phase::refused && is_satisfied)) return;
  if (outer_->cancelled()) throw CancelledError(outer_->reason());
}

}  // namespace magpie::detail
