// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fork and join: how the children of one combinator are started, and how the last of them wakes the
// parent.
//
// A join over n children counts n units. A child that ends and finds a sibling of the same join at
// the bottom of its worker's deque takes it over together with the units that it carries itself;
// only the last bearer of a chain touches the shared counter, and not even that one when its chain
// carried all n. Hence a fork that is not stolen costs two relaxed loads, a compare and a plain
// store. The protocol with its proof sketch: executor/JOIN.md.
//
// After a bearer has delivered its units it touches nothing of the join: the parent may be running,
// and its frame be gone.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>

#include <magpie/config.h>
#include <magpie/detail/arbiter.h>
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
  BasicJoinCounter() noexcept = default;
  explicit BasicJoinCounter(std::uint32_t units) noexcept : pending_(units) {}
  void start(std::uint32_t units) noexcept { pending_.store(units, std::memory_order_relaxed); }

  /// Hands in `units`; true for the one who hands in the last. acq_rel: releases what the bearer's
  /// children wrote, and the last one acquires it from all the others.
  bool deliver(std::uint32_t units) noexcept {
    if constexpr (Env::mutant(Mutant::join_plain_counter)) {
      const std::uint32_t pending = pending_.load(std::memory_order_acquire);
      pending_.store(pending - units, std::memory_order_release);
      return pending == units;
    }
    constexpr auto kOrder = Env::mutant(Mutant::join_relaxed_counter) ? std::memory_order_relaxed
                                                                      : std::memory_order_acq_rel;
    return pending_.fetch_sub(units, kOrder) == units;
  }

 private:
  typename Env::template Atomic<std::uint32_t> pending_{0};
};

/// What bears units.
struct Bearer : Rec {
  std::uint32_t
      carry;  // units of the join that this child brings along, besides its own; only ever added to
};

/// A child that is forked. It is in a deque exactly once between the fork and its start. Nothing is
/// initialised before the join starts but what a constructor of the child sets.
///
/// It is a Runnable only while an executor's queue has it, as it may before its start. Most forks
/// never are: at any other time the outcome may lie in that place (see ForkedChild).
struct Fork : Bearer, Runnable {
  /// To be handed to an executor; its kind and the place where it goes are the caller's to say.
  Runnable& as_node() noexcept { return *::new (static_cast<void*>(node_place())) Runnable; }
  /// It is none any more.
  void no_node() noexcept { SlotBase::make_empty(node_place()); }
  Runnable* node_place() noexcept { return this; }

  std::uintptr_t coroutine;  // the frame's address, not started; 0: a CallRec
};

/// A child whose coroutine is made when its turn comes, if it has one at all.
struct CallRec : Fork {
  // The frame to go on with; null: the child has ended in place and was settled.
  std::coroutine_handle<> (*begin)(CallRec*) noexcept;
};

/// The children of a combinator with what became of them, one after the other and without their
/// types: for what happens rarely, so that it is compiled once.
class Outcomes {
 public:
  using Look = void (*)(void* context, const Rec& child, const SlotBase& slot, const void* failure);
  using Each = void (*)(void* children, Look look, void* context);
  Outcomes(Each each, void* children) noexcept : each_(each), children_(children) {}

  /// fn(child, slot, failure), `failure` being the address that Slot::failure() gives.
  template <class F>
  void for_each(F&& fn) const {
    using Plain = std::remove_reference_t<F>;
    each_(
        children_,
        [](void* context, const Rec& child, const SlotBase& slot, const void* failure) {
          (*static_cast<Plain*>(context))(child, slot, failure);
        },
        std::addressof(fn));
  }
  static const std::exception_ptr& error(const void* failure) noexcept {
    return *static_cast<const std::exception_ptr*>(failure);
  }
  static const ReasonRef& reason(const void* failure) noexcept {
    return *static_cast<const ReasonRef*>(failure);
  }

 private:
  Each each_;
  void* children_;
};

/// What a combinator does with its children's ends.
struct JoinKind {
  // Called before the child's unit is delivered: for failures, or for every child if the join says
  // so. `empty`: never started.
  void (*settle)(Join*, Rec*, SlotState) noexcept;
  Outcomes (*outcomes)(Join*) noexcept;  // where settle() wants to know what a child failed with
  bool settle_values = false;            // values are settled too
  // Bytes from one child to the next, where they are forks of one type in a row; else 0. Many of
  // those are queued in bundles.
  std::uint32_t stride = 0;
  std::uint32_t own_units = 0;  // of the units, those that no child is for
};

