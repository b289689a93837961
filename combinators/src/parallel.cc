// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/local_queue.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/loop.h>
#include <magpie/errors.h>

namespace magpie::detail {
namespace {

// An automatic grain cuts the range into so many for each thread: enough that the last one to end
// is not missed much, few enough that what lies between two grains, a few nanoseconds, does not
// matter.
constexpr std::uint64_t kGrainsPerThread = 64;
// And is no larger than this, so that a cancellation is seen soon in a range of any size.
constexpr std::uint64_t kLargestAutomaticGrain = 1 << 16;
// And, unless it is smaller, a multiple of this, so that a grain over an array begins where a
// vector, and a cache line, begins if the array does: no access within it is split in two, and
// neighbours do not write to the same line.
constexpr std::uint64_t kAutomaticStep = 64;
// Pieces are cut beforehand until there are so many for each thread: where a single grain takes
// long, nobody would come by to see that others have run out of work. Smaller ones are cut only
// when that is seen.
constexpr std::uint64_t kPiecesPerThread = 4;
// After so many grains others have a turn who wait on this worker.
constexpr unsigned kTurn = 64;

// Whether somebody else would run if this thread went to its loop; the neighbour that was cut off
// last does not count.
bool others_wait(LocalQueue& queue, const Piece& piece) noexcept {
  const auto deque = queue.deque.owner();
  const std::size_t size = deque.size_hint();
  return size > 1 ||
         (size == 1 && deque.peek() != reinterpret_cast<std::uintptr_t>(piece.youngest));
}

}  // namespace

bool Loop::start(Scope& scope, std::coroutine_handle<> parent, Piece& root,
                 std::uint64_t count) noexcept {
  scope_ = &scope;
  parent_ = parent;
  home_ = current_executor();
  if (scope.cancelled()) [[unlikely]] {
    stopped_.store(kCancelled, std::memory_order_relaxed);
    return false;
  }
  if (grain_ < count) {
    const std::uint64_t threads = std::max<std::uint64_t>(home_->thread_count(), 1);
    if (grain_ == 0) {
      grain_ = std::clamp<std::uint64_t>(count / (threads * kGrainsPerThread), 1,
                                         kLargestAutomaticGrain);
      if (grain_ > kAutomaticStep) grain_ -= grain_ % kAutomaticStep;
    }
    eager_ = std::max(grain_, count / (threads * kPiecesPerThread));
    if (threads == 1 && local_queue() == nullptr)
      eager_ = grain_;  // the simulator: any order is to be seen
  }
  root.how = &kRunPiece;
  root.loop = this;
  root.last = count;
  return !work(root);
}

void Loop::run_piece(Runnable* node) noexcept {
  auto& piece = *static_cast<Piece*>(node);
  piece.begun = true;
  Loop& loop = *piece.loop;
  install_locals(*loop.scope_);
  if (loop.work(piece)) resume_strand(loop.parent_, loop.scope_);
}

// L1 to L3. True: the loop has ended, and the parent is the caller's to resume. False: nothing of
// the loop may be touched any more.
bool Loop::work(Piece& piece) noexcept {
  LocalQueue* const queue = local_queue();  // no coroutine here: the thread stays the same
  for (unsigned turn = 0;;) {
    if (scope_->cancelled()) [[unlikely]]
      stopped_.fetch_or(kCancelled, std::memory_order_relaxed);
    if (stopped_.load(std::memory_order_relaxed) != 0) [[unlikely]]
      return finish(piece);
    const std::uint64_t left = piece.last - piece.first;
    if (left > grain_) {
      const bool offer =
          left > eager_ || (queue != nullptr && queue->deque.owner().size_hint() == 0);
      if (offer && cut(piece)) continue;
    }
    const std::uint64_t end = piece.first + std::min(left, grain_);
    try {
      kind_->run(piece, piece.first, end);
    } catch (...) {
      fail();
      return finish(piece);
    }
    piece.first = end;
    if (end == piece.last && (queue == nullptr || !take_back(*queue, piece))) return finish(piece);
    // L3. The inbox, a resize, or others on this worker: the piece waits behind them, as what it
    // is.
    const bool wanted = queue != nullptr && queue->wanted();
    if (++turn < kTurn && !wanted) [[likely]]
      continue;
    turn = 0;
    if (!wanted && queue != nullptr && !others_wait(*queue, piece)) continue;
    home_->schedule_behind(piece);
    return false;
  }
}

// L2. The left half keeps a whole number of grains, so that they begin at the same places however
// the range is cut. False: there is no memory for another piece, so this one goes on whole.
bool Loop::cut(Piece& piece) noexcept {
  Piece* const right = kind_->make();
  if (right == nullptr) return false;
  const std::uint64_t left = piece.last - piece.first;
  const std::uint64_t grains = left / grain_ + (left % grain_ != 0 ? 1 : 0);
  const std::uint64_t middle = piece.first + (grains - grains / 2) * grain_;
  right->how = &kRunPiece;
  right->loop = this;
  right->first = middle;
  right->last = piece.last;
  link_right(piece, *right);
  piece.last = middle;
  home_->schedule(*right);
  return true;
}

// L4. True: the neighbour that was cut off last lay in this worker's deque, as it was put there.
bool Loop::take_back(LocalQueue& queue, Piece& piece) noexcept {
  if (piece.youngest == nullptr) return false;
  const auto item = reinterpret_cast<std::uintptr_t>(piece.youngest);
  auto deque = queue.deque.owner();
  // What lies at this end is what the look has shown, or it was the last item and is stolen.
  if (deque.peek() != item || deque.pop() != item) return false;
  if (piece.youngest->begun) [[unlikely]] {  // by a thief, and came back
    home_->schedule(*piece.youngest);
    return false;
  }
  kind_->destroy(&absorb_right<StdEnv>(piece));
  return true;
}

bool Loop::finish(Piece& piece) noexcept {
  return finish_piece<StdEnv>(&piece, [this](Piece& left, Piece& right) { join(left, right); });
}

// L7.
void Loop::join(Piece& left, Piece& right) noexcept {
  // A piece that left something out saw the mark, and with it whoever joins it: there are no values
  // then.
  if (kind_->join != nullptr && stopped_.load(std::memory_order_relaxed) == 0) {
    try {
      kind_->join(left, right);
    } catch (...) {
      fail();
    }
  }
  kind_->destroy(&right);
}

// In a catch handler. The first error is kept, and the first CancelledError that a function threw
// by itself.
void Loop::fail() noexcept {
  Slot<void> outcome;
  outcome.capture_current_exception();
  const bool cancelled = outcome.state() == SlotState::cancelled;
  const std::uint32_t bit = cancelled ? kCancelledItself : kFailed;
  // Relaxed: who set the bit writes the slot, and L6 orders that before the end.
  if ((stopped_.fetch_or(bit, std::memory_order_relaxed) & bit) != 0) return;
  (cancelled ? cancelled_ : error_) = std::move(outcome);
}

void Loop::throw_failure() const {
  if (!error_.empty()) error_.require_value();
  if (ReasonRef reason = scope_->reason()) throw CancelledError(std::move(reason));
  if (!cancelled_.empty()) cancelled_.require_value();
  throw CancelledError();  // not reached: a scope stays cancelled until it is left
}

}  // namespace magpie::detail
