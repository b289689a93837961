// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How an executor is made. An aggregate, for designated initialisers:
// WorkStealingExecutor({.threads = 4}).

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <string>
#include <string_view>

#include <magpie/clock.h>

namespace magpie {

struct ExecutorOptions {
  /// How many worker threads: 1 to 4096, or 0 for available_parallelism(). A number beats
  /// MAGPIE_THREADS.
  std::size_t threads = 0;
  /// Workers are named "<name>-<index>"; of long names the kernel's 15 bytes keep the index.
  std::string name = "magpie";
  /// One worker per core, in topology order.
  bool pin_threads = false;
  /// The cap of to_thread()'s pool (0: std::invalid_argument), and how long its idle threads stay.
  std::size_t max_blocking_threads = 64;
  std::chrono::nanoseconds blocking_keep_alive = std::chrono::seconds(10);
  /// Gets errors that nobody awaited or asked for, with the task's name; on the thread where that
  /// became certain. Empty: one line on stderr.
  std::function<void(std::string_view task_name, std::exception_ptr)> on_unobserved_error = {};
  /// Null: the steady clock. A ManualClock in tests. It must outlive the executor.
  Clock* clock = nullptr;
};

}  // namespace magpie
