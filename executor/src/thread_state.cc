// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <atomic>
#include <iterator>

#include <magpie/detail/frame_pool.h>
#include <magpie/detail/thread_state.h>

namespace magpie::detail {

namespace {

// The shelf of whoever has none: both empty and full at its last word, and never written. (A
// process that has two copies of the library has two of it.)
alignas(kMostShelfBytes) constinit void* empty_and_full[kMostShelfBytes / sizeof(void*)] = {};

constexpr ThreadState at_first() noexcept {
  ThreadState state{};
  for (void**& shelf : state.shelves) shelf = std::end(empty_and_full) - 1;
  return state;
}

}  // namespace

constinit thread_local ThreadState tls_thread_state = at_first();

void** no_shelf() noexcept {
  return std::end(empty_and_full) - 1;
}

#if !((defined(__x86_64__) || defined(__aarch64__)) && defined(__linux__))
ThreadState* thread_state() noexcept {
  ThreadState* state = &tls_thread_state;
  asm volatile("" : "+r"(state));
  return state;
}
#endif

std::uint32_t assign_thread_index() noexcept {
  static constinit std::atomic<std::uint32_t> next{0};
  ThreadState* const state = thread_state();
  state->index = next.fetch_add(1, std::memory_order_relaxed) + 1;
  return state->index;
}

void take_task_ids() noexcept {
  static constinit std::atomic<std::uint64_t> next{1};
  constexpr std::uint64_t kBlock = 64;
  ThreadState* const state = thread_state();
  state->next_id = next.fetch_add(kBlock, std::memory_order_relaxed);
  state->last_id = state->next_id + kBlock;
}

ExecutorThreadScope::ExecutorThreadScope(Executor* executor, LocalQueue* queue) noexcept {
  ThreadState* const state = thread_state();
  executor_ = state->executor;
  queue_ = state->queue;
  stack_limit_ = state->stack_limit;
  locals_ = state->locals;
  state->executor = executor;
  state->queue = queue;
  // Deep enough that unwinding is rare, shallow enough for a small stack below whatever called us.
  constexpr std::uintptr_t kDepth = 48 * 1024;
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  state->stack_limit = here > kDepth ? here - kDepth : 1;
}

ExecutorThreadScope::~ExecutorThreadScope() {
  ThreadState* const state = thread_state();
  state->executor = executor_;
  state->queue = queue_;
  state->stack_limit = stack_limit_;
  state->locals = locals_;
}

}  // namespace magpie::detail
