// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The threads on which to_thread() runs blocking functions: started when there is work and none is
// free, up to a cap; they leave after a while without work. Jobs are intrusive and served first in,
// first out.

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <magpie/config.h>
#include <magpie/detail/blocking_job.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

class VirtualTime;

class MAGPIE_EXPORT BlockingPool {
 public:
  BlockingPool(std::string name, std::size_t max_threads, std::chrono::nanoseconds keep_alive,
               VirtualTime* virtual_time);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  /// Queues the job; false if its scope is cancelled. std::system_error if there is no thread at
  /// all and none can be started.
  bool submit(BlockingJob& job);
  /// A cancelled job leaves the queue.
  void forget(BlockingJob& job) noexcept;
  /// Ends the threads once the queue is empty, and waits for them.
  void stop() noexcept;
  /// The processors for its threads, whoever starts them. Before the first job.
  void keep_on(std::vector<int> processors) noexcept { processors_ = std::move(processors); }
  /// For executors without threads of their own: jobs run inside submit().
  void run_inline() noexcept { inline_ = true; }

 private:
  void serve() noexcept;
  enum class Claim { none, wake, call };
  Claim take(BlockingJob& job) noexcept;  // under the lock
  void run(BlockingJob& job, Claim claim) noexcept;

  const std::string name_;
  const std::size_t max_threads_;
  const std::chrono::nanoseconds keep_alive_;
  VirtualTime* const virtual_time_;
  std::vector<int> processors_;
  bool inline_ = false;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable gone_;
  BasicWaitQueue<StdEnv> queue_;
  std::size_t queued_ = 0;
  std::size_t threads_ = 0;
  std::size_t idle_ = 0;
  std::size_t started_ = 0;
  bool stopping_ = false;
};

}  // namespace magpie::detail
