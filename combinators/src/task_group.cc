// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <unordered_set>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/wake_list.h>
#include <magpie/task_group.h>
#include <magpie/this_task.h>

namespace magpie::detail {
namespace {

// Who awaits the handle of a child that failed, fails with the same exception: that is one failure.
void drop_repeated(std::vector<std::exception_ptr>& errors) {
  if (errors.size() < 2) return;
  static_assert(sizeof(std::exception_ptr) == sizeof(void*),
                "equal exception_ptrs are the same pointer");
  std::unordered_set<const void*> seen;
  std::erase_if(errors, [&](const std::exception_ptr& error) {
    const void* object = nullptr;
    std::memcpy(&object, &error, sizeof object);
    return !seen.insert(object).second;
  });
}

}  // namespace

GroupCore::GroupCore() noexcept : scope_(*this) {
  child_ended = [](TaskOwner* owner, TaskRecord& record) noexcept {
    auto* const self = static_cast<GroupCore*>(owner);
    if (record.outcome() == SlotState::error) {
      std::string name;
      try {
        name = record.name();
      } catch (...) {
      }
      self->fail(record.error(), name);
    } else if (record.outcome() == SlotState::cancelled) {
      self->note_cancelled_child();
    }
    self->remove_unit();
  };
}

void GroupCore::open(Scope& outer, std::coroutine_handle<> parent) noexcept {
  scope_.enter(&outer, outer.task());
  parent_ = parent;
  waits_at = home_ = current_executor();
}

void GroupCore::add_unit() {
  std::uint32_t pending = pending_.load(std::memory_order_relaxed);
  do {
    if (pending == 0) {
      throw std::logic_error(
          "this task group has ended: spawn from its body, from its children, or while one of them "
          "runs");
    }
  } while (!pending_.compare_exchange_weak(pending, pending + 1, std::memory_order_relaxed));
}

void GroupCore::remove_unit() noexcept {
  // acq_rel: releases what this child wrote; the last one acquires it from all. After it the block
  // may be gone.
  Executor* const home = home_;
  if (pending_.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  static constexpr RunKind kGoOn{[](Runnable* node) noexcept {
    auto* const self = static_cast<GroupCore*>(node);
    resume_strand(self->parent_, self->scope_.parent());
  }};
  how = &kGoOn;
  home->schedule(*this);
}

// Room for the error is got without the lock, which others spin on. Without memory for one more,
// the earlier ones must do.
void GroupCore::fail(std::exception_ptr error, std::string_view who) noexcept {
  std::vector<std::exception_ptr> room;  // outlives the lock: the old one is freed in the end
  for (bool full = true; full;) {
    std::size_t more = 0;
    {
      std::lock_guard guard(lock_);
      if (room.capacity() > errors_.capacity()) {
        room.insert(room.end(), std::make_move_iterator(errors_.begin()),
                    std::make_move_iterator(errors_.end()));
        errors_.swap(room);
      }
      full = errors_.size() == errors_.capacity();
      if (!full) errors_.push_back(error);
      more = 2 * errors_.capacity() + 1;
    }
    if (!full) break;
    try {
      room.clear();
      room.reserve(more);
    } catch (...) {
      std::lock_guard guard(lock_);
      lost_ = true;
      break;
    }
  }
  cancel_scope_now(scope_, ReasonRef::sibling_failed(who, std::move(error)));
}

bool GroupCore::conclude(SlotState body) {
  const bool by_group = cancelled_.load(std::memory_order_relaxed);
  TaskRecord::of(scope_).group_wait_ends();
  leave_scope(scope_);
  if (errors_.empty() && lost_) throw std::bad_alloc();
  if (!errors_.empty()) {
    drop_repeated(errors_);
    const std::string message =
        errors_.size() == 1 ? "a task of the group failed" : "several tasks of the group failed";
    throw ExceptionGroup(message, std::move(errors_));
  }
  const bool interrupted =
      body == SlotState::cancelled || interrupted_.load(std::memory_order_relaxed);
  if (interrupted && scope_.cancelled_from_outside()) throw CancelledError(scope_.outside_reason());
  return by_group;
}

StartCore::StartCore(GroupCore& group) noexcept : group_(group) {
  child_ended = [](TaskOwner* owner, TaskRecord& record) noexcept {
    auto* const start = static_cast<StartCore*>(owner);
    GroupCore& core = start->group_;
    std::shared_ptr<StartCore> keep = start->let_go();
    // Before the signal the outcome is start()'s alone, which reads it from the child's handle.
    const bool for_group = !start->decide(Verdict::failed) && start->verdict() == Verdict::ready;
    keep.reset();  // the callable goes before the group can end: it may refer to what the group's
                   // awaiter owns
    if (for_group) {
      core.child_ended(&core, record);
    } else {
      core.remove_unit();
    }
  };
}

bool StartCore::decide(Verdict verdict) noexcept {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    if (verdict_ != Verdict::none) return false;
    verdict_ = verdict;
    while (!waiters_.empty()) woken.claim_front(waiters_);
  }
  woken.wake_all();
  return true;
}

StartCore::Verdict StartCore::verdict() const noexcept {
  std::lock_guard guard(lock_);
  return verdict_;
}

bool StartCore::Wait::start() noexcept {
  if (refused()) return false;
  std::lock_guard guard(core_->lock_);
  if (core_->verdict_ != Verdict::none) {
    complete_at_once();
    return false;
  }
  if (!park()) return false;
  core_->waiters_.push_back(*this);
  return true;
}

void StartCore::Wait::unqueue() noexcept {
  std::lock_guard guard(core_->lock_);
  core_->waiters_.forget(*this);
}

void throw_never_ready() {
  throw std::logic_error(
      "the child of group.start() ended without calling its ReadySignal's set()");
}

void throw_second_signal() {
  throw InvalidStateError("this ReadySignal was set before: a child signals that it is ready once");
}

}  // namespace magpie::detail

namespace magpie {

std::uintptr_t TaskGroup::frame_of_start(std::shared_ptr<detail::StartCore> state,
                                         std::string name) {
  return start_and_wait(std::move(state), std::move(name)).take_frame().release();
}

Task<void> TaskGroup::start_and_wait(std::shared_ptr<detail::StartCore> state, std::string name) {
  co_await this_task::checkpoint();  // in a cancelled scope nothing is started
  JoinHandle<void> child;
  try {
    SpawnOptions options(std::move(name));
    child = add(Task<void>::of_frame(state->call(state)), &options, state.get());
  } catch (...) {
    state->drop_signal();
    throw;
  }
  Result<void> waited = co_await as_result(state->wait());
  if (!waited) {
    // Cancelled: unless the signal came first, the child goes too. A real error of its own is
    // reported here all the same.
    if (state->decide(detail::StartCore::Verdict::withdrawn)) {
      child.state().cancel(detail::ResultAccess::slot(waited).reason());
      Result<void> ended = co_await uncancellable(as_result(child));
      if (!ended && !ended.is_cancelled()) ended.value();
      waited.value();  // throws CancelledError
    }
  }
  if (state->verdict() == detail::StartCore::Verdict::failed) {
    const Result<void>& ended = child.result();
    if (!waited && (ended || ended.is_cancelled())) waited.value();  // both were cancelled together
    ended.value();
    detail::throw_never_ready();
  }
}

}  // namespace magpie
