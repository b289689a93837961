// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an executor runs: an intrusive node, and how it is run. It lies in the frame or record of
// whatever wants to go on, so handing one to an executor never allocates and never fails.
//
// A node is in one queue at a time. Whoever schedules it gives it up: the function may run, and the
// memory be gone, before `schedule` returns.
//
// A wait is a node from its beginning to its end, and there are as many of these as a program has
// waits, so a node is two words. It need not know where it goes once it is there: the link lies in
// that place. And how it is run is a pointer to what is the same for all of its kind, where a wait
// finds the rest of that (BasicWaitKind) as well.

#include <cstdint>

#include <magpie/detail/fwd.h>

namespace magpie::detail {

struct Runnable;

/// What is the same for all nodes of a kind.
struct RunKind {
  void (*run)(Runnable*) noexcept;  // called once, on a thread of the executor
};

struct Runnable {
  // Both are set before the node is scheduled; a fork that nobody steals is never scheduled and
  // never pays for them.
  Runnable() noexcept {}

  /// By the executor, once the node is out of its queue: it may be gone when this returns.
  void run() noexcept { how->run(this); }

  union {
    // Of a wait, until it is scheduled: where the waiting strand goes on. Whoever waits again with
    // the same node says it again.
    Executor* executor;
    Runnable* next;  // belongs to the queue that holds the node
  };
  const RunKind* how;
};

/// An address with a tag in its low bits. As an address, not as a number with a bit set: compilers
/// make that, and what led to the object, one instruction.
inline std::uintptr_t tagged(const void* object, std::uintptr_t tag) noexcept {
  return reinterpret_cast<std::uintptr_t>(static_cast<const char*>(object) + tag);
}

/// One child of a join: what all of them have in common, so that a combinator need not know which
/// of them has a frame. A wait has one, too: given to a combinator it is a child as it is, and the
/// pointer stands for something else where a coroutine awaits it.
struct Rec {
  Rec() noexcept {}

  union {
    Join* join;
    void* behind;  // what goes on after a wait that is no child: see OperationBase
  };
  std::uint32_t index;  // which child it is
};

}  // namespace magpie::detail
