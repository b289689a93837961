// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whom a coroutine tells when it has ended: one tagged word in its promise.

#include <coroutine>
#include <cstdint>

#include <magpie/detail/fwd.h>
#include <magpie/detail/slot.h>

namespace magpie::detail {

/// The end of a coroutine that is neither plainly awaited nor a child of a join: a task's record, mostly.
struct EndSink {
  /// The coroutine's frame is gone, its outcome is in its slot. Returns what this thread runs next.
  std::coroutine_handle<> (*ended)(EndSink*, SlotState) noexcept;
};

class Continuation {
 public:
  Continuation() noexcept {}  // a frame that has not started tells nobody
  static Continuation to(std::coroutine_handle<> awaiting) noexcept {
    return Continuation(reinterpret_cast<std::uintptr_t>(awaiting.address()));
  }
  static Continuation to(Rec* rec) noexcept { return Continuation(reinterpret_cast<std::uintptr_t>(rec) | kRec); }
  static Continuation to(EndSink* sink) noexcept {
    return Continuation(reinterpret_cast<std::uintptr_t>(sink) | kSink);
  }

  bool is_coroutine() const noexcept { return (word_ & kMask) == 0; }
  bool is_rec() const noexcept { return (word_ & kMask) == kRec; }

  std::coroutine_handle<> coroutine() const noexcept {
    return std::coroutine_handle<>::from_address(reinterpret_cast<void*>(word_));
  }
  Rec* rec() const noexcept { return reinterpret_cast<Rec*>(word_ - kRec); }
  EndSink* sink() const noexcept { return reinterpret_cast<EndSink*>(word_ - kSink); }

 private:
  explicit Continuation(std::uintptr_t word) noexcept : word_(word) {}
  static constexpr std::uintptr_t kRec = 1;
  static constexpr std::uintptr_t kSink = 2;
  static constexpr std::uintptr_t kMask = 3;
  std::uintptr_t word_;
};

}  // namespace magpie::detail
