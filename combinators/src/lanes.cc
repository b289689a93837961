// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include <magpie/detail/cancel_state.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/lanes.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/locals.h>
#include <magpie/gather.h>
#include <magpie/result.h>

namespace magpie::detail {
namespace {

// Units are counted in 32 bits, and a sum of all of them must fit.
constexpr std::size_t kMostLanes = 0x7fffffff;
// How many others a lane serves before it goes on with its own piece: enough to be worth the way,
// few enough to be no delay.
constexpr int kMostServed = 16;

}  // namespace

const JoinKind LaneJoin::kKind{&LaneJoin::skipped, nullptr};

LaneJoin::~LaneJoin() {
  destroy_scope();
}

void LaneJoin::throw_no_limit(const char* what) {
  throw std::invalid_argument(
      std::string(what) +
      " with a limit of 0 would never run anything: the limit must be at least 1");
}

std::coroutine_handle<> LaneJoin::start(std::coroutine_handle<> awaiting, Scope& outer,
                                        std::size_t most, Lane& first) noexcept {
  scope.enter(&outer, outer.task());
  kind = &kKind;
  parent = awaiting;
  home = current_executor();
  start_counting(static_cast<std::uint32_t>(std::min(most, kMostLanes)));
  set_up(first, units - 1);
  return start_calls(&first);
}

void LaneJoin::set_up(Lane& lane, std::uint32_t carry) noexcept {
  lane.join = this;
  lane.coroutine = 0;
  lane.carry = carry;
  lane.index = 0;
  lane.begin = begin_lane;
  lane.ended = item_ended;
  lane.waits_at = home;
}

// A lane's first turn, or its next one after its piece ended on another executor.
std::coroutine_handle<> LaneJoin::begin_lane(CallRec* rec) noexcept {
  auto& lane = *static_cast<Lane*>(rec);
  auto* const self = static_cast<LaneJoin*>(lane.join);
  if (!self->enter_source(lane)) return std::noop_coroutine();
  return self->at_source(lane);
}

std::coroutine_handle<> LaneJoin::item_ended(EndSink* sink, SlotState outcome) noexcept {
  auto& lane = *static_cast<Lane*>(sink);
  auto* const self = static_cast<LaneJoin*>(lane.join);
  if (outcome == SlotState::empty) [[unlikely]] {
    self->forced_ = true;
  } else if (outcome != SlotState::value) [[unlikely]] {
    const bool failed = outcome == SlotState::error;
    self->note(outcome, failed ? self->error_of(lane) : std::exception_ptr(),
               failed ? ReasonRef() : self->reason_of(lane), lane.item);
  }
  self->let_go(lane);
  if (current_executor() != self->home) [[unlikely]] {
    const ComingHome trip(self->scope, *self->home);
    send_to_source(lane);
    return std::noop_coroutine();
  }
  if (!self->enter_source(lane)) return std::noop_coroutine();
  install_locals(self->scope);  // the piece had its own
  const std::coroutine_handle<> frame = self->at_source(lane);
  if (!frame) return deliver_to(self, lane.carry + 1);
  // A long row of pieces that never wait must not keep the worker from everything else.
  LocalQueue* const queue = local_queue();
  if (queue != nullptr && !queue->wanted()) [[likely]]
    return transfer(frame);
  lane.coroutine = reinterpret_cast<std::uintptr_t>(frame.address());
  hand_fork_to_executor(lane);
  return std::noop_coroutine();
}

// To be run at home, where it asks for its next piece. Unlike a fork it does so also when the join
// is cancelled: of the lanes that have had a piece, one has to find out whether anything was left.
void LaneJoin::send_to_source(Lane& lane) noexcept {
  static constexpr RunKind kGoOn{[](Runnable* node) noexcept {
    auto& self = *static_cast<Lane*>(node);
    install_locals(self.join->scope);
    resume_here(start_calls(&self));
  }};
  Runnable& node = lane.as_node();
  node.how = &kGoOn;
  lane.join->home->schedule(node);
}

// A fork whose turn came after the cancellation. If it had a frame, that is gone; if not, the lane
// that made it goes on asking.
void LaneJoin::skipped(Join* join, Rec* rec, SlotState) noexcept {
  auto* const self = static_cast<LaneJoin*>(join);
  if (static_cast<Lane*>(rec)->coroutine == 0) return;
  {
    std::lock_guard guard(self->lock_);
    self->interrupted_ = true;
  }
  self->let_go(*static_cast<Lane*>(rec));
}

// --- the source ----------------------------------------------------------------------------------

// False: the lane is in line, and whoever is there will serve it. It is not touched any more.
bool LaneJoin::enter_source(Lane& lane) noexcept {
  if (std::exchange(lane.has_source, false)) return true;
  std::lock_guard guard(lock_);
  if (!busy_) {
    busy_ = true;
    return true;
  }
  Runnable& node = lane.as_node();
  node.next = nullptr;
  if (line_ == nullptr) {
    line_ = &node;
  } else {
    line_end_->next = &node;
  }
  line_end_ = &node;
  return false;
}

// The next one in line; null: nobody, and the source is free.
Lane* LaneJoin::next_in_line() noexcept {
  std::lock_guard guard(lock_);
  Runnable* const node = line_;
  if (node == nullptr) {
    busy_ = false;
    return nullptr;
  }
  line_ = node->next;
  return static_cast<Lane*>(node);
}

std::coroutine_handle<> LaneJoin::ask(Lane& lane) noexcept {
  if (dry_) return nullptr;
  if (forced_ || scope.cancelled()) [[unlikely]] {
    dry_ = true;
    if (anything_left()) {
      std::lock_guard guard(lock_);
      interrupted_ = true;
    }
    return nullptr;
  }
  std::coroutine_handle<> frame;
  try {
    frame = pull(lane);
  } catch (...) {
    Slot<void> failure;
    failure.capture_current_exception();
    const bool failed = failure.state() == SlotState::error;
    note(failure.state(), failed ? failure.error() : std::exception_ptr(),
         failed ? ReasonRef() : failure.reason(), lane.item);
    let_go(lane);  // the range goes before the lanes do
  }
  if (!frame) dry_ = true;
  return frame;
}

// The newest lane makes one more, if there may be one. Without memory for it there are fewer.
Lane* LaneJoin::grow(Lane& lane) noexcept {
  if (lane.carry == 0 || lane.newer != nullptr || dry_) return nullptr;
  try {
    lane.newer = new_lane();
  } catch (...) {
    return nullptr;
  }
  set_up(*lane.newer, lane.carry - 1);
  lane.carry = 0;
  return lane.newer;
}

// Takes the lane's next piece; null: the lane is at its end, and bears the units of those whom it
// found to be, too.
std::coroutine_handle<> LaneJoin::at_source(Lane& lane) noexcept {
  const std::coroutine_handle<> frame = ask(lane);
  Lane* const grown = frame ? grow(lane) : nullptr;
  leave_source(lane);
  if (grown != nullptr) hand_fork_to_executor(*grown);
  return frame;
}

// Serves those who came meanwhile. The lane bears a unit of its own, so the join lives.
void LaneJoin::leave_source(Lane& lane) noexcept {
  for (int served = 0; Lane* const other = next_in_line(); ++served) {
    if (served == kMostServed) {
      other->has_source = true;
      send_to_source(*other);
      return;
    }
    const std::coroutine_handle<> frame = ask(*other);
    if (!frame) {
      lane.carry += other->carry + 1;
      continue;
    }
    Lane* const grown = grow(*other);
    other->coroutine = reinterpret_cast<std::uintptr_t>(frame.address());
    hand_fork_to_executor(*other);
    if (grown != nullptr) hand_fork_to_executor(*grown);
  }
}

// --- the end -------------------------------------------------------------------------------------

void LaneJoin::note(SlotState outcome, std::exception_ptr error, ReasonRef reason,
                    std::size_t item) noexcept {
  if (policy_ == LanePolicy::collect) return;
  const bool failed = outcome == SlotState::error;
  // Who was cancelled with the others has not failed.
  const bool own = !failed && !scope.cancelled();
  bool first = false;
  {
    std::lock_guard guard(lock_);
    first = (failed || own) && !error_ && !own_;
    if (failed && !error_) error_ = error;
    if (own && !own_) own_ = reason;
    if (!failed) interrupted_ = true;
  }
  if (!first || policy_ != LanePolicy::fail_fast) return;
  std::string label;
  try {
    label = "item " + std::to_string(item) + " of " + what_;
  } catch (...) {
  }
  cancel_scope_now(
      scope, ReasonRef::sibling_failed(label, failed ? std::move(error) : make_cancelled(reason)));
}

void LaneJoin::conclude() {
  const ReasonRef cause = scope.own_reason();
  leave_scope(scope);
  if (policy_ == LanePolicy::collect) return;
  if (error_) std::rethrow_exception(std::move(error_));
  if (interrupted_) throw_join_cancelled(scope, own_, cause);
}

}  // namespace magpie::detail
