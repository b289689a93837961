// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of a worker that forks touch: its deques and the executor's word of attention.
//
// Items of the deque are addresses with a tag in the low bits: a Runnable to run, or a child of a
// join that has not started (`kForkTag`), or several of them (`kBundleTag`). Jobs of fork_join lie
// in a deque of their own (job.h). Only the worker's own thread calls these functions.

#include <atomic>
#include <cstdint>

#include <magpie/detail/deque.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/runnable.h>

namespace magpie::detail {

struct RegistryShard;

inline constexpr std::uintptr_t kForkTag = 1;
inline constexpr std::uintptr_t kJobTag = 2;     // a Job, once a thief has it
inline constexpr std::uintptr_t kBundleTag = 3;  // a Fork, and with it some of those behind it
inline constexpr std::uintptr_t kTagMask = 3;
inline bool is_fork(std::uintptr_t item) noexcept {
  return ((item - kForkTag) & kTagMask) == 0;
}
inline bool is_bundle(std::uintptr_t item) noexcept {
  return (item & kTagMask) == kBundleTag;
}
/// One or several children that have not started.
inline bool is_unstarted(std::uintptr_t item) noexcept {
  return (item & (kForkTag & kBundleTag)) != 0;
}

/// Bits of the word of attention: one relaxed load after each push and each hop tells whether
/// anything else wants the worker.
namespace attention {
inline constexpr std::uint32_t kSleepers = 1;  // somebody sleeps and nobody has been woken since
inline constexpr std::uint32_t kInbox = 2;  // the injection queue holds work, or did a moment ago
inline constexpr std::uint32_t kLoop = 4;   // shutdown, resize: the loop has to look
inline constexpr std::uint32_t kFence =
    8;  // there is no membarrier: a fork has a fence to make. Always set, or never
inline constexpr std::uint32_t kWaiters =
    16;  // somebody sleeps who waits for a job, and none of those has been woken since
inline constexpr std::uint32_t kNappers = 32;  // somebody has seen only strands that are passed on,
                                               // naps, and none of those has been woken since

// What a hop of a coroutine looks at, what a push does, and what a fork of functions does.
inline constexpr std::uint32_t kForHops = kSleepers | kInbox | kLoop | kFence;
inline constexpr std::uint32_t kForPushes = kForHops | kNappers;
inline constexpr std::uint32_t kForJobs = kSleepers | kFence | kWaiters | kNappers;
}  // namespace attention

struct LocalQueue {
  Deque<StdEnv> deque;
  Executor* executor = nullptr;
  const std::atomic<std::uint32_t>* attention = nullptr;

  /// Called when noticed() says so. True: the caller leaves what it was about to do to the loop.
  bool (*attend)(LocalQueue*) noexcept = nullptr;

  Deque<StdEnv> jobs;

  RegistryShard* shard = nullptr;  // where this thread lists and counts what it starts and ends

  bool noticed() const noexcept {
    return (attention->load(std::memory_order_relaxed) & attention::kForHops) != 0;
  }
  /// The same after a push.
  bool noticed_after_push() const noexcept {
    return (attention->load(std::memory_order_relaxed) & attention::kForPushes) != 0;
  }
  /// Whether anything but the worker's own deque wants its thread back at the loop.
  bool loop_is_wanted() const noexcept {
    return (attention->load(std::memory_order_relaxed) & (attention::kInbox | attention::kLoop)) !=
           0;
  }
  bool wanted() noexcept { return noticed_after_push() && attend(this); }
};

}  // namespace magpie::detail
