// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <chrono>
#include <mutex>

#include <magpie/as_completed.h>
#include <magpie/detail/exception_ptr.h>
#include <magpie/detail/executor_core.h>
#include <magpie/detail/timers.h>
#include <magpie/detail/wake_list.h>

namespace magpie::detail {

void StreamCore::limit(Duration duration) noexcept {
  if (duration.is_never()) return;
  Timers& timers = ExecutorAccess::timers(*current_executor());
  const std::int64_t now = timers.now_ns();
  const std::int64_t due = to_ns(deadline_after(from_ns(now), duration));
  if (due <= now) {
    expired_ = true;  // nothing runs yet that could see it change
    return;
  }
  claim = [](Timer* timer) noexcept { return static_cast<StreamCore*>(timer)->word_.begin_fire(); };
  fire = [](Timer* timer) noexcept {
    auto* const self = static_cast<StreamCore*>(timer);
    self->expire();
    self->word_.end_fire();  // the last touch
  };
  deadline_ns = due;
  shard = &timers.shard_here();
  {
    std::lock_guard guard(shard->lock);
    Timers::arm(*shard, *this);
  }
  timers.armed(due);
}

void StreamCore::stop_timer() noexcept {
  if (shard == nullptr) return;
  {
    std::lock_guard guard(shard->lock);
    Timers::disarm(*shard, *this);
  }
  word_.disarm();
}

bool StreamCore::busy() const noexcept {
  std::lock_guard guard(lock_);
  return running_ != 0;
}

Finished& StreamCore::take_first() noexcept {
  Finished& item = *first_;
  first_ = item.next_finished;
  return item;
}

void StreamCore::finished(Finished& item) noexcept {
  WakeList woken;
  bool last = false;
  {
    std::lock_guard guard(lock_);
    item.next_finished = nullptr;
    if (first_ == nullptr) {
      first_ = &item;
    } else {
      last_->next_finished = &item;
    }
    last_ = &item;
    last = --running_ == 0;
    // Somebody waits only while there is nothing to give: so the oldest gets this one, unless its
    // race is lost.
    while (!waiters_.empty() && (first_ != nullptr || last)) {
      auto* const waiter =
          static_cast<StreamWaiter*>(static_cast<OperationBase*>(waiters_.front()));
      if (woken.claim_front(waiters_) && first_ != nullptr) waiter->item_ = &take_first();
    }
  }
  if (last) stop_timer();  // before the last of them goes on, who may look whether it is gone
  woken.wake_all();
}

void StreamCore::expire() noexcept {
  WakeList woken;
  {
    std::lock_guard guard(lock_);
    expired_ = true;
    while (!waiters_.empty()) {
      auto* const waiter =
          static_cast<StreamWaiter*>(static_cast<OperationBase*>(waiters_.front()));
      waiters_.remove(*waiter);
      if (!waiter->state.try_complete()) continue;
      waiter->too_late_ = true;  // an error takes nothing, and wins no race
      woken.add(*waiter);
    }
  }
  woken.wake_all();
}

bool StreamWaiter::enqueue() noexcept {
  item_ = nullptr;  // of an await before this one
  too_late_ = false;
  if (refused()) return false;
  StreamCore& core = *core_;
  std::lock_guard guard(core.lock_);
  if (core.first_ != nullptr) {
    if (complete_at_once()) item_ = &core.take_first();
    return false;
  }
  if (core.running_ == 0 || core.expired_) {
    too_late_ = core.running_ != 0;
    // An error takes nothing, and wins no race before it is settled.
    too_late_ ? state.set(WaitPhase::done_at_once) : void(complete_at_once());
    return false;
  }
  if (!park()) return false;
  core.waiters_.push_back(*this);
  return true;
}

void StreamWaiter::dequeue() noexcept {
  std::lock_guard guard(core_->lock_);
  core_->waiters_.forget(*this);
}

std::exception_ptr make_stream_timed_out() noexcept {
  return make_error<TimeoutError>("the timeout passed before all tasks of as_completed had ended");
}

}  // namespace magpie::detail
