// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who is in which call of a Batcher, over what calls are made of: the library's, or the models'
// (tests/model/batch_model_test.cc).
//
// A call gathers its members, then it starts, and from then on nobody joins or leaves. Who starts
// it takes its members, once, under the lock; a member that is cancelled leaves under the same
// lock, unless the call has started. So each member belongs to one of the two: to its submitter's
// call of leave(), or to whoever took it.
//
// `Traits` has
//   Env
//   Call         a BatchMembers
//   Owner        holds a call, as std::shared_ptr; none is made or dropped under the lock that
//                could be the last
//   make()       a new call; may throw
//   go(call)     its task need not wait any longer

#include <cstddef>
#include <mutex>
#include <utility>

#include <magpie/detail/spin_lock.h>

namespace magpie::detail {

/// A submission. Allocated on its own, so that nothing of the user's is moved under the lock.
struct BatchMemberLinks {
  BatchMemberLinks* prev = nullptr;
  BatchMemberLinks* next = nullptr;
};

/// A call that gathers its members: all of it under the core's lock.
struct BatchMembers {
  BatchMemberLinks* first = nullptr;
  BatchMemberLinks* last = nullptr;
  std::size_t count = 0;
  bool started = false;
  bool has_task = false;  // its task was made
  bool dropped = false;   // and destroyed before it ran
};

template <class Traits>
class BatchCore {
  using Env = typename Traits::Env;
  using Call = typename Traits::Call;
  using Owner = typename Traits::Owner;

 public:
  explicit BatchCore(std::size_t max_size) noexcept : max_size_(max_size) {}

  struct Place {
    Owner call{};         // null: the Batcher is gone
    bool opened = false;  // the caller makes the call's task
  };
  /// Puts a member into the open call, or opens one.
  Place join(BatchMemberLinks& member);
  /// Takes a member out; false if its call has started, and owns it.
  bool leave(Call& call, BatchMemberLinks& member) noexcept;
  /// Nobody joins or leaves any more: the members, from now on the caller's, linked by `next`; none
  /// the second time.
  BatchMemberLinks* start(Call& call) noexcept;
  /// The call's task has been made; true if it is already gone again, and the caller must settle
  /// the members.
  bool made_task(Call& call) noexcept;
  /// The call's task is destroyed before it ran; true if it had been made, and the caller must
  /// settle the members. Else whoever could not make it does, and knows the error.
  bool dropped_task(Call& call) noexcept;
  /// The Batcher is gone: the members of the open call, from now on the caller's. Calls that are
  /// full and have not started let go of theirs when they come to it.
  BatchMemberLinks* die() noexcept;
  bool dead() noexcept;

 private:
  static BatchMemberLinks* take(Call& call) noexcept;

  const std::size_t max_size_;
  SpinLock<Env> lock_;
  Owner open_{};
  bool dead_ = false;
};

template <class Traits>
typename BatchCore<Traits>::Place BatchCore<Traits>::join(BatchMemberLinks& member) {
  Place place;
  Owner fresh{};
  bool full = false;
  for (;;) {
    {
      std::lock_guard guard(lock_);
      if (dead_) return Place();
      if (open_ == nullptr && fresh != nullptr) {
        open_ = std::move(fresh);
        place.opened = true;
      }
      if (open_ != nullptr) {
        place.call = open_;
        Call& call = *open_;
        member.prev = call.last;
        member.next = nullptr;
        (call.last != nullptr ? call.last->next : call.first) = &member;
        call.last = &member;
        full = ++call.count == max_size_;
        if (full && !Env::mutant(Mutant::batch_full_stays_open)) open_ = nullptr;
        break;
      }
    }
    fresh = Traits::make();  // not under the lock
  }
  if (full) Traits::go(*place.call);
  return place;
}

template <class Traits>
bool BatchCore<Traits>::leave(Call& call, BatchMemberLinks& member) noexcept {
  Owner empty{};
  {
    std::lock_guard guard(lock_);
    if (call.started && !Env::mutant(Mutant::batch_leaves_started)) return false;
    (member.prev != nullptr ? member.prev->next : call.first) = member.next;
    (member.next != nullptr ? member.next->prev : call.last) = member.prev;
    // An empty call is not made: whoever comes next opens another, with a delay of its own.
    if (--call.count == 0 && open_ != nullptr && &*open_ == &call) empty = std::move(open_);
    if (empty != nullptr) open_ = Env::mutant(Mutant::batch_empty_stays_open) ? empty : nullptr;
  }
  if (empty != nullptr) Traits::go(*empty);
  return true;
}

// Under the lock.
template <class Traits>
BatchMemberLinks* BatchCore<Traits>::take(Call& call) noexcept {
  call.started = true;
  call.last = nullptr;
  return std::exchange(call.first, nullptr);
}

template <class Traits>
BatchMemberLinks* BatchCore<Traits>::start(Call& call) noexcept {
  Owner closed{};
  std::lock_guard guard(lock_);
  if (open_ != nullptr && &*open_ == &call && !Env::mutant(Mutant::batch_started_stays_open)) {
    closed = std::move(open_);  // never the last to hold it
    open_ = nullptr;
  }
  return take(call);
}

template <class Traits>
bool BatchCore<Traits>::made_task(Call& call) noexcept {
  std::lock_guard guard(lock_);
  call.has_task = true;
  return call.dropped;
}

template <class Traits>
bool BatchCore<Traits>::dropped_task(Call& call) noexcept {
  std::lock_guard guard(lock_);
  call.dropped = !Env::mutant(Mutant::batch_dropped_unsaid);
  return call.has_task;
}

template <class Traits>
BatchMemberLinks* BatchCore<Traits>::die() noexcept {
  Owner open{};
  BatchMemberLinks* members = nullptr;
  {
    std::lock_guard guard(lock_);
    dead_ = true;
    open = std::move(open_);
    open_ = nullptr;
    if (open != nullptr) members = take(*open);
  }
  if (open != nullptr) Traits::go(*open);
  return members;
}

template <class Traits>
bool BatchCore<Traits>::dead() noexcept {
  std::lock_guard guard(lock_);
  return dead_;
}

}  // namespace magpie::detail
