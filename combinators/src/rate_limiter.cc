// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include <magpie/detail/executor_core.h>
#include <magpie/detail/locals.h>
#include <magpie/detail/thread_state.h>
#include <magpie/detail/wake_list.h>
#include <magpie/rate_limiter.h>

// Only the waiter at the head has a timer, among the timers of the executor where it waits. When it
// fires, whoever fires it serves the queue, and the next head's timer is armed. An operation that
// ends takes its own timer back, and waits until nobody is about to fire it.
//
// Locks: the limiter's, then a timer shard's or a scope's. A timer is claimed under the shard's
// lock and fires with none, so its firing may take the limiter's.

namespace magpie {

// --- the bucket ----------------------------------------------------------------------------------

namespace detail {

TokenBucket::TokenBucket(double per_second, std::size_t burst) : rate_(per_second), burst_(burst) {
  if (!std::isfinite(per_second) || !(per_second > 0)) {
    throw std::invalid_argument(
        "a RateLimiter's rate is a positive number of tokens per second, not " +
        std::to_string(per_second));
  }
  if (burst == 0) {
    throw std::invalid_argument(
        "a RateLimiter with a burst of 0 would never give a token: it is how many may be taken at "
        "once");
  }
}

// When so many tokens have flowed in: rounded up to whole nanoseconds, from exact products, so that
// nothing adds up. The rate is taken for the decimal number that somebody wrote: what a double
// cannot hold of that is half of its last bit, and may not delay a token by a nanosecond.
std::int64_t TokenBucket::time_of(std::uint64_t tokens) const noexcept {
  const long double exact = static_cast<long double>(tokens) * 1e9L / rate_;
  const long double due = std::ceil(exact - exact * 0x1p-53L);
  return due < 0x1p63L ? static_cast<std::int64_t>(due) : kNeverNs;
}

std::int64_t TokenBucket::due(std::size_t n) const noexcept {
  const std::size_t there = burst_ - n;  // of a full bucket: what may be gone when n are taken
  return spent_ <= there ? 0 : time_of(spent_ - there);
}

void TokenBucket::take(std::size_t n) noexcept {
  if (__builtin_add_overflow(spent_, n, &spent_)) spent_ = ~std::uint64_t{0};
  full_ = time_of(spent_);
}

}  // namespace detail

// --- the limiter ---------------------------------------------------------------------------------

namespace {

std::int64_t difference(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t result = 0;
  if (!__builtin_sub_overflow(a, b, &result)) return result;
  return a < b ? INT64_MIN : INT64_MAX;
}

std::int64_t sum(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t result = 0;
  if (!__builtin_add_overflow(a, b, &result)) return result;
  return a < 0 ? INT64_MIN : INT64_MAX;
}

}  // namespace

/// A timer that was armed under the limiter's lock: the executor learns of it when that is
/// released. It is held open until then, as the waiter may be gone by that time.
struct RateLimiter::Armed {
  detail::Timers* timers = nullptr;
  std::int64_t deadline = 0;
  Executor* visited = nullptr;

