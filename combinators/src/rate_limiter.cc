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
#include <magpie/detail/timers.h>
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

namespace detail {

/// A timer that was armed under the limiter's lock: the executor learns of it when that is
/// released. It is held open until then, as the waiter may be gone by that time.
struct RateArmed {
  Timers* timers = nullptr;
  std::int64_t deadline = 0;
  Executor* visited = nullptr;

  void tell() noexcept {
    if (timers != nullptr) timers->armed(deadline);
    if (visited != nullptr) ExecutorAccess::leave(*visited);
  }
};

inline RateOperation& RateTraits::acquire(Waiter& w) noexcept {
  return static_cast<RateOperation&>(static_cast<OperationBase&>(w));
}
inline std::size_t RateTraits::count(const RateOperation& op) noexcept {
  return op.count_;
}
inline bool& RateTraits::armed(RateOperation& op) noexcept {
  return op.armed_;
}

inline void RateTraits::arm(RateOperation& head, const Clock& base, std::int64_t deadline,
                            std::int64_t wait, RateArmed& armed) noexcept {
  Executor& home = *head.home_;
  Timers& timers = ExecutorAccess::timers(home);
  if (&base != &home.clock()) {
    // Somebody else's clock: so much later by the executor's own, and after half a second at most,
    // as it may jump ahead. If it is not there when it should be it is looked at again, after a
    // millisecond, two, four, up to 512.
    constexpr std::int64_t kLook = 1'000'000;
    constexpr unsigned kMostLooks = 10;
    constexpr std::int64_t kMostWait = kLook << kMostLooks >> 1;
    if (wait < kMostWait) {
      wait = std::max(wait, head.looks_ == 0 ? 1 : kLook << head.looks_ >> 1);
      if (head.looks_ < kMostLooks) ++head.looks_;
    }
    deadline = time_sum(timers.now_ns(), std::min(wait, kMostWait));
  }
  if (deadline == kNeverNs) return;
  head.armed_ = true;
  head.set_timer(timers.shard_here(), deadline);
  armed.timers = &timers;
  armed.deadline = deadline;
  if (&home != current_executor()) {
    ExecutorAccess::enter(home);
    armed.visited = &home;
  }
}

// Pairs with end_timer().
inline void RateTraits::fired(RateOperation& head) noexcept {
  head.firings_.fired();
}

}  // namespace detail

RateLimiter::RateLimiter(double per_second, std::size_t burst, Clock* clock)
    : clock_(clock), core_(per_second, burst) {}

void RateLimiter::check(std::size_t n) const {
  if (n <= core_.burst()) return;
  throw std::invalid_argument("acquire(" + std::to_string(n) +
                              ") can never succeed: the RateLimiter's bucket holds at most " +
                              std::to_string(core_.burst()) +
                              " tokens, its burst; ask for fewer at a time");
}

const Clock& RateLimiter::clock_of(const Executor* executor) const noexcept {
  if (clock_ != nullptr) return *clock_;
  return executor != nullptr ? executor->clock() : system_steady_clock();
}

bool RateLimiter::try_acquire(std::size_t n) {
  check(n);
  const Clock& clock = clock_of(detail::current_executor());
  const std::int64_t now = detail::to_ns(clock.now());
  return n == 0 || core_.try_take(n, clock, now);
}

namespace detail {

bool RateOperation::start() {
  RateLimiter& limiter = *limiter_;
  limiter.check(count_);
  if (refused()) return false;
  home_ = executor;
  const Clock& clock = limiter.clock_of(home_);
  const std::int64_t now = to_ns(clock.now());
  return limiter.core_.start(*this, clock, now);
}

void RateOperation::unqueue() noexcept {
  const Clock& clock = limiter_->clock_of(home_);
  const std::int64_t now = to_ns(clock.now());
  limiter_->core_.leave(*this, clock, now);
}

void RateOperation::set_timer(TimerShard& where, std::int64_t deadline) noexcept {
  claim = [](Timer* timer) noexcept {
    static_cast<RateOperation*>(timer)->firings_.claimed();
    return true;
  };
  fire = [](Timer* timer) noexcept {
    auto& self = *static_cast<RateOperation*>(timer);
    const Clock& clock = self.limiter_->clock_of(self.home_);
    const std::int64_t now = to_ns(clock.now());
    self.limiter_->core_.timer_fired(self, clock, now);
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
std::coroutine_handle<> fork_all(Runnable* newest) noexcept {
  LocalQueue* const queue = local_queue();
  if (queue == nullptr) {
    Runnable* reversed = nullptr;
    while (newest != nullptr) {
      Runnable* const node = std::exchange(newest, newest->next);
      node->next = std::exchange(reversed, node);
    }
    newest = reversed;
  }
  while (newest != nullptr) {
    Fork* const rec = static_cast<Fork*>(std::exchange(newest, newest->next));
    rec->no_node();
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
  Runnable* granted = nullptr;
  for (;;) {
    if (token != Token::none) {
      if (Fork* const rec = next_child_(*this, token == Token::granted)) {
        Runnable& node = rec->as_node();
        node.next = std::exchange(granted, &node);
      }
    }
    if (next_ == count_) break;
    if (token == Token::refused) continue;
    wait_.emplace(*limiter_, std::size_t{1});
    scope = &join_->scope;
    wait_->prepare(*this, RateOperation::kKind<resumed, GoesOn::otherwise>);
    // Once it is parked the driver may go on elsewhere: nothing of it is touched here any more.
    if (wait_->start()) return fork_all(granted);
    token = end_of_wait();
  }
  // The driver's own unit, and those of children that have ended here.
  const std::uint32_t units = ended_ + 1;
  if (granted == nullptr) return deliver_to(join_, units);
  static_cast<Fork*>(granted)->carry += units;
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
