// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// sleep_for and sleep_until: waits in the executor's time. Nothing or less behaves as
// this_task::yield(). Cancellation points; a cancelled sleep frees its timer at once. No
// allocation.

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/timer.h>
#include <magpie/task.h>

namespace magpie {

namespace detail {

class [[nodiscard("co_await it")]] SleepOperation : public Operation<SleepOperation, void>,
                                                    private Timer {
 public:
  static constexpr const char* kWhat = "sleep";
  static SleepOperation for_duration(Duration duration) noexcept {
    return SleepOperation(duration.count(), true);
  }
  static SleepOperation until(Deadline deadline) noexcept {
    return SleepOperation(to_ns(deadline), false);
  }
  SleepOperation(SleepOperation&& other) noexcept
      : Operation<SleepOperation, void>(std::move(other)),
        ns_(other.ns_),
        relative_(other.relative_) {}

  MAGPIE_EXPORT bool start() noexcept;
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<void>& slot) {
    // One that was over at once went round as a yield does, and looks as a yield does.
    if (yielded_ && scope()->cancelled()) {
      slot.set_cancelled(cancel_reason());
    } else {
      slot.emplace();
    }
  }

 private:
  SleepOperation(std::int64_t ns, bool relative) noexcept : ns_(ns), relative_(relative) {}
  std::int64_t ns_;
  bool relative_;
  bool yielded_ = false;
};

/// Sends an operation once round the executor's queue.
MAGPIE_EXPORT void go_round(OperationBase& operation) noexcept;

}  // namespace detail

/// Sleeps at least so long. The clock starts when it is awaited.
inline detail::SleepOperation sleep_for(Duration duration) {
  return detail::SleepOperation::for_duration(duration);
}
/// Sleeps until the executor's clock shows the deadline.
inline detail::SleepOperation sleep_until(Deadline deadline) {
  return detail::SleepOperation::until(deadline);
}

}  // namespace magpie