  void tell() noexcept {
    if (timers != nullptr) timers->armed(deadline);
    if (visited != nullptr) detail::ExecutorAccess::leave(*visited);
  }
};

RateLimiter::RateLimiter(double per_second, std::size_t burst, Clock* clock)
    : clock_(clock), bucket_(per_second, burst) {}

void RateLimiter::check(std::size_t n) const {
  if (n <= bucket_.burst()) return;
  throw std::invalid_argument("acquire(" + std::to_string(n) +
                              ") can never succeed: the RateLimiter's bucket holds at most " +
                              std::to_string(bucket_.burst()) +
                              " tokens, its burst; ask for fewer at a time");
}

const Clock& RateLimiter::clock_of(const Executor* executor) const noexcept {
  if (clock_ != nullptr) return *clock_;
  return executor != nullptr ? executor->clock() : system_steady_clock();
}

// Under the lock, with the time: serves those who wait, then sees whether the bucket is full.
//
// In this order: tokens that somebody waits for are taken as they flow in, and the bucket does not
// run over however late the timers are; so the origin stays where it is, and nothing is rounded
// twice. While somebody is left waiting the bucket is not full: it lacks what he waits for.
//
// A clock that goes backwards stands still; on another clock than before, the time goes on where it
// was.
void RateLimiter::look(const Clock& clock, std::int64_t now, detail::WakeList& woken,
                       Armed& armed) noexcept {
  if (base_ != &clock) {
    base_ = &clock;
    origin_ = difference(now, elapsed_);
  }
  elapsed_ = std::max(elapsed_, difference(now, origin_));
  serve(woken, armed);
  if (elapsed_ < bucket_.full()) return;
  bucket_.fill();
  origin_ = sum(origin_, elapsed_);
  elapsed_ = 0;
}

bool RateLimiter::try_acquire(std::size_t n) {
  check(n);
  const Clock& clock = clock_of(detail::current_executor());
  const std::int64_t now = detail::to_ns(clock.now());
  if (n == 0) return true;
  detail::WakeList woken;
  Armed armed;
  bool taken = false;
  {
    std::lock_guard guard(lock_);
    look(clock, now, woken, armed);
    taken = waiters_.empty() && ready(n);
    if (taken) bucket_.take(n);
  }
  woken.wake_all();
  armed.tell();
  return taken;
}

// Under the lock: to the head of the queue what is due to it, and to the next one, until the head's
// time is still to come; then it has a timer.
void RateLimiter::serve(detail::WakeList& woken, Armed& armed) noexcept {
  while (!waiters_.empty()) {
    auto& head =
        static_cast<detail::RateOperation&>(static_cast<detail::OperationBase&>(*waiters_.front()));
    const std::size_t n = head.count_;
    if (!ready(n)) {
      if (!head.armed_) arm(head, armed);
      return;
    }
    if (woken.claim_front(waiters_)) bucket_.take(n);
  }
}

// Under the lock. The head cannot leave meanwhile, also if it has been cancelled: it needs the
// lock.
void RateLimiter::arm(detail::RateOperation& head, Armed& armed) noexcept {
  Executor& home = *head.home;
  detail::Timers& timers = detail::ExecutorAccess::timers(home);
  std::int64_t deadline = sum(origin_, bucket_.due(head.count_));
  if (base_ != &home.clock()) {
    // Somebody else's clock: so much later by the executor's own. If the other one is not there by
    // then it is looked at again, after a millisecond, two, four, up to 512.
    constexpr std::int64_t kLook = 1'000'000;
    constexpr unsigned kMostLooks = 10;
    const std::int64_t least = head.looks_ == 0 ? 1 : kLook << head.looks_ >> 1;
    if (head.looks_ < kMostLooks) ++head.looks_;
    const std::int64_t wait = difference(deadline, sum(origin_, elapsed_));
    deadline = sum(timers.now_ns(), std::max(wait, least));
  }
  if (deadline == detail::kNeverNs) return;
  head.armed_ = true;
  head.set_timer(timers.shard_here(), deadline);
  armed.timers = &timers;
  armed.deadline = deadline;
  if (&home != detail::current_executor()) {
    detail::ExecutorAccess::enter(home);
    armed.visited = &home;
  }
}

void RateLimiter::timer_fired(detail::RateOperation& head) noexcept {
  const Clock& clock = clock_of(head.home);
  const std::int64_t now = detail::to_ns(clock.now());
  detail::WakeList woken;
  Armed armed;
  {
    std::lock_guard guard(lock_);
    head.armed_ = false;
    look(clock, now, woken, armed);
  }
  // Pairs with end_timer(). The last touch of the operation unless it is in the list, and
  // of the limiter, which may go with its last waiter.
  head.firings_.fired();
  woken.wake_all();
  armed.tell();
}

namespace detail {

bool RateOperation::start() {
  RateLimiter& limiter = *limiter_;
  limiter.check(count_);
  if (refused()) return false;
  const Clock& clock = limiter.clock_of(home);
  const std::int64_t now = to_ns(clock.now());
  WakeList woken;
  RateLimiter::Armed armed;
  bool parked = false;
  {
    std::lock_guard guard(limiter.lock_);
    limiter.look(clock, now, woken, armed);
    if (count_ == 0 || (limiter.waiters_.empty() && limiter.ready(count_))) {
      if (complete_at_once()) limiter.bucket_.take(count_);
    } else if (park()) {
      parked = true;
      limiter.waiters_.push_back(*this);
      if (limiter.waiters_.front() == this) limiter.serve(woken, armed);
    }
  }
  // From here on nothing of this operation is touched, if it was parked: it may be over.
  woken.wake_all();
  armed.tell();
  return parked;
}

// Whoever leaves the head, or stood before somebody who wants less, makes way.
void RateOperation::unqueue() noexcept {
  const Clock& clock = limiter_->clock_of(home);
  const std::int64_t now = to_ns(clock.now());
  WakeList woken;
  RateLimiter::Armed armed;
  {
    std::lock_guard guard(limiter_->lock_);
    limiter_->waiters_.forget(*this);
    limiter_->look(clock, now, woken, armed);
  }
  woken.wake_all();
  armed.tell();
}

void RateOperation::set_timer(TimerShard& where, std::int64_t deadline) noexcept {
  claim = [](Timer* timer) noexcept {
    static_cast<RateOperation*>(timer)->firings_.claimed();
    return true;
  };
  fire = [](Timer* timer) noexcept {
    auto& self = *static_cast<RateOperation*>(timer);
    self.limiter_->timer_fired(self);
  };
  deadline_ns = deadline;
  std::lock_guard guard(where.lock);
  shard = &where;
  Timers::arm(where, *this);
}

// It is out of the limiter's queue, so nobody arms the timer any more.
void RateOperation::end_timer() noexcept {
  {
    std::lock_guard guard(shard->lock);
    Timers::disarm(*shard, *this);
  }
  firings_.wait_for_the_end();
}

// --- the gather ----------------------------------------------------------------------------------

namespace {

// Starts children together, which are linked from the newest to the oldest: in that order into the
// worker's deque, which gives the oldest first, and in the other one into an executor's queue.
std::coroutine_handle<> fork_all(Fork* newest) noexcept {
  LocalQueue* const queue = local_queue();
  if (queue == nullptr) {
    Fork* reversed = nullptr;
    while (newest != nullptr) {
      Fork* const rec = std::exchange(newest, static_cast<Fork*>(newest->next));
      rec->next = std::exchange(reversed, rec);
    }
    newest = reversed;
  }
  while (newest != nullptr) {
    Fork* const rec = std::exchange(newest, static_cast<Fork*>(newest->next));
    if (queue == nullptr ||
        !queue->deque.owner().push(reinterpret_cast<std::uintptr_t>(rec) | kForkTag)) {
      hand_fork_to_executor(*rec);
    }
  }
  if (queue != nullptr) queue->wanted();
  return std::noop_coroutine();
}

}  // namespace

std::coroutine_handle<> RateDriver::drive(Token token) noexcept {
  Fork* granted = nullptr;
  for (;;) {
    if (token != Token::none) {
      if (Fork* const rec = next_child_(*this, token == Token::granted)) {
        rec->next = std::exchange(granted, rec);
      }
    }
    if (next_ == count_) break;
    if (token == Token::refused) continue;
    wait_.emplace(*limiter_, 1);
    scope = &join_->scope;
    wait_->prepare(*this, resumed);
    // Once it is parked the driver may go on elsewhere: nothing of it is touched here any more.
    if (wait_->start()) return fork_all(granted);
    token = end_of_wait();
  }
  // The driver's own unit, and those of children that have ended here.
  const std::uint32_t units = ended_ + 1;
  if (granted == nullptr) return deliver_to(join_, units);
  granted->carry += units;
  return fork_all(granted);
}

RateDriver::Token RateDriver::end_of_wait() noexcept {
  Slot<void> slot;
  wait_->finish(slot);
  return slot.has_value() ? Token::granted : Token::refused;
}

void RateDriver::resumed(Runnable* node) noexcept {
  auto* const self = static_cast<RateDriver*>(&static_cast<OperationBase*>(node)->place());
  const Token token = self->end_of_wait();
  install_locals(self->join_->scope);
  resume_here(self->drive(token));
}

}  // namespace detail
}  // namespace magpie
