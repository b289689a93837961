// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// spawn(task): starts a task of its own on the executor whose thread this is.
//
// The new task is a root: whoever spawned it does not cancel it, only its handle, the option's
// token and the executor do. It inherits the task-locals, and no deadline. It never starts inside
// the call.

#include <utility>

#include <magpie/executor.h>

namespace magpie {

namespace detail {
/// std::logic_error: there is no current executor.
[[noreturn]] MAGPIE_EXPORT MAGPIE_COLD void throw_no_executor(const char* what);
/// The executor of this thread; std::logic_error if there is none.
inline Executor& require_current_executor(const char* what) {
  Executor* const executor = current_executor();
  if (executor == nullptr) [[unlikely]]
    throw_no_executor(what);
  return *executor;
}
}  // namespace detail

/// On the current executor; std::logic_error when there is none. ExecutorShutdownError when it is
/// being shut down.
template <detail::Awaitable A>
auto spawn(A&& task) {
  return detail::require_current_executor("spawn()").spawn(std::forward<A>(task));
}
template <detail::Awaitable A>
auto spawn(A&& task, SpawnOptions options) {
  return detail::require_current_executor("spawn()").spawn(std::forward<A>(task),
                                                           std::move(options));
}

}  // namespace magpie
