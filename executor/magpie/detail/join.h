// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fork and join: how the children of one combinator are started, and how the last of them wakes the parent.
//
// A join over n children counts n units. A child that ends and finds a sibling of the same join at the bottom of its worker's
// deque takes it over together with the units that it carries itself; only the last bearer of a chain touches the shared
// counter, and not even that one when its chain carried all n. Hence a fork that is not stolen costs two relaxed loads, a
// compare and a plain store. The protocol with its proof sketch: executor/JOIN.md.
//
// After a bearer has delivered its units it touches nothing of the join: the parent may be running, and its frame be gone.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/end_sink.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

/// The shared counter of a join, apart from everything else so that the model checkers can run it.
template <class Env>
class BasicJoinCounter {
 public:
  void start(std::uint32_t units) noexcept { pending_.store(units, std::memory_order_relaxed); }

  /// Hands in `units`; true for the one who hands in the last. acq_rel: releases what the bearer's children wrote, and the
  /// last one acquires it from all the others.
  bool deliver(std::uint32_t units) noexcept {
    return pending_.fetch_sub(units, std::memory_order_acq_rel) == units;
  }

 private:
  typename Env::template Atomic<std::uint32_t> pending_{0};
};

/// One child of a join. It is in a deque exactly once between the fork and its start.
struct Rec : Runnable {
  Join* join = nullptr;
  void* coroutine = nullptr;  // the frame, not started; null: `begin` makes it
  std::coroutine_handle<> (*begin)(Rec*) noexcept = nullptr;
  std::uint32_t carry = 0;  // units of the join that this child brings along, besides its own
  std::uint32_t index = 0;  // which child it is
  std::uint32_t order = 0;  // the how-manieth to end, where the combinator counts that
};

struct Join : Runnable {
  BasicJoinCounter<StdEnv> counter;
  std::uint32_t units = 0;       // n
  std::uintptr_t begin = 0;      // the children lie in [begin, begin + bytes)
  std::uintptr_t bytes = 0;
  Executor* home = nullptr;      // where the parent awaited, and goes on
  std::coroutine_handle<> parent;
  // Called before the child's unit is delivered: for failures, or for every child if `settle_values`. `empty`: never started.
  void (*settle)(Join*, Rec*, SlotState) noexcept = nullptr;
  bool settle_values = false;
  Scope scope;
};

/// Hands in units; returns what this thread runs next.
MAGPIE_EXPORT std::coroutine_handle<> deliver_to(Join* join, std::uint32_t units) noexcept;
/// A sibling that was cancelled before its start: destroys the frame, goes on with the next one.
MAGPIE_EXPORT std::coroutine_handle<> skip_cancelled(Rec* rec) noexcept;
/// A child that something else than the fork path starts: the loop's, a thief's, another executor's Runnable.
MAGPIE_EXPORT void run_fork(Runnable* rec) noexcept;

inline std::coroutine_handle<> start_child(Rec* rec) noexcept {
  if (rec->coroutine != nullptr) [[likely]] {
    return transfer(std::coroutine_handle<>::from_address(rec->coroutine));
  }
  return rec->begin(rec);
}

inline std::coroutine_handle<> start_fork(Rec* rec) noexcept {
  if (rec->join->scope.cancelled()) [[unlikely]] return skip_cancelled(rec);
  return start_child(rec);
}

/// The unstarted sibling at the bottom of this worker's deque, popped; null if there is none.
inline Rec* pop_sibling(const Join* join, LocalQueue* queue) noexcept {
  auto deque = queue->deque.owner();
  const std::uintptr_t item = deque.peek();  // maybe stale: only the address is compared
  if ((item & kTagMask) != kForkTag) return nullptr;
  if (item - kForkTag - join->begin >= join->bytes) return nullptr;
  if (deque.pop() != item) return nullptr;
  return reinterpret_cast<Rec*>(item - kForkTag);
}

/// A bearer of `units` goes on: with a sibling if one lies ready, else it delivers.
inline std::coroutine_handle<> advance(Join* join, std::uint32_t units) noexcept {
  if (LocalQueue* const queue = local_queue(); queue != nullptr) [[likely]] {
    if (Rec* const sibling = pop_sibling(join, queue); sibling != nullptr) {
      sibling->carry = units;
      if (queue->wanted()) [[unlikely]] {
        // The loop is wanted: the sibling, and with it the units, wait in the deque. It cannot fail: there was room for it.
        if (queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(sibling) | kForkTag)) {
          return std::noop_coroutine();
        }
      }
      return start_fork(sibling);
    }
  }
  return deliver_to(join, units);
}

/// The end of a child. Its frame is gone, its outcome lies in its slot.
inline std::coroutine_handle<> child_ended(Rec* rec, SlotState outcome) noexcept {
  Join* const join = rec->join;
  if (outcome != SlotState::value || join->settle_values) [[unlikely]] join->settle(join, rec, outcome);
  return advance(join, rec->carry + 1);
}

}  // namespace magpie::detail
