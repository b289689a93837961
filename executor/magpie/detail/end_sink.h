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

/// Low bits of the word: what it points to, and whether the one who is told asks with what the
/// coroutine has ended. The common ends, after which nobody asks, leave the word in the thread's
/// state, and nothing else.
class Continuation {
 public:
  static constexpr std::uintptr_t kCoroutine = 0;  // an awaiter, which looks into its slot
  static constexpr std::uintptr_t kRec = 1;        // a child's record
  static constexpr std::uintptr_t kTask = 4;       // a task's record: the coroutine is its body
  // Asked: a child or a task that has failed, a child whose join hears of every end, and alone, a
  // sink.
  static constexpr std::uintptr_t kAsked = 2;
  static constexpr std::uintptr_t kSink = kAsked;

  Continuation() noexcept {}  // a frame that has not started tells nobody
  static Continuation to(std::coroutine_handle<> awaiting) noexcept {
    return Continuation(reinterpret_cast<std::uintptr_t>(awaiting.address()));
  }
  static Continuation to(Fork* rec, bool settled = false) noexcept {
    return Continuation(tagged(rec, settled ? kRec | kAsked : kRec));
  }
  static Continuation to(EndSink* sink) noexcept { return Continuation(tagged(sink, kSink)); }
  static Continuation to(TaskRecord* task) noexcept { return Continuation(tagged(task, kTask)); }

  /// As it lies in ThreadState::next.
  static Continuation of_word(std::uintptr_t word) noexcept { return Continuation(word); }
  std::uintptr_t word() const noexcept { return word_; }

  /// The coroutine ends with an error or a cancellation.
  void mark_failed() noexcept {
    if (tag() != kCoroutine) word_ |= kAsked;
  }

  std::uintptr_t tag() const noexcept { return word_ & kTag; }
  bool is_asked() const noexcept { return (word_ & kAsked) != 0; }
  bool is_coroutine() const noexcept { return tag() == kCoroutine; }
  // Plain: not asked.
  bool is_plain_rec() const noexcept { return ((word_ - kRec) & kTag) == 0; }
  bool is_plain_task() const noexcept { return tag() == kTask; }
  bool is_rec() const noexcept { return (word_ & kRec) != 0; }
  bool is_task() const noexcept { return (word_ & kTask) != 0; }

  std::coroutine_handle<> coroutine() const noexcept {
    static_assert(kCoroutine == 0);
    return std::coroutine_handle<>::from_address(reinterpret_cast<void*>(word_));
  }
  Fork* plain_rec() const noexcept { return reinterpret_cast<Fork*>(word_ - kRec); }
  TaskRecord* plain_task() const noexcept { return reinterpret_cast<TaskRecord*>(word_ - kTask); }
  Fork* rec() const noexcept { return reinterpret_cast<Fork*>(word_ & ~kTag); }
  TaskRecord* task() const noexcept { return reinterpret_cast<TaskRecord*>(word_ & ~kTag); }
  EndSink* sink() const noexcept { return reinterpret_cast<EndSink*>(word_ & ~kTag); }

 private:
  explicit Continuation(std::uintptr_t word) noexcept : word_(word) {}
  static constexpr std::uintptr_t kTag = 7;
  std::uintptr_t word_;
};

}  // namespace magpie::detail
