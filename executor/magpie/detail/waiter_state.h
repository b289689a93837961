// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A parked wait, and the one step that decides how it ends.
//
// A waiter is in two lists: the queue of the primitive that it waits for (under the primitive's
// lock) and its scope's list (under the scope's lock). Whoever completes it and whoever cancels it
// race for one compare-and-swap on its state; the loser touches it no more. The winner schedules
// it, and the resumed side takes it out of the list that the winner did not:
//
//   done       completed; still in the scope's list, out of the primitive's queue
//   cancelled  claimed by a cancellation; out of the scope's list, maybe in the primitive's queue
//   lost       completed, but another contestant had won its race; lists as for done, outcome as
//              for cancelled
//
// Lock order: primitive, then scope. See executor/CANCELLATION.md.

#include <cstdint>

#include <magpie/detail/atomic.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/runnable.h>

namespace magpie::detail {

enum class WaitPhase : std::uint8_t {
  idle,     // not parked: nothing to clean up, no outcome yet
  waiting,  // parked: in both lists
  done,
  cancelled,
  lost,
  done_at_once,      // completed without parking
  cancelled_at_once  // refused or withdrawn without parking
};

template <class Env>
class BasicWaitState {
 public:
  WaitPhase phase() const noexcept { return state_.load(std::memory_order_relaxed); }

  /// Before it is parked, and by the side that owns it: no race.
  void set(WaitPhase phase) noexcept { state_.store(phase, std::memory_order_relaxed); }

  /// By whoever has something to give. The relaxed failure order is enough: the loser reads nothing
  /// of the waiter.
  bool try_complete() noexcept { return decide(WaitPhase::done); }
  /// By a cancellation, under the scope's lock.
  bool try_cancel() noexcept { return decide(WaitPhase::cancelled); }

 private:
  bool decide(WaitPhase outcome) noexcept {
    WaitPhase expected = WaitPhase::waiting;
    if constexpr (Env::mutant(Mutant::waiter_plain_decide)) {
      if (phase() != expected) return false;
      set(outcome);
      return true;
    }
    // acq_rel: acquires what the parking side wrote (also ordered by the list's lock), releases
    // nothing of its own: the scheduling of the waiter carries what the winner wrote to the resumed
    // side.
    return state_.compare_exchange_strong(expected, outcome, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  }

  typename Env::template Atomic<WaitPhase> state_{WaitPhase::idle};
};

template <class Env>
struct BasicWaiter;

/// What `run` does with a wait that has ended.
enum class GoesOn : std::uint8_t {
  coroutine,  // resumes the coroutine behind it
  row,        // ends it, a child of a join, and the whole row that it is the first of
  otherwise,
};

/// What is the same for all waits of a kind: of one type, that go on in the same way.
template <class Env>
struct BasicWaitKind : RunKind {
  constexpr BasicWaitKind(void (*its_run)(Runnable*) noexcept, GoesOn its_end,
                          const char* (*its_what)(const BasicWaiter<Env>&) noexcept,
                          void (*its_drop)(BasicWaiter<Env>&) noexcept) noexcept
      : RunKind{its_run}, what(its_what), drop(its_drop), goes_on(its_end) {}

  const char* (*what)(const BasicWaiter<Env>&) noexcept;  // for dumps: what is waited for
  void (*drop)(BasicWaiter<Env>&) noexcept;               // see OperationBase::abandon()
  GoesOn goes_on;
};
using WaitKind = BasicWaitKind<StdEnv>;

/// What stands behind a wait, and so what its pointer points to.
enum class Stand : std::uint8_t {
  nowhere,  // not started
  frame,    // the coroutine that awaits it, in its own scope
  place,    // an OperationPlace
  join,     // the combinator that it was given to
  moved,    // nothing any more: it was moved from
};

/// What a wait has to do with the race that its join may be.
enum class RacePart : std::uint8_t { none, asks, ends };

// The pieces are ordered so that the small ones fill the place behind the index: what waits is as
// many of these as a program has. Where it goes on, and how, lies in the Runnable.
template <class Env>
struct BasicWaiter : Runnable, Rec {
  const BasicWaitKind<Env>& kind() const noexcept {
    return *static_cast<const BasicWaitKind<Env>*>(how);
  }

