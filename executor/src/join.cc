// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/executor_core.h>
#include <magpie/detail/join.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/task_record.h>

namespace magpie::detail {
namespace {

void resume_parent(Runnable* node) noexcept {
  auto* const join = static_cast<Join*>(node);
  resume_strand(join->parent, join->scope.parent());
}
constexpr RunKind kResumeParent{&resume_parent};

}  // namespace

std::coroutine_handle<> deliver_to(Join* join, std::uint32_t units) noexcept {
  Executor* const home = join->home;
  // All n units in one hand: no other bearer exists, and what its chain wrote was ordered by its
  // own hand-overs.
  if (current_executor() != home) [[unlikely]] {
    // The bearer counts as what it is more abroad than its parent, who is still counted where it
    // awaited.
    const ComingHome trip(join->scope, *home);
    if (units != join->units && !join->counter.deliver(units)) return std::noop_coroutine();
    join->how = &kResumeParent;
    home->schedule(*join);
    return std::noop_coroutine();
  }
  if (units != join->units && !join->counter.deliver(units)) return std::noop_coroutine();
  return transfer(join->parent);
}

std::coroutine_handle<> advance_carefully(Join* join, std::uint32_t units) noexcept {
  Fork* const sibling = pop_sibling(join, local_queue());
  if (sibling == nullptr) return deliver_to(join, units);
  sibling->carry += units;
  return start_attentively(sibling);
}

// A sibling that this thread has just taken over, when something else may want the thread or the
// join may be cancelled.
std::coroutine_handle<> start_attentively(Fork* sibling) noexcept {
  LocalQueue* const queue = local_queue();
  if (queue->wanted()) {
    // The loop is wanted: the sibling, and with it the units, wait in the deque.
    if (queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(sibling) | kForkTag))
      return std::noop_coroutine();
  }
  return start_fork(sibling);
}

std::coroutine_handle<> start_behind_fence(Fork* first) noexcept {
  StdEnv::light_fence();
  return start_attentively(first);
}

std::coroutine_handle<> skip_cancelled(Fork* rec) noexcept {
  Join* const join = rec->join;
  for (;;) {
    if (rec->coroutine != 0) {
      std::coroutine_handle<>::from_address(reinterpret_cast<void*>(rec->coroutine)).destroy();
    }
    join->kind->settle(join, rec, SlotState::empty);
    const std::uint32_t units = rec->carry + 1;
    LocalQueue* const queue = local_queue();
    rec = queue != nullptr ? pop_sibling(join, queue) : nullptr;
    if (rec == nullptr) return deliver_to(join, units);
    rec->carry += units;
  }
}

void put_back(LocalQueue* queue, Fork* fork) noexcept {
  if (!queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(fork) | kForkTag))
    return hand_fork_to_executor(*fork);
  queue->wanted();  // somebody may have looked for work while it was out of the deque
}

std::coroutine_handle<> put_back_and_deliver(Fork* fork, Join* join, std::uint32_t units) noexcept {
  put_back(local_queue(), fork);
  return deliver_to(join, units);
}

void hand_fork_to_executor(Fork& rec) noexcept {
  Executor* const home = rec.join->home;
  Runnable& node = rec.as_node();
  node.how = &kRunFork;
  home->schedule(node);
}

void queue_forks(LocalQueue* queue, EachFork backwards, void* children) noexcept {
  // The last one to be queued may be the last that is left of the join: nothing is touched after
  // it.
  struct Pusher {
    void push(Fork& rec) const noexcept {
      if (queue != nullptr &&
          queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(&rec) | kForkTag))
        return;
      hand_fork_to_executor(rec);
    }
    LocalQueue* queue;
    Fork* later = nullptr;
  } pusher{queue};
  backwards(
      children,
      [](void* context, Fork& rec) {
        auto& self = *static_cast<Pusher*>(context);
        if (self.later != nullptr) {
          self.push(*self.later);
        } else if (self.queue != nullptr) {
          self.queue->deque.owner().make_room_for(rec.join->units);
        }
        self.later = &rec;
      },
      &pusher);
  pusher.push(*pusher.later);
  if (queue != nullptr) queue->wanted();
}

std::coroutine_handle<> start_calls(CallRec* rec) noexcept {
  for (;;) {
    if (const std::coroutine_handle<> frame = rec->begin(rec); frame != nullptr)
      return transfer(frame);
    Join* const join = rec->join;
    const std::uint32_t units = rec->carry + 1;
    LocalQueue* const queue = local_queue();
    Fork* const sibling = queue != nullptr ? pop_sibling(join, queue) : nullptr;
    if (sibling == nullptr) return deliver_to(join, units);
    sibling->carry += units;
    // As in start_attentively(), but without a call for each child.
    if (queue->wanted() &&
        queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(sibling) | kForkTag)) {
      return std::noop_coroutine();
    }
    if (join->scope.cancelled()) return skip_cancelled(sibling);
    if (sibling->coroutine != 0) return start_child(sibling);
    rec = static_cast<CallRec*>(sibling);
  }
}

void run_queued_fork(Runnable* node) noexcept {
  auto* const rec = static_cast<Fork*>(node);
  rec->no_node();
  run_fork(rec);
}

void run_fork(Fork* rec) noexcept {
  install_locals(rec->join->scope);
  resume_here(start_fork(rec));
}

}  // namespace magpie::detail
