// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What parallel_for, parallel_for_each and parallel_reduce have in common: a range of positions
// that is cut into grains, and workers that share them. combinators/DESIGN.md, "Loops", has the
// protocol; the labels L1 to L7 in the comments are its steps.
//
// A stretch of the range that one thread works through is a *piece*. It starts with the whole
// range, in the awaiting frame, on the awaiting thread. A thread cuts its piece in two and offers
// the right half while the piece is more than a fair part of the loop, and later whenever it has
// nothing in its deque that others could take; so a loop that nobody else has time for is cut a few
// times only, and one that is stolen from as often as it needs. What nobody has taken is the
// thread's own piece again when it comes there, with one value for both.
//
// Not a join: nothing is known of the number of pieces beforehand, and no piece has a coroutine.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include <magpie/config.h>
#include <magpie/detail/atomic.h>
#include <magpie/detail/awaitable.h>
#include <magpie/detail/frame_pool.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/promise.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/slot.h>

namespace magpie::detail {

class Loop;

/// Where two pieces meet that one cut has made: the one that comes to its end later goes on for
/// both.
template <class Env>
class BasicMeeting {
 public:
  /// L6. True: the other side was here before, and both are the caller's. False: both are the other
  /// side's from here on. acq_rel: releases what this side has done, or acquires what the other
  /// has; pairs with itself.
  bool come() noexcept {
    if constexpr (Env::mutant(Mutant::loop_plain_meeting)) {
      const bool there = there_.load(std::memory_order_acquire) != 0;
      there_.store(1, std::memory_order_release);
      return there;
    }
    constexpr auto kOrder = Env::mutant(Mutant::loop_relaxed_meeting) ? std::memory_order_relaxed
                                                                      : std::memory_order_acq_rel;
    return there_.exchange(1, kOrder) != 0;
  }

 private:
  typename Env::template Atomic<std::uint32_t> there_{0};
};

/// The tree of pieces. One thread at a time has a piece: whoever runs it, then whoever joins it.
template <class Env, class P>
struct BasicPieceLinks {
  P* left = nullptr;          // the piece that this one was cut off; null: the first
  P* youngest = nullptr;      // what was cut off last: the neighbour on the right
  P* older = nullptr;         // what was cut off the same piece before this one
  BasicMeeting<Env> meeting;  // with `left`, or with what that has joined
};

/// L2. `piece`, which the caller has, gets a new neighbour on the right.
template <class P>
void link_right(P& piece, P& right) noexcept {
  right.left = &piece;
  right.older = piece.youngest;
  piece.youngest = &right;
}

/// L4. The caller has `piece` and its youngest neighbour, which nobody has begun: it comes off the
/// list, and its stretch is the piece's.
template <class Env, class P>
P& absorb_right(P& piece) noexcept {
  P& right = *piece.youngest;
  if constexpr (!Env::mutant(Mutant::loop_absorbed_in_list)) piece.youngest = right.older;
  piece.last = right.last;
  return right;
}

/// L5 to L7. The caller has a piece whose own stretch is done; `join(left, right)` makes one of
/// two, and ends the right one. True: the first piece is the caller's, and nothing of the loop is
/// left to do. False: nothing of it may be touched any more.
template <class Env, class P, class Join>
bool finish_piece(P* piece, Join&& join) noexcept {
  for (;;) {
    while (P* const right = piece->youngest) {
      // First, so that whoever comes later finds the list without it.
      if constexpr (!Env::mutant(Mutant::loop_late_list)) piece->youngest = right->older;
      if (!right->meeting.come()) return false;
      if constexpr (Env::mutant(Mutant::loop_late_list)) piece->youngest = right->older;
      join(*piece, *right);
    }
    P* const left = piece->left;
    if (left == nullptr) return true;
    if (!piece->meeting.come()) return false;
    join(*left, *piece);  // the left side was here before, and took this piece off its list
    piece = left;
  }
}

/// A stretch [first, last) of a loop.
struct Piece : Runnable, BasicPieceLinks<StdEnv, Piece> {
  Loop* loop = nullptr;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  bool begun = false;
};

/// What is to be done with pieces, by the kind of loop.
struct LoopKind {
  void (*run)(Piece& piece, std::uint64_t first, std::uint64_t last);  // a grain; may throw
  Piece* (*make)() noexcept;                                           // null: no memory
  void (*join)(Piece& left, Piece& right);  // their values; null: they have none; may throw
  void (*destroy)(Piece* piece) noexcept;   // what make() made
};

/// The part of a loop that does not depend on types. Moved until it is started.
class MAGPIE_EXPORT Loop {
 public:
  Loop(const LoopKind& kind, std::size_t grain) noexcept : kind_(&kind), grain_(grain) {}
  // A moved loop starts afresh: it has not been started. What it was moved from cannot be.
  Loop(Loop&& other) noexcept : kind_(std::exchange(other.kind_, nullptr)), grain_(other.grain_) {}
  Loop& operator=(Loop&&) = delete;

