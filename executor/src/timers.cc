// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <system_error>

#include <pthread.h>

#include <magpie/detail/thread_name.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/timers.h>

namespace magpie::detail {

Timers::Timers(Clock& clock)
    : clock_(clock),
      manual_(clock.as_manual() != nullptr ? &clock.as_manual()->virtual_time() : nullptr),
      is_steady_(&clock == &system_steady_clock()),
      shards_(new TimerShard[kShards]) {}

Timers::~Timers() {
  stop_monitor();
}

TimerShard& Timers::shard_here() noexcept {
  // Virtual time fires in one global order: one queue.
  return shards_[manual_ != nullptr ? 0 : thread_index() % kShards];
}

void Timers::arm(TimerShard& shard, Timer& timer) noexcept {
  if (timer.shard != &shard) timer.shard = &shard;  // an owner who set it before may be reading it
  shard.insert(timer);
}

bool Timers::disarm(TimerShard& shard, Timer& timer) noexcept {
  if (!shard.queue.contains(timer)) return false;
  shard.queue.remove(timer);
  shard.note_earliest();
  return true;
}

void Timers::armed(std::int64_t deadline_ns) noexcept {
  if (manual_ != nullptr) {
    manual_->timer_armed();
    return;
  }
  if (!monitor_runs_.load(std::memory_order_acquire)) [[unlikely]]
    start_monitor();  // pairs with the store there
  const std::int64_t look = deadline_ns > kNeverNs - grace_ns_ ? kNeverNs : deadline_ns + grace_ns_;
  if (!plan_.told_of(look)) {
    std::lock_guard guard(mutex_);
    kicked_ = true;
    wake_.notify_one();
  }
}

bool Timers::serve(TimerShard& shard, std::int64_t now_ns) noexcept {
  if (shard.earliest.load(std::memory_order_relaxed) > now_ns) return false;
  constexpr int kBatch = 64;  // bounds how long the lock is held
  bool fired = false;
  for (bool more = true; more;) {
    Timer* due = nullptr;
    Timer** tail = &due;
    {
      std::lock_guard guard(shard.lock);
      int taken = 0;
      while (taken < kBatch) {
        auto* const timer = static_cast<Timer*>(shard.queue.pop_due(now_ns));
        if (timer == nullptr) break;
        ++taken;
        if (!timer->claim(timer))
          continue;  // cancelled meanwhile: its owner finds it gone from the queue
        timer->next_due = nullptr;
        *tail = timer;
        tail = &timer->next_due;
      }
      more = taken == kBatch;
      shard.note_earliest();
    }
    while (due != nullptr) {
      Timer* const next = due->next_due;  // read before it is fired: then its memory may go
      due->fire(due);
      due = next;
      fired = true;
    }
  }
  return fired;
}

bool Timers::serve_all(std::int64_t now_ns) noexcept {
  bool fired = false;
  for (std::size_t i = 0; i < kShards; ++i) fired = serve(shards_[i], now_ns) || fired;
  return fired;
}

std::int64_t Timers::earliest() const noexcept {
  std::int64_t first = kNeverNs;
  // seq_cst: pairs with BasicTimerShard::insert(), see BasicTimerPlan.
  for (std::size_t i = 0; i < kShards; ++i) {
    first = std::min(first, shards_[i].earliest.load(std::memory_order_seq_cst));
  }
  return first;
}

std::int64_t Timers::steady_ns(std::int64_t due_ns) const noexcept {
  if (is_steady_ || due_ns == kNeverNs) return due_ns;
  const Duration wait = time_until(from_ns(due_ns), clock_.now());
  return to_ns(deadline_after(std::chrono::steady_clock::now(), wait));
}

std::size_t Timers::pending() const noexcept {
  std::size_t count = 0;
  for (std::size_t i = 0; i < kShards; ++i)
    count += shards_[i].queue.size();  // without the lock, which workers take
  return count;
}

void Timers::start_monitor() noexcept {
  std::lock_guard guard(mutex_);
  if (monitor_runs_.load(std::memory_order_relaxed) || stopping_) return;
  try {
    thread_ = std::thread([this] { monitor(); });
    monitor_runs_.store(true, std::memory_order_release);  // pairs with armed()
  } catch (...) {
    // No thread to be had, or no memory for it: each worker serves the timers that were armed on
    // it, and the next timer tries again.
  }
}

void Timers::stop_monitor() noexcept {
  {
    std::lock_guard guard(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Timers::monitor() noexcept {
  pthread_setname_np(pthread_self(), "magpie-timers");
  keep_this_thread_on(processors_);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    kicked_ = false;
    const std::int64_t look = plan_.make([this] {
      const std::int64_t first = earliest();
      return first > kNeverNs - grace_ns_ ? kNeverNs : first + grace_ns_;
    });
    const std::int64_t now = now_ns();
    if (look > now) {
      if (look == kNeverNs) {
        wake_.wait(lock, [this] { return kicked_ || stopping_; });
      } else {
        wake_.wait_until(lock, from_ns(steady_ns(look)), [this] { return kicked_ || stopping_; });
      }
      continue;
    }
    lock.unlock();
    serve_all(now);
    lock.lock();
  }
}

}  // namespace magpie::detail