/// The scope of the children comes first: its address is that of the join, and the first thing that
/// a child's end asks.
struct JoinScope {
  JoinScope() noexcept : scope() {}
  ~JoinScope() {}
  JoinScope(const JoinScope&) = delete;
  JoinScope& operator=(const JoinScope&) = delete;

  union {
    Scope scope;  // see Join::destroy_scope()
  };
};

/// What is not initialised here is set before it starts.
struct Join : JoinScope, Runnable {
  Join() noexcept {}
  ~Join() {}

  /// By the owner, unless the scope was seen to be untouched at the end: then there is nothing to
  /// destroy.
  void destroy_scope() noexcept { std::destroy_at(&scope); }

  void start_counting(std::uint32_t n) noexcept {
    units = n;
    std::construct_at(&counter, n);
  }

  const JoinKind* kind;
  union {
    BasicJoinCounter<StdEnv> counter;
  };
  std::uint32_t units;  // n
  Executor* home;       // where the parent awaited, and goes on
  union {
    std::coroutine_handle<> parent;
  };
  union {
    Arbiter arbiter;  // of a race, which makes it: others have none
  };
};

/// Hands in units; returns what this thread runs next.
MAGPIE_EXPORT std::coroutine_handle<> deliver_to(Join* join, std::uint32_t units) noexcept;
/// A sibling that was cancelled before its start: destroys the frame, goes on with the next one.
MAGPIE_EXPORT std::coroutine_handle<> skip_cancelled(Fork* rec) noexcept;
/// The child that an item of a deque stands for, or that it stands for first.
inline Fork& fork_of(std::uintptr_t item) noexcept {
  return *reinterpret_cast<Fork*>(item & ~kTagMask);
}
/// The same item as a node for an executor's queue.
MAGPIE_EXPORT Runnable& node_of_item(std::uintptr_t item) noexcept;
/// What this worker cannot queue, or no worker: the executor starts it.
MAGPIE_EXPORT void hand_item_to_executor(std::uintptr_t item) noexcept;
inline void hand_fork_to_executor(Fork& rec) noexcept {
  hand_item_to_executor(tagged(&rec, kForkTag));
}
/// Children in a row that are queued one by one; there is little to steal in so many.
inline constexpr std::uint32_t kSingly = 32;
/// Queues those behind `rec` that it stands for: the one `half` further on first, as a bundle of as
/// many, and so on, and then the next ones singly. The caller looks at the word of attention.
MAGPIE_EXPORT void unbundle(Fork& rec, std::uint32_t half, LocalQueue* queue) noexcept;
/// The same, for an item with kBundleTag: it stands for as many as its number has a power of two in
/// it.
inline void unbundle(Fork& rec, LocalQueue* queue) noexcept {
  unbundle(rec, (rec.index & (0 - rec.index)) / 2, queue);
}
/// Shows the forked children of a combinator, whose type the caller knows, one after the other.
using EachFork = void (*)(void* children, void (*look)(void* context, Fork&), void* context);
/// Queues every forked child; `backwards` shows them from the last to the first.
MAGPIE_EXPORT void queue_forks(LocalQueue* queue, EachFork backwards, void* children) noexcept;
/// `count` children in a row, more than one, on a worker: the first runs next, the others are
/// queued.
MAGPIE_EXPORT std::coroutine_handle<> start_in_bundles(LocalQueue* queue, Fork& first,
                                                       std::size_t count) noexcept;
/// All of them are queued.
MAGPIE_EXPORT void queue_in_bundles(LocalQueue* queue, Fork& first, std::size_t count) noexcept;
/// What something else than the fork path starts, with the tag that it has in a deque: the loop, a
/// thief.
MAGPIE_EXPORT void run_fork_item(std::uintptr_t item) noexcept;
/// A child without a frame, and its siblings as long as they end in place: in a loop, as there may
/// be any number of them.
MAGPIE_EXPORT std::coroutine_handle<> start_calls(CallRec* rec) noexcept;

