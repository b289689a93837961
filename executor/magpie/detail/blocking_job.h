// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A call of to_thread, and how it gets to the pool: what a caller needs of that.

#include <magpie/config.h>
#include <magpie/detail/fwd.h>
#include <magpie/detail/operation.h>

namespace magpie::detail {

class BlockingPool;

/// A call that waits for a thread, or runs on one.
struct BlockingJob : OperationBase {
  static constexpr const char* kWhat = "to_thread";
  void (*call)(BlockingJob*) noexcept = nullptr;  // runs the function and keeps its outcome
  BlockingPool* pool = nullptr;                   // from the moment on when it was given to it

 protected:
  using OperationBase::OperationBase;
  BlockingJob(BlockingJob&&) noexcept = default;
  ~BlockingJob() = default;
  friend class BlockingPool;
  bool park_in_scope() noexcept { return park(); }
};

/// BlockingPool::submit(), of the executor's pool, and forget().
MAGPIE_EXPORT bool submit_blocking(Executor& executor, BlockingJob& job);
MAGPIE_EXPORT void forget_blocking(BlockingJob& job) noexcept;

}  // namespace magpie::detail
