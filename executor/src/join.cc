// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

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

// For those that are in an executor's queue.
template <std::uintptr_t Tag>
void run_queued_item(Runnable* node) noexcept {
  auto* const rec = static_cast<Fork*>(node);
  rec->no_node();
  run_fork_item(tagged(rec, Tag));
}
constexpr RunKind kRunFork{&run_queued_item<kForkTag>};
constexpr RunKind kRunBundle{&run_queued_item<kBundleTag>};

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
    queue->wanted();  // it may have been a bundle, whose parts who sleeps has not seen
  }
}

void put_back(LocalQueue* queue, std::uintptr_t item) noexcept {
  if (!queue->deque.owner().push(item)) return hand_item_to_executor(item);
  queue->wanted();  // somebody may have looked for work while it was out of the deque
}

std::coroutine_handle<> put_back_and_deliver(std::uintptr_t item, Join* join,
                                             std::uint32_t units) noexcept {
  put_back(local_queue(), item);
  return deliver_to(join, units);
}

Runnable& node_of_item(std::uintptr_t item) noexcept {
  Runnable& node = fork_of(item).as_node();
  node.how = is_bundle(item) ? &kRunBundle : &kRunFork;
  return node;
}

void hand_item_to_executor(std::uintptr_t item) noexcept {
  Executor* const home = fork_of(item).join->home;
  home->schedule(node_of_item(item));
}

void unbundle(Fork& rec, std::uint32_t half, LocalQueue* queue) noexcept {
  const JoinKind& kind = *rec.join->kind;
  const std::uint32_t left = rec.join->units - kind.own_units - rec.index;  // with this one
  const std::uintptr_t first = tagged(&rec, kForkTag);
  const std::uintptr_t stride = kind.stride;
  const auto queue_one = [queue](std::uintptr_t item) noexcept {
    if (queue == nullptr || !queue->deque.owner().push(item)) hand_item_to_executor(item);
  };
  for (; half >= kSingly; half /= 2) {
    if (half < left) queue_one(first + half * stride - kForkTag + kBundleTag);
  }
  // The last ones may be fewer.
  const std::uintptr_t last = first + (std::min(left, kSingly) - 1) * stride;
  const auto one_by_one = [=]() noexcept {
    for (std::uintptr_t item = last; item != first; item -= stride) queue_one(item);
  };
  if (queue == nullptr) return one_by_one();
  queue->deque.owner().with_room_for(
      kSingly,
      [=](auto batch) noexcept {
        for (std::uintptr_t item = last; item != first; item -= stride) batch.add(item);
        batch.commit();
        StdEnv::light_fence();  // D3
      },
      one_by_one);
}

void queue_forks(LocalQueue* queue, EachFork backwards, void* children) noexcept {
  // The last one to be queued may be the last that is left of the join: nothing is touched after
  // it.
  struct Pusher {
    void push(Fork& rec) const noexcept {
      const std::uintptr_t item = tagged(&rec, kForkTag);
      if (queue == nullptr || !queue->deque.owner().push(item)) hand_item_to_executor(item);
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

std::coroutine_handle<> start_in_bundles(LocalQueue* queue, Fork& first,
                                         std::size_t count) noexcept {
  unbundle(first, static_cast<std::uint32_t>(std::bit_floor(count - 1)), queue);
  return start_attentively(&first);
}

// All but the first are behind it; it may be the last that is left of the join once it is queued.
void queue_in_bundles(LocalQueue* queue, Fork& first, std::size_t count) noexcept {
  unbundle(first, static_cast<std::uint32_t>(std::bit_floor(count - 1)), queue);
  const std::uintptr_t item = tagged(&first, kForkTag);
  if (!queue->deque.owner().push(item)) hand_item_to_executor(item);
  queue->wanted();
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

void run_fork_item(std::uintptr_t item) noexcept {
  Fork& rec = fork_of(item);
  install_locals(rec.join->scope);
  if (is_bundle(item)) {
    LocalQueue* const queue = local_queue();
    unbundle(rec, queue);
    if (queue != nullptr && queue->noticed_after_push())
      return resume_here(start_attentively(&rec));
  }
  resume_here(start_fork(&rec));
}

}  // namespace magpie::detail
