// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of a worker that forks touch: its deque and the executor's word of attention.
//
// Items of the deque are addresses with a tag in the low bits: a Runnable to run, or a child of a join that has not started
// (`kForkTag`). Only the worker's own thread calls these functions.

#include <atomic>
#include <cstdint>

#include <magpie/detail/deque.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/runnable.h>

namespace magpie::detail {

inline constexpr std::uintptr_t kForkTag = 1;
inline constexpr std::uintptr_t kTagMask = 3;

/// Bits of the word of attention: one relaxed load after each push and each hop tells whether anything else wants the worker.
namespace attention {
inline constexpr std::uint32_t kSleepers = 1;  // somebody sleeps and nobody has been woken since
inline constexpr std::uint32_t kInbox = 2;     // the injection queue holds work
inline constexpr std::uint32_t kLoop = 4;      // shutdown, resize: the loop has to look
inline constexpr std::uint32_t kFence = 8;     // there is no membarrier: a fork has a fence to make. Always set, or never
}  // namespace attention

struct LocalQueue {
  Deque<StdEnv> deque;
  Executor* executor = nullptr;
  const std::atomic<std::uint32_t>* attention = nullptr;

  /// Called when the word is not zero. True: the caller leaves what it was about to do to the loop.
  bool (*attend)(LocalQueue*) noexcept = nullptr;

  bool wanted() noexcept { return attention->load(std::memory_order_relaxed) != 0 && attend(this); }
};

}  // namespace magpie::detail
