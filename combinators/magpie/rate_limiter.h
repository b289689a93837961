// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// RateLimiter: so many starts per second, as a token bucket; and gather_rate_limited, a gather
// whose children begin at that rate.
//
//     RateLimiter limiter(10, 3);   // ten per second, three of them at once after a rest
//     co_await limiter.acquire();
//     std::vector<Page> pages = co_await gather_rate_limited(limiter, std::move(tasks));
//
// The bucket holds up to `burst` tokens and is full at first; acquire(n) takes n of them, or waits
// until they have flowed in. Within any stretch of time t at most burst + rate x t tokens are given
// out. Not a limit on what runs at the same time: that is Semaphore and gather_limited.
//
// No barging: waiters are served in the order in which they came; neither try_acquire nor a
// newcomer overtakes them, and an acquire(n) at the head is not starved by smaller ones. A
// cancelled waiter has taken nothing, and those behind it move up; what was given before the
// cancellation is delivered. acquire is a cancellation point; in a cancelled scope it takes
// nothing. Given directly to a race it takes its tokens only if it wins. No allocation.
//
// Time is the given clock's, else the executor's, and the steady clock's off every executor. The
// moments at which tokens fall due are counted from the last one at which the bucket was full, so
// they do not drift and late timers cost no token. A limiter whose users live on executors with
// different clocks should be given one of its own: without, no time passes for it from a call by
// one clock to the next call by another. A clock that is not the executor's is looked at when the
// executor's timers say that so much time has passed, and every 512 ms until then: so one that is
// as fast is exact, and one that jumps or lags is seen after half a second at most.
//
// Threads: all members from any thread; the limiter must outlive its waiters.

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <magpie/clock.h>
#include <magpie/config.h>
#include <magpie/detail/children.h>
#include <magpie/detail/join.h>
#include <magpie/detail/late.h>
#include <magpie/detail/operation.h>
#include <magpie/detail/rate_core.h>
#include <magpie/detail/timer.h>
#include <magpie/gather.h>

namespace magpie {

class RateLimiter;

namespace detail {

class RateOperation;
struct RateArmed;

/// What a RateLimiter is made of, for RateCore.
struct RateTraits : OperationTraits {
  using Acquire = RateOperation;
  using Clock = magpie::Clock;
  using Armed = RateArmed;

  static Acquire& acquire(Waiter& w) noexcept;
  static std::size_t count(const Acquire& op) noexcept;
  static bool& armed(Acquire& op) noexcept;
  static void arm(Acquire& head, const Clock& base, std::int64_t deadline, std::int64_t wait,
                  Armed& armed) noexcept;
  static void fired(Acquire& head) noexcept;
};

class [[nodiscard("co_await it")]] RateOperation : public Operation<RateOperation, void>,
                                                   private Timer {
 public:
  static constexpr const char* kWhat = "a rate limiter";
  static constexpr bool kTakes = true;
  RateOperation(RateLimiter& limiter, std::size_t count) noexcept
      : limiter_(&limiter), count_(count) {}
  RateOperation(RateOperation&& other) noexcept
      : Operation<RateOperation, void>(std::move(other)),
        limiter_(other.limiter_),
        count_(other.count_) {}

  MAGPIE_EXPORT bool start();
  MAGPIE_EXPORT void unqueue() noexcept;
  void deposit(Slot<void>& slot) noexcept { slot.emplace(); }
  /// The operation's own end, and that of its timer: afterwards nobody touches it.
  void finish(Slot<void>& slot) noexcept {
    Operation<RateOperation, void>::finish(slot);
    if (shard != nullptr) [[unlikely]]
      end_timer();
  }

 private:
  friend struct RateTraits;
  MAGPIE_EXPORT void end_timer() noexcept;
  void set_timer(TimerShard& where, std::int64_t deadline) noexcept;

  RateLimiter* limiter_;
  // Where it waits. Whoever sets the timer asks, and a wait that a cancellation has claimed may
  // still be the queue's first when it is scheduled and has another word there.
  Executor* home_ = nullptr;
  std::size_t count_;
  bool armed_ = false;      // under the limiter's lock
  std::uint8_t looks_ = 0;  // likewise: how often, if the clock is not the executor's
  BasicFirings<StdEnv> firings_;
};

}  // namespace detail

class MAGPIE_EXPORT RateLimiter {
 public:
  /// `per_second` tokens a second, up to `burst` at once. The clock must outlive the limiter.
  /// std::invalid_argument for a rate that is not positive and finite, and for a burst of 0.
  RateLimiter(double per_second, std::size_t burst, Clock* clock = nullptr);
  RateLimiter(const RateLimiter&) = delete;
  RateLimiter& operator=(const RateLimiter&) = delete;

  /// Waits for n tokens; acquire(0) completes at once. std::invalid_argument for n above the burst,
  /// which the bucket never holds.
  detail::RateOperation acquire(std::size_t n = 1) noexcept {
    return detail::RateOperation(*this, n);
  }
  /// Without waiting; false if somebody waits already. std::invalid_argument as acquire.
  bool try_acquire(std::size_t n = 1);

 private:
  friend class detail::RateOperation;

  void check(std::size_t n) const;
  const Clock& clock_of(const Executor* executor) const noexcept;