// What is not the common case, out of line: the common one then keeps everything in registers that
// need no saving.
MAGPIE_EXPORT MAGPIE_COLD std::coroutine_handle<> advance_carefully(Join* join,
                                                                    std::uint32_t units) noexcept;
MAGPIE_EXPORT MAGPIE_COLD std::coroutine_handle<> start_attentively(Fork* rec) noexcept;

/// After a fork, when the word of attention is not zero: first the fence that the push still owes
/// where there is no membarrier.
MAGPIE_EXPORT MAGPIE_COLD std::coroutine_handle<> start_behind_fence(Fork* rec) noexcept;

inline std::coroutine_handle<> start_child(Fork* rec) noexcept {
  if (rec->coroutine != 0) [[likely]] {
    return transfer(std::coroutine_handle<>::from_address(reinterpret_cast<void*>(rec->coroutine)));
  }
  return start_calls(static_cast<CallRec*>(rec));
}

inline std::coroutine_handle<> start_fork(Fork* rec) noexcept {
  if (rec->join->scope.cancelled()) [[unlikely]]
    return skip_cancelled(rec);
  return start_child(rec);
}

/// An item that was popped, and is another join's.
MAGPIE_EXPORT MAGPIE_COLD void put_back(LocalQueue* queue, std::uintptr_t item) noexcept;

MAGPIE_EXPORT MAGPIE_COLD std::coroutine_handle<> put_back_and_deliver(
    std::uintptr_t item, Join* join, std::uint32_t units) noexcept;

/// The unstarted sibling at the bottom of this worker's deque, popped, and those behind it queued
/// if it stands for more than itself; null if there is none.
inline Fork* pop_sibling(const Join* join, LocalQueue* queue) noexcept {
  auto deque = queue->deque.owner();
  const std::uintptr_t item = deque.peek();  // maybe stale
  // What lies there is often stale, and a pop from an empty deque may make a fence.
  if (!is_unstarted(item) || deque.size_hint() == 0 || deque.pop() == 0) return nullptr;
  Fork& fork = fork_of(item);
  if (fork.join != join) {
    put_back(queue, item);
    return nullptr;
  }
  if (is_bundle(item)) unbundle(fork, queue);
  return &fork;
}

/// A bearer of `units` goes on: with a sibling if one lies ready, else it delivers.
MAGPIE_ALWAYS_INLINE std::coroutine_handle<> advance_on_worker(Join* join, std::uint32_t units,
                                                               LocalQueue* queue) noexcept {
  // All units in one hand, and at home: nothing shared is touched.
  if (units == join->units && queue->executor == join->home) return transfer(join->parent);
  std::uintptr_t item = 0;
  using Popped = Deque<StdEnv>::Popped;
  // Whether the newest item is a sibling is asked of the child, which is there once it was popped.
  const Popped popped = queue->deque.owner().pop_biased_if(&is_fork, item);
  if (popped != Popped::yes) [[unlikely]]
    return advance_carefully(join, units);
  Fork* const sibling = reinterpret_cast<Fork*>(item - kForkTag);
  if (sibling->join != join) [[unlikely]]
    return put_back_and_deliver(item, join, units);
  sibling->carry += units;
  if (queue->noticed() || join->scope.maybe_cancelled()) [[unlikely]] {
    return start_attentively(sibling);
  }
  return start_child(sibling);
}

/// The same on any thread.
inline std::coroutine_handle<> advance(Join* join, std::uint32_t units) noexcept {
  LocalQueue* const queue = local_queue();
  return queue != nullptr ? advance_on_worker(join, units, queue) : deliver_to(join, units);
}

/// The outcome of a child lies in its slot: before its unit is delivered, the combinator hears of
/// it.
inline void settle_child(Rec* rec, SlotState outcome) noexcept {
  Join* const join = rec->join;
  if (outcome != SlotState::value || join->kind->settle_values) [[unlikely]]
    join->kind->settle(join, rec, outcome);
}

/// The end of a forked child. Its frame is gone, its outcome lies in its slot.
inline std::coroutine_handle<> child_ended(Fork* rec, SlotState outcome) noexcept {
  settle_child(rec, outcome);
  return advance(rec->join, rec->carry + 1);
}

}  // namespace magpie::detail
