// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whom a coroutine tells when it has ended: one tagged word in its promise.

#include <coroutine>
#include <cstdint>

#include <magpie/detail/fwd.h>
#include <magpie/detail/runnable.h>
#include <magpie/detail/slot.h>

namespace magpie::detail {

/// The end of a coroutine that is neither plainly awaited nor a child of a join, nor a task's own.
struct EndSink {
  /// The coroutine's frame is gone, its outcome is in its slot. Returns what this thread runs next.
  std::coroutine_handle<> (*ended)(EndSink*, SlotState) noexcept;
  Executor* waits_at;  // where a combinator's parent waits for it
};

/// Low bits of the word: what it points to, and whether the coroutine has failed. A value that goes
/// to an awaiter or to a child's record, the two common ends, is told from everything else by one
/// comparison each.
class Continuation {
 public:
  static constexpr std::uintptr_t kCoroutine = 0;
  static constexpr std::uintptr_t kRec = 1;  // a child whose join hears of failures only
  static constexpr std::uintptr_t kSink = 2;
  static constexpr std::uintptr_t kSettledRec = 3;  // a child whose join hears of every end
  static constexpr std::uintptr_t kFailed = 4;

  Continuation() noexcept {}  // a frame that has not started tells nobody
  static Continuation to(std::coroutine_handle<> awaiting) noexcept {
    return Continuation(reinterpret_cast<std::uintptr_t>(awaiting.address()));
  }
  static Continuation to(Fork* rec, bool settled = false) noexcept {
    return Continuation(tagged(rec, settled ? kSettledRec : kRec));
  }
  static Continuation to(EndSink* sink) noexcept {
    return Continuation(reinterpret_cast<std::uintptr_t>(sink) | kSink);
  }
  /// A task's own end, a sink of null: its record is found from the scope.
  static Continuation to_task() noexcept { return Continuation(kSink); }

  /// The coroutine ends with an error or a cancellation.
  void mark_failed() noexcept { word_ |= kFailed; }

  std::uintptr_t tag() const noexcept { return word_ & kTag; }  // the kind, and kFailed
  bool is_task() const noexcept { return (word_ & ~kFailed) == kSink; }
  bool is_coroutine() const noexcept { return (word_ & kKind) == kCoroutine; }
  bool is_rec() const noexcept { return (word_ & kRec) != 0; }

  std::coroutine_handle<> coroutine() const noexcept {
    return std::coroutine_handle<>::from_address(reinterpret_cast<void*>(word_ & ~kTag));
  }
  Fork* rec() const noexcept { return reinterpret_cast<Fork*>(word_ & ~kTag); }
  EndSink* sink() const noexcept { return reinterpret_cast<EndSink*>(word_ & ~kTag); }

 private:
  explicit Continuation(std::uintptr_t word) noexcept : word_(word) {}
  static constexpr std::uintptr_t kKind = 3;
  static constexpr std::uintptr_t kTag = 7;
  std::uintptr_t word_;
};

}  // namespace magpie::detail
