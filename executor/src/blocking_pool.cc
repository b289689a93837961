// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <stdexcept>
#include <thread>
#include <utility>

#include <pthread.h>

#include <magpie/detail/blocking_pool.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/thread_name.h>
#include <magpie/manual_clock.h>

namespace magpie::detail {
namespace {

std::size_t checked_limit(std::size_t max_threads) {
  if (max_threads == 0) {
    throw std::invalid_argument(
        "an executor with max_blocking_threads = 0 could not run to_thread(): give at least 1");
  }
  return max_threads;
}

}  // namespace

BlockingPool::BlockingPool(std::string name, std::size_t max_threads,
                           std::chrono::nanoseconds keep_alive, VirtualTime* virtual_time)
    : name_(std::move(name)),
      max_threads_(checked_limit(max_threads)),
      // Longer than a century is for ever, and keeps now() + keep_alive from overflowing.
      keep_alive_(std::clamp<std::chrono::nanoseconds>(keep_alive, std::chrono::nanoseconds(0),
                                                       std::chrono::hours(24 * 365 * 100))),
      virtual_time_(virtual_time) {}

BlockingPool::~BlockingPool() {
  stop();
}

bool BlockingPool::submit(BlockingJob& job) {
  std::unique_lock lock(mutex_);
  if (inline_) {
    if (!job.park_in_scope()) return false;
    const Claim claim = take(job);
    lock.unlock();
    const ExecutorThreadScope off_executor(nullptr, nullptr);  // as on a thread of the pool
    run(job, claim);
    return true;
  }
  if (idle_ <= queued_ && threads_ < max_threads_) {
    try {
      ++threads_;
      // It cannot end before it was let go of: it needs the lock (glibc's bug 19951).
      std::thread([this] { serve(); }).detach();
    } catch (...) {
      --threads_;
      if (threads_ == 0) throw;  // with at least one thread the job only waits longer
    }
  }
  if (!job.park_in_scope()) return false;
  queue_.push_back(job);
  ++queued_;
  if (virtual_time_ != nullptr) virtual_time_->blocking_begins();
  work_.notify_one();
  return true;
}

void BlockingPool::forget(BlockingJob& job) noexcept {
  std::unique_lock lock(mutex_);
  if (!job.queued) return;
  queue_.remove(job);
  --queued_;
  lock.unlock();
  if (virtual_time_ != nullptr) virtual_time_->blocking_ends();
}

void BlockingPool::stop() noexcept {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  work_.notify_all();
  gone_.wait(lock, [this] { return threads_ == 0; });
}

BlockingPool::Claim BlockingPool::take(BlockingJob& job) noexcept {
  bool wake_anyway = false;
  if (job.try_complete(&wake_anyway))
    return Claim::call;  // from here on the call's own outcome counts
  return wake_anyway ? Claim::wake : Claim::none;
}

void BlockingPool::run(BlockingJob& job, Claim claim) noexcept {
  if (claim == Claim::none) return;  // cancelled: it may be gone
  if (claim == Claim::call) job.call(&job);
  job.executor->schedule(job);
}

void BlockingPool::serve() noexcept {
  keep_this_thread_on(processors_);
  std::unique_lock lock(mutex_);
  name_this_thread(name_, "-io", started_++);
  for (;;) {
    if (!queue_.empty()) {
      auto& job = static_cast<BlockingJob&>(*queue_.front());
      queue_.remove(job);
      --queued_;
      // Under the lock: a cancelled job takes it before it goes.
      const Claim claim = take(job);
      lock.unlock();
      run(job, claim);
      if (virtual_time_ != nullptr) virtual_time_->blocking_ends();
      lock.lock();
      continue;
    }
    if (stopping_) break;
    ++idle_;
    const bool woken =
        work_.wait_for(lock, keep_alive_, [this] { return stopping_ || !queue_.empty(); });
    --idle_;
    if (!woken) break;
  }
  --threads_;
  // Notified under the lock: the pool may be gone as soon as it is released.
  if (threads_ == 0) gone_.notify_all();
}

bool submit_blocking(Executor& executor, BlockingJob& job) {
  job.pool = &ExecutorAccess::blocking(executor);
  return job.pool->submit(job);
}
void forget_blocking(BlockingJob& job) noexcept {
  job.pool->forget(job);
}

}  // namespace magpie::detail
