// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Bindings of task-locals: a list of frames from the innermost `with` outwards. The frames of
// running `with`s lie in coroutine frames; spawn() copies the list it finds, because the new task
// may outlive them.
//
// Programs that use no task-local pay one relaxed load where a strand is resumed from a queue, and
// nothing elsewhere.

#include <atomic>
#include <memory>

#include <magpie/config.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

struct LocalsFrame {
  const LocalsFrame* outer = nullptr;
  const void* key = nullptr;
  std::shared_ptr<const void> value;
};

/// The scope that a `with` opens.
struct LocalsScope : Scope {
  LocalsFrame frame;
};

/// Set once, by the first `with` of the process.
MAGPIE_EXPORT extern constinit std::atomic<bool> locals_in_use;

MAGPIE_EXPORT const LocalsFrame* find_locals(const Scope& scope) noexcept;

/// Before a strand that stands in `scope` goes on from a queue: plain functions that it calls find
/// its bindings.
inline void install_locals(const Scope& scope) noexcept {
  // Relaxed: a strand that stands below a `with` was ordered after it, and so after the store.
  if (locals_in_use.load(std::memory_order_relaxed)) [[unlikely]] {
    this_thread()->locals = const_cast<LocalsFrame*>(find_locals(scope));
  }
}

/// After a strand has left this thread: functions that are called between two strands find none of
/// its bindings, which may be gone.
inline void forget_locals() noexcept {
  if (locals_in_use.load(std::memory_order_relaxed)) [[unlikely]]
    this_thread()->locals = nullptr;
}

/// Resumes a strand that was waiting in `scope`.
inline void resume_strand(std::coroutine_handle<> coroutine, const Scope* scope) noexcept {
  install_locals(*scope);
  resume_here(coroutine);
}

}  // namespace magpie::detail
