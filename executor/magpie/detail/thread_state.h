// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a thread knows about itself: whose worker it is, and where its stack gets low.
//
// A coroutine may be on another thread after every suspension, so nothing of this may be kept
// across one. `thread_state()` reads the thread register afresh at each call and cannot be cached
// by the compiler; do not keep or compare what it returns.

#include <coroutine>
#include <cstddef>
#include <cstdint>

#include <magpie/config.h>
#include <magpie/detail/fwd.h>

namespace magpie::detail {

struct LocalsFrame;

inline constexpr std::size_t kFrameClasses = 40;  // see frame_pool.h

struct Magazine;  // free frames of one size class: frame_depot.h

struct ThreadState {
  LocalQueue* queue;           // this thread is a worker with a deque
  Executor* executor;          // the thread runs work of this executor just now
  std::uintptr_t next;         // what resume_here() goes on with, a Continuation; 0: nothing
  std::uintptr_t stack_limit;  // frames below this address bounce; 0: never
  LocalsFrame* locals;         // task-locals of what runs, for plain functions such as spawn()
  std::uint64_t next_id;       // task ids are handed out in blocks
  std::uint64_t last_id;
  std::uint32_t index;  // small number of this thread, for picking shards; 0: none yet
  bool frames_open;    // the frame cache may keep memory: its clean-up at thread exit is registered
  bool frames_closed;  // that clean-up has run
  std::uint32_t destroying;       // unstarted frames that are being destroyed, one within the other
  void* doomed;                   // more of them, for when the outermost is gone
  void** shelves[kFrameClasses];  // to the frame that is taken next: frame_pool.h
  Magazine* spares[kFrameClasses];  // a second magazine beside each shelf, full or empty, or null
  SlotState ended_as;  // if next is asked for it: what the slot of the coroutine that ended holds
  void (*divert)(
      std::coroutine_handle<>) noexcept;  // takes what would be resumed: the simulator destroys it
};

MAGPIE_EXPORT extern constinit thread_local ThreadState tls_thread_state asm(
    "magpie_thread_state_v1") __attribute__((tls_model("initial-exec")));

#if defined(__x86_64__) && defined(__linux__)
inline ThreadState* thread_state() noexcept {
  ThreadState* state;
  // volatile: neither hoisted, nor merged with the same read on the other side of a suspension.
  asm volatile(
      "movq %%fs:0, %0\n\t"
      "addq magpie_thread_state_v1@gottpoff(%%rip), %0"
      : "=r"(state)
      :
      : "cc");
  return state;
}
#elif defined(__aarch64__) && defined(__linux__)
inline ThreadState* thread_state() noexcept {
  ThreadState* state;
  std::uintptr_t offset;
  asm volatile(
      "mrs %0, tpidr_el0\n\t"
      "adrp %1, :gottprel:magpie_thread_state_v1\n\t"
      "ldr %1, [%1, :gottprel_lo12:magpie_thread_state_v1]\n\t"
      "add %0, %0, %1"
      : "=&r"(state), "=r"(offset));
  return state;
}
#else
MAGPIE_EXPORT MAGPIE_NOINLINE ThreadState* thread_state() noexcept;
#endif

// The same for what is inlined into coroutines: where the thread register is an address space of
// its own, each access to a field is one instruction, and no address is computed before.
#if defined(__clang__) && defined(__x86_64__) && defined(__linux__) && !defined(MAGPIE_SHADOWED)
using ThisThread = ThreadState __attribute__((address_space(257)))*;
inline ThisThread this_thread() noexcept {
  std::uintptr_t offset;
  // volatile: else it would be read once for both sides of a suspension, and kept in the frame.
  asm volatile("movq magpie_thread_state_v1@gottpoff(%%rip), %0" : "=r"(offset));
  return reinterpret_cast<ThisThread>(offset);
}
#else
using ThisThread = ThreadState*;
inline ThisThread this_thread() noexcept {
  return thread_state();
}
#endif

inline Executor* current_executor() noexcept {
  return this_thread()->executor;
}
inline LocalQueue* local_queue() noexcept {
  return this_thread()->queue;
}

/// A small number for this thread, from 1.
MAGPIE_EXPORT std::uint32_t assign_thread_index() noexcept;
inline std::uint32_t thread_index() noexcept {
  const std::uint32_t index = this_thread()->index;
  return index != 0 ? index : assign_thread_index();
}

/// The next task id. Threads take ids in blocks, so that spawning shares no line.
MAGPIE_EXPORT void take_task_ids() noexcept;
inline TaskId next_task_id(ThreadState& here) noexcept {
  if (here.next_id == here.last_id) [[unlikely]]
    take_task_ids();
  return static_cast<TaskId>(here.next_id++);
}

// --- transfers -----------------------------------------------------------------------------------
//
// clang makes a guaranteed tail call of every symmetric transfer. g++ before 14 does so only when
// it optimises, and not under sanitizers; so there, each transfer compares its frame address with
// the thread's mark and, below it, leaves the handle to the loop that resumed the chain: the stack
// unwinds and the coroutine goes on from the top.

#if defined(__clang__)
inline std::coroutine_handle<> transfer(std::coroutine_handle<> to) noexcept {
  return to;
}
#else
inline __attribute__((always_inline)) std::coroutine_handle<> transfer(
    std::coroutine_handle<> to) noexcept {
  ThreadState* const state = thread_state();
#if defined(__x86_64__)
  std::uintptr_t here;  // not __builtin_frame_address(), for which the function has to keep a frame
  asm("movq %%rsp, %0" : "=r"(here));
#elif defined(__aarch64__)
  std::uintptr_t here;
  asm("mov %0, sp" : "=r"(here));
#else
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
#endif
  if (here >= state->stack_limit) [[likely]]
    return to;
  state->next = reinterpret_cast<std::uintptr_t>(to.address());
  return std::noop_coroutine();
}
#endif

/// Resumes a coroutine from a loop or a Runnable's function, and then whatever goes on after it: a
/// coroutine that ends runs off its end and leaves in ThreadState::next whom it tells. Nests, as a
/// coroutine's parameters may have destructors that come here.
MAGPIE_EXPORT void resume_here(std::coroutine_handle<> coroutine) noexcept;

/// While it lives, this thread runs work of `executor`; nests.
class ExecutorThreadScope {
 public:
  MAGPIE_EXPORT ExecutorThreadScope(Executor* executor, LocalQueue* queue) noexcept;
  MAGPIE_EXPORT ~ExecutorThreadScope();
  ExecutorThreadScope(const ExecutorThreadScope&) = delete;
  ExecutorThreadScope& operator=(const ExecutorThreadScope&) = delete;

 private:
  Executor* executor_;
  LocalQueue* queue_;
  std::uintptr_t stack_limit_;
  LocalsFrame* locals_;
};

}  // namespace magpie::detail