  Clock* const clock_;
  detail::RateCore<detail::RateTraits> core_;
};

namespace detail {

/// Takes the children of a gather to their start, a token each, in their order. It has no frame; it
/// holds a unit of the join until the last child has begun, so until then the join is there.
class MAGPIE_EXPORT RateDriver : OperationPlace {
 public:
  explicit RateDriver(RateLimiter& limiter) noexcept : limiter_(&limiter) {}
  RateDriver(RateDriver&& other) noexcept : limiter_(other.limiter_) {}

  /// The join's scope has been entered. Returns what this thread runs next.
  template <class Children>
  std::coroutine_handle<> begin(Join& join, Children& children) noexcept {
    join_ = &join;
    children_ = &children;
    count_ = children.size();
    next_child_ = next_child<Children>;
    const auto units = static_cast<std::uint32_t>(count_ + 1);
    join.start_counting(units);
    join.home = current_executor();
    children.for_each_with_frame([&](auto& child, std::uint32_t index, std::uintptr_t its_frame) {
      child.index = index;
      if constexpr (std::remove_cvref_t<decltype(child)>::kForked)
        child.template arm<false>(join, its_frame);
    });
    return drive(Token::none);
  }

 private:
  template <class Children>
  static Fork* next_child(RateDriver& driver, bool run) noexcept {
    auto& children = *static_cast<Children*>(driver.children_);
    const std::size_t next = driver.next_++;
    Fork* forked = nullptr;
    const auto take = [&](auto& child) noexcept {
      using Child = std::remove_cvref_t<decltype(child)>;
      SlotState outcome = SlotState::empty;
      if constexpr (Child::kForked) {
        if (run) {
          forked = &child;
          return;
        }
        if (child.coroutine != 0) {
          std::coroutine_handle<>::from_address(reinterpret_cast<void*>(child.coroutine)).destroy();
        }
      } else if (run) {
        if (!child.start(*driver.join_, false)) return;
        outcome = child.slot().state();
      } else {
        child.stand = Stand::moved;  // dropped: it cannot be awaited any more
      }
      if (outcome != SlotState::value) driver.join_->kind->settle(driver.join_, &child, outcome);
      ++driver.ended_;
    };
    if constexpr (requires { children[next]; }) {
      take(children[next]);
    } else {
      std::size_t i = 0;
      children.for_each([&](auto& child) noexcept {
        if (i++ == next) take(child);
      });
    }
    return forked;
  }

  enum class Token : std::uint8_t { none, granted, refused };
  std::coroutine_handle<> drive(Token token) noexcept;
  Token end_of_wait() noexcept;
  static void resumed(Runnable* node) noexcept;

  RateLimiter* limiter_;
  Join* join_ = nullptr;
  void* children_ = nullptr;
  // Starts the next child if it needs no fork, else gives it; with false it is dropped, unstarted.
  Fork* (*next_child_)(RateDriver&, bool run) noexcept = nullptr;
  std::size_t count_ = 0;
  std::size_t next_ = 0;
  std::uint32_t ended_ = 0;  // units of children that ended here
  Late<RateOperation> wait_;
};

/// A gather whose children begin one after the other.
template <class Gather>
class [[nodiscard("co_await it")]] RatedGather : public Gather {
 public:
  template <class... A>
  explicit RatedGather(RateLimiter& limiter, A&&... given)
      : Gather(std::in_place, std::forward<A>(given)...), driver_(limiter) {}
  RatedGather(RatedGather&& other) : Gather(std::move(other)), driver_(std::move(other.driver_)) {}

  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> awaiting) noexcept {
    Scope& outer = *awaiting.promise().scope;
    this->scope.enter(&outer, outer.task());
    if (outer.cancelled()) [[unlikely]] {
      refuse_children(this->children_);
      this->failures.store(GatherJoin::kRefused, std::memory_order_relaxed);
      return detail::transfer(awaiting);
    }
    this->kind = &Gather::kKind;
    this->parent = awaiting;
    return driver_.begin(*this, this->children_);
  }

 private:
  RateDriver driver_;
};

template <class Policy, class... A>
auto rated_gather(RateLimiter& limiter, A&&... given) {
  using Gather = decltype(detail::gather_as<Policy>(std::forward<A>(given)...));
  return RatedGather<Gather>(limiter, std::forward<A>(given)...);
}

template <class... A>
concept Gatherables = (ChildLike<A> && ...) || (sizeof...(A) == 1 && (ChildRange<A> && ...));

}  // namespace detail

/// gather, fail-fast, whose children begin in their order, each with one token of the limiter.
/// Takes a range of tasks or several of them, and whatever else gather takes. After a failure or a
/// cancellation the children that have not begun never do. The limiter may be shared with others.
template <class... A>
requires detail::Gatherables<A...>
auto gather_rate_limited(RateLimiter& limiter, A&&... tasks) {
  return detail::rated_gather<detail::FailFast>(limiter, std::forward<A>(tasks)...);
}

/// The same with gather's other policies: the siblings of a child that failed go on and begin.
template <class... A>
requires detail::Gatherables<A...>
auto gather_rate_limited(KeepGoing, RateLimiter& limiter, A&&... tasks) {
  return detail::rated_gather<KeepGoing>(limiter, std::forward<A>(tasks)...);
}

/// A Result<T> for each; a child that a cancellation kept from beginning is cancelled.
template <class... A>
requires detail::Gatherables<A...>
auto gather_rate_limited(ReturnExceptions, RateLimiter& limiter, A&&... tasks) {
  return detail::rated_gather<ReturnExceptions>(limiter, std::forward<A>(tasks)...);
}

}  // namespace magpie
