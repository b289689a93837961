// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>
#include <string>

#include <magpie/join_handle.h>
#include <magpie/spawn.h>
#include <magpie/task.h>

namespace magpie::detail {

void destroy_unstarted(std::coroutine_handle<PromiseBase> frame) noexcept {
  // In the natural order as far as a stack easily carries it.
  constexpr std::uint32_t kNested = 64;
  ThreadState* const state = thread_state();  // no suspension below: it stays this thread's
  if (state->destroying == kNested) {
    frame.promise().continuation =
        Continuation::to(std::coroutine_handle<>::from_address(state->doomed));
    state->doomed = frame.address();
    return;
  }
  ++state->destroying;
  frame.destroy();
  while (state->destroying == 1 && state->doomed != nullptr) {
    const auto next = std::coroutine_handle<PromiseBase>::from_address(state->doomed);
    state->doomed = next.promise().continuation.coroutine().address();
    next.destroy();
  }
  --state->destroying;
}

void throw_moved_from_task() {
  throw std::logic_error(
      "this task is empty: it was moved from or awaited before, and a task can be awaited only "
      "once");
}

void throw_awaited_twice() {
  throw std::logic_error(
      "this awaitable was moved from or awaited before: make a new one for each await");
}

void throw_self_await() {
  throw std::logic_error(
      "a task awaited its own handle, which would never end: await it in another task");
}

void throw_no_executor(const char* what) {
  throw std::logic_error(std::string(what) +
                         " needs a current executor and this thread has none: call the executor's "
                         "own member instead");
}

}  // namespace magpie::detail
