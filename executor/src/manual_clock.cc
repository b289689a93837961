// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <condition_variable>
#include <cstddef>
#include <new>
#include <stdexcept>
#include <utility>

#include <magpie/detail/thread_state.h>
#include <magpie/detail/timers.h>
#include <magpie/manual_clock.h>

namespace magpie::detail {

namespace {
// An arbitrary moment after the epoch, so that nobody takes the clock's readings for durations.
constexpr std::int64_t kStartNs = 1'000'000'000'000;
}  // namespace

// Clocks that have executors, and threads that wait for any of them. The lock order: a clock's
// mutex, then this one.
struct VirtualTime::Everywhere {
  std::mutex mutex;
  std::condition_variable left;
  VirtualTime* clocks = nullptr;
  BlockedThread* threads = nullptr;
  std::atomic<std::size_t> waiting{
      0};  // how many threads: most of the time none, and then nobody takes the mutex

  bool anybody_waits() noexcept {
    if (waiting.load(std::memory_order_seq_cst) == 0)
      return false;  // pairs with BlockedAnywhere(), which looks at the clocks afterwards
    std::lock_guard lock(mutex);
    for (const BlockedThread* thread = threads; thread != nullptr; thread = thread->next) {
      if (!thread->over(*thread)) return true;
    }
    return false;
  }
};

VirtualTime::Everywhere& VirtualTime::everywhere() noexcept {
  // Takes no memory, and is never destroyed: threads may block until the very end.
  alignas(Everywhere) static std::byte place[sizeof(Everywhere)];
  static Everywhere* const the_one = ::new (place) Everywhere();
  return *the_one;
}

// Every clock is looked at: something may be able to move now that nobody waited for before. A
// clock that is attached later has a worker that looks when it parks.
BlockedAnywhere::BlockedAnywhere(BlockedThread& thread) noexcept : thread_(thread) {
  VirtualTime::Everywhere& all = VirtualTime::everywhere();
  std::unique_lock lock(all.mutex);
  thread.next = all.threads;
  all.threads = &thread;
  all.waiting.fetch_add(1, std::memory_order_seq_cst);
  for (VirtualTime* clock = all.clocks; clock != nullptr;) {
    ++clock->visited_;  // it stays attached, and in the list
    lock.unlock();
    clock->timer_armed();
    lock.lock();
    if (--clock->visited_ == 0) all.left.notify_all();
    clock = clock->next_attached_;
  }
}

BlockedAnywhere::~BlockedAnywhere() {
  VirtualTime::Everywhere& all = VirtualTime::everywhere();
  std::lock_guard lock(all.mutex);
  all.waiting.fetch_sub(1, std::memory_order_relaxed);
  BlockedThread** link = &all.threads;
  while (*link != &thread_) link = &(*link)->next;
  *link = thread_.next;
}

struct VirtualTime::Signal : std::condition_variable {};

VirtualTime::VirtualTime() : now_ns_(kStartNs), nobody_fires_(new Signal()) {}
VirtualTime::~VirtualTime() {
  delete nobody_fires_;
}

Deadline VirtualTime::now() const noexcept {
  return from_ns(now_ns_.load(
      std::memory_order_acquire));  // pairs with jump(): what was before the jump is seen
}

void VirtualTime::attach(Timers& timers) {
  std::lock_guard lock(mutex_);
  if (timers_ != nullptr) {
    throw std::invalid_argument(
        "a ManualClock serves one executor at a time, and this one has one already: make a clock "
        "for each");
  }
  timers_ = &timers;
  Everywhere& all = everywhere();
  std::lock_guard list(all.mutex);
  next_attached_ = all.clocks;
  all.clocks = this;
}

void VirtualTime::detach() noexcept {
  {
    Everywhere& all = everywhere();
    std::unique_lock list(all.mutex);
    all.left.wait(list, [this] { return visited_ == 0; });
    VirtualTime** link = &all.clocks;
    while (*link != this) link = &(*link)->next_attached_;
    *link = next_attached_;
  }
  std::unique_lock lock(mutex_);
  // A foreign thread may have fired the very timer whose task was the last to end, and still be
  // among the timers.
  nobody_fires_->wait(lock, [this] { return firing_ == 0; });
  timers_ = nullptr;
  active_ = visitors_ = blocking_ = 0;
}

void VirtualTime::advance(Duration duration) {
  std::unique_lock lock(mutex_);
  const Deadline target = deadline_after(now(), duration);
  while (timers_ != nullptr) {
    const std::int64_t next = timers_->earliest();
    if (next == kNeverNs || next > to_ns(target)) break;
    if (next > now_ns_.load(std::memory_order_relaxed))
      now_ns_.store(next, std::memory_order_release);
    ++active_;  // time does not jump meanwhile
    fire_due(lock);
    --active_;
  }
  if (to_ns(target) > now_ns_.load(std::memory_order_relaxed)) {
    now_ns_.store(to_ns(target), std::memory_order_release);
  }
  jump_while_possible(lock);
}

void VirtualTime::set_auto_advance(bool on) {
  std::unique_lock lock(mutex_);
  auto_advance_ = on;
  jump_while_possible(lock);
}

void VirtualTime::add(std::size_t* count) noexcept {
  std::lock_guard lock(mutex_);
  ++*count;
}

void VirtualTime::subtract(std::size_t* count) noexcept {
  std::unique_lock lock(mutex_);
  if (*count > 0) --*count;
  jump_while_possible(lock);
}

void VirtualTime::waiter_begins(BlockedThread& thread) noexcept {
  std::unique_lock lock(mutex_);
  thread.next = blocked_;
  blocked_ = &thread;
  jump_while_possible(lock);
}

void VirtualTime::waiter_ends(BlockedThread& thread) noexcept {
  std::lock_guard lock(mutex_);
  BlockedThread** link = &blocked_;
  while (*link != &thread) link = &(*link)->next;
  *link = thread.next;
}

void VirtualTime::timer_armed() noexcept {
  std::unique_lock lock(mutex_);
  jump_while_possible(lock);
}

std::size_t VirtualTime::visitors() noexcept {
  std::lock_guard lock(mutex_);
  return visitors_;
}

bool VirtualTime::worker_parks() noexcept {
  std::unique_lock lock(mutex_);
  --active_;
  return jump(lock);
}

bool VirtualTime::may_jump() const noexcept {
  if (timers_ == nullptr || !auto_advance_ || active_ != 0 || visitors_ != 0 || blocking_ != 0 ||
      holds_ != 0)
    return false;
  for (const BlockedThread* thread = blocked_; thread != nullptr; thread = thread->next) {
    if (!thread->over(*thread)) return true;
  }
  return everywhere().anybody_waits();
}

// Jumps to the next timer and fires it. True: the calling thread is now counted as active.
bool VirtualTime::jump(std::unique_lock<std::mutex>& lock) noexcept {
  if (!may_jump()) return false;
  const std::int64_t next = timers_->earliest();
  if (next == kNeverNs) return false;
  if (next > now_ns_.load(std::memory_order_relaxed))
    now_ns_.store(next, std::memory_order_release);
  ++active_;
  fire_due(lock);
  return true;
}

// Fires what is due, without the mutex: what fires schedules work, which is counted.
void VirtualTime::fire_due(std::unique_lock<std::mutex>& lock) noexcept {
  Timers* const timers = timers_;
  const std::int64_t now = now_ns_.load(std::memory_order_relaxed);
  ++firing_;
  lock.unlock();
  // Callbacks find no task-locals: the strand whose they are may be gone from here by now.
  ThreadState* const thread = thread_state();
  LocalsFrame* const locals = std::exchange(thread->locals, nullptr);
  timers->serve_all(now);
  thread->locals = locals;
  lock.lock();
  if (--firing_ == 0) nobody_fires_->notify_all();
}

void VirtualTime::jump_while_possible(std::unique_lock<std::mutex>& lock) noexcept {
  while (jump(lock)) --active_;
}

}  // namespace magpie::detail
