// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Bindings of task-locals: a list of frames from the innermost `with` outwards. The frames of
// running `with`s lie in coroutine frames; spawn() copies the list it finds, because the new task
// may outlive them.
//
// A strand that goes on from a queue does not look for its bindings: the thread notes the scope
// where it stands, and who asks looks from there. The note is good as long as this thread runs the
// strand and that is below the scope. So leaving the scope puts the note further out; what runs on
// when its strand may be elsewhere has copies (a foreign await_suspend), and a simulator that
// destroys strands where they wait forgets the note first. A scope that was never linked is left
// by two loads, with no word to anybody: hence whoever notes a scope links it.
//
// Programs that use no task-local pay one relaxed load where a strand is resumed from a queue, one
// where a scope is left in which something waited or that was cancelled, and nothing elsewhere. In
// those that use one, a scope in which a strand goes on from a queue is linked and unlinked: twice
// the lock of its parent.

#include <atomic>
#include <memory>

#include <magpie/config.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/scope.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

class LocalsSnapshot;  // detail/task_extras.h

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

/// By each `with`.
inline void use_locals() noexcept {
  // Only once: everybody reads it. Relaxed: see install_locals().
  if (!locals_in_use.load(std::memory_order_relaxed)) [[unlikely]]
    locals_in_use.store(true, std::memory_order_relaxed);
}

/// The innermost binding of who stands in `scope`: a walk outwards, for who asks for a value.
MAGPIE_EXPORT const LocalsFrame* find_locals(const Scope& scope) noexcept;

/// That of what this thread runs. ThreadState::locals is the binding, or the note of a scope, until
/// the first who asks replaces it by the binding.
MAGPIE_EXPORT const LocalsFrame* locals_here() noexcept;

/// install_locals() where a task-local is in use: the note.
MAGPIE_EXPORT void stand_in(Scope& scope) noexcept;

/// What this thread runs leaves the scope: a note of it becomes one of its parent.
MAGPIE_EXPORT void stand_no_longer_in(const Scope& scope) noexcept;

/// Before a strand that stands in `scope` goes on from a queue: plain functions that it calls find
/// its bindings.
inline void install_locals(Scope& scope) noexcept {
  // Relaxed: a strand that stands below a `with` was ordered after it, and so after the store, or
  // a load that saw it.
  if (locals_in_use.load(std::memory_order_relaxed)) [[unlikely]]
    stand_in(scope);
}

/// After a strand has left this thread: functions that are called between two strands find none of
/// its bindings, which may be gone.
inline void forget_locals() noexcept {
  if (locals_in_use.load(std::memory_order_relaxed)) [[unlikely]]
    this_thread()->locals = nullptr;
}

/// For code that may run on when its strand has gone on elsewhere, and left what its bindings lie
/// in: as long as this lives, the thread has copies of them, and afterwards none. Throws what
/// copying the values throws, or std::bad_alloc.
class MAGPIE_EXPORT LocalsCopy {
 public:
  LocalsCopy();
  ~LocalsCopy();
  LocalsCopy(const LocalsCopy&) = delete;
  LocalsCopy& operator=(const LocalsCopy&) = delete;
  /// The strand has not gone: afterwards the thread has its bindings.
  void strand_stays() noexcept { stays_ = true; }

 private:
  std::unique_ptr<LocalsSnapshot> copy_;
  const LocalsFrame* own_ = nullptr;
  bool stays_ = false;
};

/// Resumes a strand that was waiting in `scope`.
inline void resume_strand(std::coroutine_handle<> coroutine, Scope* scope) noexcept {
  install_locals(*scope);
  resume_here(coroutine);
}

}  // namespace magpie::detail
