// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Task<T>: a coroutine that starts when it is awaited.
//
//     Task<int> answer() { co_return 42; }
//     Task<void> use() { int x = co_await answer(); }
//
// It is not a handle of something that runs: spawn gives those. It is awaited once, as an rvalue,
// and inherits the awaiting task's executor, cancellation scope, deadline and task-locals. Awaiting
// it is a plain call: no queue, no atomic, and the frame is freed before the awaiter goes on. Long
// loops and deep chains of awaits do not grow the stack.
//
// Threads: a Task is a value; the coroutine may run on any worker, and on another one after each
// suspension. Cancellation: awaiting a Task is no cancellation point; its body runs to its own
// first one. Errors: what the body throws leaves the co_await; awaiting a moved-from task is
// std::logic_error.

#include <magpie/as_result.h>
#include <magpie/detail/foreign.h>
#include <magpie/detail/task_core.h>
#include <magpie/resume_on.h>