 protected:
  ~Loop() = default;

  /// A loop is awaited once.
  void require() const {
    if (kind_ == nullptr || scope_ != nullptr) [[unlikely]]
      throw_awaited_twice();
  }

  /// Works on [0, count), with the whole range as `root`. False: it has ended already. True: the
  /// coroutine is resumed when it has, maybe before this returns.
  bool start(Scope& scope, std::coroutine_handle<> parent, Piece& root,
             std::uint64_t count) noexcept;

  /// After the end: throws what stopped the loop, if anything did.
  void conclude() const {
    if (stopped_.load(std::memory_order_relaxed) != 0) [[unlikely]]
      throw_failure();  // ordered by L6
  }

 private:
  static void run_piece(Runnable* node) noexcept;
  static constexpr RunKind kRunPiece{&run_piece};
  bool work(Piece& piece) noexcept;
  bool take_back(LocalQueue& queue, Piece& piece) noexcept;
  bool finish(Piece& piece) noexcept;
  bool cut(Piece& piece) noexcept;
  void join(Piece& left, Piece& right) noexcept;
  MAGPIE_COLD void fail() noexcept;
  [[noreturn]] MAGPIE_COLD void throw_failure() const;

  const LoopKind* kind_;
  std::uint64_t grain_;
  std::uint64_t eager_ = 0;  // larger pieces are cut whether others have work or not
  Scope* scope_ = nullptr;
  Executor* home_ = nullptr;
  std::coroutine_handle<> parent_;
  // Why the rest is left out: bits of these. Nothing more is begun when one is set.
  static constexpr std::uint32_t kCancelled = 1;  // from outside
  static constexpr std::uint32_t kFailed = 2;     // an error, the first of them in error_
  static constexpr std::uint32_t kCancelledItself =
      4;  // a function threw a CancelledError, the first in cancelled_
  std::atomic<std::uint32_t> stopped_{0};
  Slot<void> error_;
  Slot<void> cancelled_;
};

/// Memory for a piece of type P from the frame cache; null when memory is short.
template <class P>
P* allocate_piece() noexcept {
  try {
    if constexpr (alignof(P) > __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
      return new P();
    } else {
      return ::new (allocate_frame(sizeof(P))) P();
    }
  } catch (...) {
    return nullptr;
  }
}
template <class P>
void free_piece(P* piece) noexcept {
  if constexpr (alignof(P) > __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
    delete piece;
  } else {
    std::destroy_at(piece);
    detail::free_frame(piece, sizeof(P));
  }
}

/// A loop over positions that gives no value. Derived has `run_grain(first, last)`, to be called by
/// many threads at once, and `size()`.
template <class Derived>
class PlainLoop : public CombinatorBase, protected Loop {
 public:
  using value_type = void;

  explicit PlainLoop(std::size_t grain) noexcept : Loop(kKind, grain) {}
  PlainLoop(PlainLoop&& other) noexcept : Loop(std::move(other)) {}

  bool await_ready() {
    require();
    return (size_ = static_cast<Derived&>(*this).size()) == 0;
  }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    return start(*awaiting.promise().scope, awaiting, root_, size_);
  }
  void await_resume() const { conclude(); }

 private:
  static constexpr LoopKind kKind{
      [](Piece& piece, std::uint64_t first, std::uint64_t last) {
        static_cast<Derived*>(static_cast<PlainLoop*>(piece.loop))->run_grain(first, last);
      },
      []() noexcept -> Piece* { return allocate_piece<Piece>(); },
      nullptr,
      [](Piece* piece) noexcept { free_piece(piece); },
  };

  std::uint64_t size_ = 0;
  Piece root_;
};

}  // namespace magpie::detail
