// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an executor runs: an intrusive node with a function. It lies in the frame or record of
// whatever wants to go on, so handing one to an executor never allocates and never fails.
//
// A node is in one queue at a time. Whoever schedules it gives it up: the function may run, and the
// memory be gone, before `schedule` returns.

namespace magpie::detail {

struct Runnable {
  // Both are set before the node is scheduled; a fork that nobody steals is never scheduled and
  // never pays for them.
  Runnable() noexcept {}

  Runnable* next;                   // belongs to the queue that holds the node
  void (*run)(Runnable*) noexcept;  // called once, on a thread of the executor
};

}  // namespace magpie::detail
