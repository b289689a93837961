// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Waiters that were claimed under a primitive's lock, to be woken when it is released.

#include <magpie/detail/executor_core.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/waiter_state.h>

namespace magpie::detail {

class WakeList {
 public:
  WakeList() = default;
  WakeList(const WakeList&) = delete;
  WakeList& operator=(const WakeList&) = delete;

  /// Takes the queue's first waiter out and tries to complete it; true if it now has what it waited
  /// for.
  bool claim_front(BasicWaitQueue<StdEnv>& queue) noexcept {
    Waiter& waiter = *queue.front();
    queue.remove(waiter);
    bool wake_anyway = false;
    const bool completed = static_cast<OperationBase&>(waiter).try_complete(&wake_anyway);
    if (completed || wake_anyway) add(waiter);
    return completed;
  }

  void add(Waiter& waiter) noexcept {
    waiter.queue_next = nullptr;
    *tail_ = &waiter;
    tail_ = &waiter.queue_next;
  }

  /// Takes the first one out; null: there is none.
  Waiter* pop_front() noexcept {
    Waiter* const waiter = first_;
    if (waiter == nullptr) return nullptr;
    first_ = waiter->queue_next;
    if (first_ == nullptr) tail_ = &first_;
    return waiter;
  }

  /// With no lock held. The primitive may be gone as soon as the first of them runs.
  void wake_all() noexcept {
    while (first_ != nullptr) {
      Waiter* const next = first_->queue_next;
      first_->executor->schedule(*first_);
      first_ = next;
    }
  }

 private:
  Waiter* first_ = nullptr;
  Waiter** tail_ = &first_;
};

}  // namespace magpie::detail
