// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <stdexcept>
#include <string>

#include <magpie/join_handle.h>
#include <magpie/spawn.h>
#include <magpie/task.h>

namespace magpie::detail {

void throw_moved_from_task() {
  throw std::logic_error("this task is empty: it was moved from or awaited before, and a task can be awaited only once");
}

void throw_empty_handle() {
  throw InvalidStateError("this handle is empty: it names no task (default-made, or moved from)");
}

void throw_not_done() {
  throw InvalidStateError("the task has not ended, so it has no result yet: co_await the handle, or wait() for it");
}

void throw_self_await() {
  throw std::logic_error("a task awaited its own handle, which would never end");
}

Executor& require_current_executor(const char* what) {
  Executor* const executor = current_executor();
  if (executor == nullptr) {
    throw std::logic_error(std::string(what) +
                           " needs a current executor and this thread has none: call the executor's own member instead");
  }
  return *executor;
}

}  // namespace magpie::detail