  BasicWaitState<Env> state;
  bool queued = false;               // in the primitive's queue; under its lock
  Stand stand : 3 = Stand::nowhere;  // before it is parked
  std::uint8_t annex : 5 = 0;        // which of its scope's annexes it is listed in; 0: in none.
                                     // Set each time that it is parked, by who parks it
  RacePart race = RacePart::none;
  // Each is set when the waiter comes into the list, or is prepared.
  BasicWaiter* scope_prev;  // under the scope's lock
  BasicWaiter* scope_next;
  BasicWaiter* queue_prev;  // under the primitive's lock
  BasicWaiter* queue_next;
};

// Rows (S7 in CANCELLATION.md): operations of one type that one join has as children, claimed by
// one cancellation, are scheduled as one. They are linked by `scope_next`, which belongs to whoever
// has claimed them, and then to whoever runs the first one and ends them all.

/// Takes what is scheduled as one off the front of what a cancellation claimed: a waiter, or the
/// first of a row. The claimed come oldest first; a row begins with the newest, which is the
/// cheapest to take out of a heap of timers.
template <class Env>
BasicWaiter<Env>* take_row(BasicWaiter<Env>*& claimed) noexcept {
  BasicWaiter<Env>* row = claimed;
  claimed = row->scope_next;
  if (row->kind().goes_on != GoesOn::row) return row;
  if (!Env::mutant(Mutant::row_open_end)) row->scope_next = nullptr;
  while (claimed != nullptr && claimed->how == row->how && claimed->join == row->join &&
         claimed->executor == row->executor) {
    BasicWaiter<Env>* const next = claimed->scope_next;
    claimed->scope_next = row;
    row = claimed;
    claimed = next;
  }
  return row;
}

/// Of a child that has ended, before it leaves its lists: the next of its row; null: none.
template <class Env>
BasicWaiter<Env>* behind_in_row(const BasicWaiter<Env>& waiter) noexcept {
  // Any other end has left it in its scope's list, whose links these still are.
  if (waiter.state.phase() != WaitPhase::cancelled && !Env::mutant(Mutant::row_of_the_completed))
    return nullptr;
  return waiter.scope_next;
}

/// The queue of a primitive: first in, first out; every call under the primitive's lock.
template <class Env>
class BasicWaitQueue {
 public:
  using Waiter = BasicWaiter<Env>;

  bool empty() const noexcept { return head_ == nullptr; }
  Waiter* front() const noexcept { return head_; }

  void push_back(Waiter& w) noexcept {
    w.queue_prev = tail_;
    w.queue_next = nullptr;
    (tail_ != nullptr ? tail_->queue_next : head_) = &w;
    tail_ = &w;
    w.queued = true;
  }

  void remove(Waiter& w) noexcept {
    (w.queue_prev != nullptr ? w.queue_prev->queue_next : head_) = w.queue_next;
    (w.queue_next != nullptr ? w.queue_next->queue_prev : tail_) = w.queue_prev;
    w.queued = false;
  }

  /// A waiter whose wait has ended takes itself out, wherever it is by now.
  void forget(Waiter& w) noexcept {
    if (w.queued) remove(w);
  }

 private:
  Waiter* head_ = nullptr;
  Waiter* tail_ = nullptr;
};

/// What may stand beside the waiters of a small queue, and rarely does; the latest first.
template <class Env>
struct BasicBystander {
  BasicBystander* next_bystander;
  BasicWaiter<Env>* first_waiter;  // of the latest: the queue's own word leads to it instead
};

/// The same in one word, for what there are many of: the first waiter's link backwards leads to the
/// last one, so whoever is added or removed touches another waiter more. While there are
/// bystanders, the word leads to the latest of them, and the first waiter is found there.
template <class Env>
class BasicSmallWaitQueue {
 public:
  using Waiter = BasicWaiter<Env>;
  using Bystander = BasicBystander<Env>;

  Waiter* front() const noexcept {
    return has_bystanders() ? bystanders()->first_waiter : reinterpret_cast<Waiter*>(word_);
  }
  bool has_bystanders() const noexcept { return (word_ & kBystanders) != 0; }
  /// Of a queue without bystanders.
  void remove_only(Waiter& w) noexcept {
    word_ = 0;
    w.queued = false;
  }

  void push_back(Waiter& w) noexcept {
    w.queue_next = nullptr;
    Waiter* const first = front();
    if (first == nullptr) {
      w.queue_prev = &w;
      set_front(&w);
    } else {
      w.queue_prev = first->queue_prev;
      w.queue_prev->queue_next = &w;
      first->queue_prev = &w;
    }
    w.queued = true;
  }

  void remove(Waiter& w) noexcept {
    Waiter* const after = w.queue_next;
    Waiter* const first = front();
    if (&w == first) {
      set_front(after);
      if (after != nullptr) after->queue_prev = w.queue_prev;
    } else {
      w.queue_prev->queue_next = after;
      (after != nullptr ? after : first)->queue_prev = w.queue_prev;
    }
    w.queued = false;
  }

  /// As above.
  void forget(Waiter& w) noexcept {
    if (w.queued) remove(w);
  }

  void add(Bystander& b) noexcept {
    b.first_waiter = front();
    b.next_bystander = has_bystanders() ? bystanders() : nullptr;
    word_ = reinterpret_cast<std::uintptr_t>(&b) | kBystanders;
  }
  /// All of them, the latest first; null: none.
  Bystander* take_bystanders() noexcept {
    if (!has_bystanders()) return nullptr;
    Bystander* const latest = bystanders();
    word_ = reinterpret_cast<std::uintptr_t>(latest->first_waiter);
    return latest;
  }

 private:
  static constexpr std::uintptr_t kBystanders = 1;

  Bystander* bystanders() const noexcept {
    return reinterpret_cast<Bystander*>(word_ & ~kBystanders);
  }
  void set_front(Waiter* w) noexcept {
    if (has_bystanders()) {
      bystanders()->first_waiter = w;
    } else {
      word_ = reinterpret_cast<std::uintptr_t>(w);
    }
  }

  std::uintptr_t word_ = 0;
};

}  // namespace magpie::detail
