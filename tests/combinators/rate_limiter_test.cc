// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)
// ctest-leave-out: gcc (numbers)

// RateLimiter: what api.md, sections 0 and 6, says of it. gather_rate_limited:
// gather_rate_limited_test.cc.

#include <magpie/rate_limiter.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;
using std::chrono::nanoseconds;

class RateLimiterTest : public OnMachine {};

/// A clock that shows what it is told to.
struct SetClock : Clock {
  Deadline now() const override { return Deadline(nanoseconds(ns.load())); }
  std::atomic<std::int64_t> ns{0};
};

// --- the numbers ---------------------------------------------------------------------------------

TEST(RateLimiterNumbers, ThatMakeNoSense) {
  for (const double rate : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                            std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(RateLimiter(rate, 1), std::invalid_argument) << rate;
  }
  EXPECT_THROW(RateLimiter(1, 0), std::invalid_argument);
  RateLimiter limiter(1, 3);
  EXPECT_THROW((void)limiter.try_acquire(4), std::invalid_argument);
  EXPECT_TRUE(limiter.try_acquire(3));
}

TEST_ON_THREADS(RateLimiterTest, MoreThanTheBurstCanNeverBeTaken) {
  RateLimiter limiter(1, 3);
  machine.run([&]() -> Task<> {
    Result<void> r = co_await as_result(limiter.acquire(4));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    co_await limiter.acquire(3);
  });
  EXPECT_EQ(machine.elapsed(), 0s);
}

TEST_ON_THREADS(RateLimiterTest, BucketIsFullAtFirst) {
  RateLimiter limiter(10, 4);
  machine.run([&]() -> Task<> {
    co_await sleep_for(1h);  // not more than full
    for (int i = 0; i < 4; ++i) co_await limiter.acquire();
    EXPECT_FALSE(limiter.try_acquire());
    EXPECT_EQ(machine.elapsed(), 1h);
    co_await limiter.acquire();
    EXPECT_EQ(machine.elapsed(), 1h + 100ms);
  });
}

TEST_ON_THREADS(RateLimiterTest, TryAcquireTakesWhatHasFlowedIn) {
  RateLimiter limiter(1000, 2);
  machine.run([&]() -> Task<> {
    EXPECT_TRUE(limiter.try_acquire(2));
    EXPECT_FALSE(limiter.try_acquire());
    EXPECT_TRUE(limiter.try_acquire(0));
    co_await sleep_for(1ms - 1ns);
    EXPECT_FALSE(limiter.try_acquire());
    co_await sleep_for(1ns);
    EXPECT_TRUE(limiter.try_acquire());
    EXPECT_FALSE(limiter.try_acquire());
    co_await sleep_for(1500us);
    EXPECT_TRUE(limiter.try_acquire());
    co_await sleep_for(500us);
    EXPECT_TRUE(limiter.try_acquire());
  });
}

TEST_ON_THREADS(RateLimiterTest, AcquireOfNothingCompletesAtOnce) {
  RateLimiter limiter(0.001, 1);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire();
    JoinHandle<void> waiting = executor.spawn(limiter.acquire());
    co_await sleep_for(1s);
    co_await limiter.acquire(0);
    EXPECT_EQ(machine.elapsed(), 1s);
    co_await waiting;
    EXPECT_EQ(machine.elapsed(), 1000s);
  });
}

// --- the rate ------------------------------------------------------------------------------------

// Starts within ten seconds, as seen by many tasks that all want to start.
std::vector<nanoseconds> starts_of(Machine& machine, RateLimiter& limiter, int tasks) {
  std::mutex mutex;
  std::vector<nanoseconds> starts;
  auto worker = [&]() -> Task<> {
    for (;;) {
      co_await limiter.acquire();
      std::lock_guard guard(mutex);
      starts.push_back(machine.elapsed());
    }
  };
  machine.run([&]() -> Task<> {
    std::vector<Task<>> workers;
    for (int i = 0; i < tasks; ++i) workers.push_back(worker());
    auto all = gather(std::move(workers));
    Result<void> r = co_await as_result(timeout(std::move(all), 10s));
    EXPECT_TRUE(r.is_timeout());
  });
  std::sort(starts.begin(), starts.end());
  return starts;
}

TEST_ON_THREADS(RateLimiterTest, TenSecondsHaveRateTimesTimeAndABurst) {  // B197
  struct Case {
    double rate;
    std::size_t burst;
  };
  for (const Case& c : {Case{10, 1}, Case{100, 7}, Case{3, 2}, Case{0.7, 1}, Case{333.3, 40}}) {
    Machine fresh(threads);
    RateLimiter limiter(c.rate, c.burst);
    const auto starts = starts_of(fresh, limiter, 5);
    const double expected = c.rate * 10 + static_cast<double>(c.burst);
    EXPECT_NEAR(static_cast<double>(starts.size()), expected, 1) << c.rate;
    // Each start on its nanosecond: the first `burst` at once, number k after them at k / rate.
    for (std::size_t i = 0; i < starts.size(); ++i) {
      const double k = i < c.burst ? 0 : static_cast<double>(i - c.burst + 1);
      EXPECT_EQ(starts[i].count(), static_cast<std::int64_t>(std::ceil(k * 1e9 / c.rate - 1e-6)))
          << c.rate << ", start " << i;
    }
  }
}

TEST_ON_THREADS(RateLimiterTest, DoesNotDriftByRounding) {  // B197
  RateLimiter limiter(3, 1);  // a third of a second is no whole number of nanoseconds
  machine.run([&]() -> Task<> {
    for (int i = 0; i <= 3000; ++i) co_await limiter.acquire();
  });
  EXPECT_EQ(machine.elapsed(), 1000s);
}

TEST_ON_THREADS(RateLimiterTest, RateIsTakenForTheDecimalNumberThatItIs) {
  for (const double period : {10.0, 5.0, 2.5, 1e6, 0.0016}) {
    Machine fresh(threads);
    RateLimiter limiter(1 / period, 1);
    fresh.run([&]() -> Task<> {
      for (int i = 0; i <= 7; ++i) co_await limiter.acquire();
    });
    EXPECT_EQ(fresh.elapsed(),
              nanoseconds(static_cast<std::int64_t>(std::llround(7 * period * 1e9))));
  }
}

TEST_ON_THREADS(RateLimiterTest, LargeRequestsWaitForAllOfTheirTokens) {
  RateLimiter limiter(10, 5);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire(5);
    co_await limiter.acquire(5);
    EXPECT_EQ(machine.elapsed(), 500ms);
    co_await limiter.acquire(2);
    EXPECT_EQ(machine.elapsed(), 700ms);
    co_await sleep_for(250ms);  // two and a half are there
    co_await limiter.acquire(3);
    EXPECT_EQ(machine.elapsed(), 1s);
  });
}

TEST_ON_THREADS(RateLimiterTest, ExtremeRatesNeitherHangNorOverflow) {
  RateLimiter torrent(1e300, std::numeric_limits<std::size_t>::max());
  RateLimiter drip(1e-300, 1);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 10; ++i) co_await torrent.acquire(std::numeric_limits<std::size_t>::max());
    EXPECT_TRUE(drip.try_acquire());
    EXPECT_FALSE(drip.try_acquire());
    Result<void> r = co_await as_result(timeout(drip.acquire(), 24h * 365 * 100));
    EXPECT_TRUE(r.is_timeout());
  });
}

// --- order and cancellation ----------------------------------------------------------------------

Task<> take_and_note(RateLimiter& limiter, std::size_t n, int name, std::vector<int>& order) {
  static std::mutex mutex;
  co_await limiter.acquire(n);
  std::lock_guard guard(mutex);
  order.push_back(name);
}

TEST_ON_THREADS(RateLimiterTest, FirstInFirstOutAndNobodyOvertakes) {
  RateLimiter limiter(10, 1);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    co_await limiter.acquire();
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 20; ++i) {
      handles.push_back(executor.spawn(take_and_note(limiter, 1, i, order)));
      co_await sleep_for(1us);
    }
    for (int i = 0; i < 20; ++i) {
      co_await sleep_for(100ms);
      EXPECT_FALSE(limiter.try_acquire() && i < 19);  // the token belongs to the oldest waiter
    }
    for (auto& h : handles) co_await h;
  });
  std::vector<int> expected;
  for (int i = 0; i < 20; ++i) expected.push_back(i);
  EXPECT_EQ(order, expected);
}

TEST_ON_THREADS(RateLimiterTest, LargeRequestAtTheHeadIsNotStarved) {
  RateLimiter limiter(10, 4);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    co_await limiter.acquire(4);
    JoinHandle<void> large = executor.spawn(take_and_note(limiter, 4, 4, order));
    co_await sleep_for(150ms);  // a token is there
    std::vector<JoinHandle<void>> small;
    for (int i = 0; i < 3; ++i) {
      small.push_back(executor.spawn(take_and_note(limiter, 1, 1, order)));
    }
    co_await sleep_for(1ms);
    EXPECT_FALSE(limiter.try_acquire());
    EXPECT_TRUE(order.empty());
    co_await large;
    EXPECT_EQ(machine.elapsed(), 400ms);
    for (auto& h : small) co_await h;
    EXPECT_EQ(machine.elapsed(), 700ms);
  });
  EXPECT_EQ(order, (std::vector<int>{4, 1, 1, 1}));
}

TEST_ON_THREADS(RateLimiterTest, WaiterThatLeavesGivesItsPlaceToTheNext) {  // B197
  RateLimiter limiter(1, 3);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    co_await limiter.acquire(3);
    JoinHandle<void> large = executor.spawn(take_and_note(limiter, 3, 3, order));
    co_await sleep_for(1ms);
    JoinHandle<void> one = executor.spawn(take_and_note(limiter, 1, 1, order));
    co_await sleep_for(1ms);
    JoinHandle<void> two = executor.spawn(take_and_note(limiter, 1, 2, order));
    co_await sleep_for(1500ms - 2ms);
    large.cancel();
    co_await one;  // its token was there: at once
    EXPECT_EQ(machine.elapsed(), 1500ms);
    co_await two;
    EXPECT_EQ(machine.elapsed(), 2s);
    Result<void> r = co_await as_result(large);
    EXPECT_TRUE(r.is_cancelled());
  });
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(RateLimiterTest, CancelledWaiterHasTakenNothing) {  // B197
  RateLimiter limiter(10, 2);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire(2);
    for (int i = 0; i < 50; ++i) {
      Result<void> r = co_await try_timeout(limiter.acquire(2), 1ms);
      EXPECT_TRUE(r.is_timeout());
    }
    co_await limiter.acquire(2);
    EXPECT_EQ(machine.elapsed(), 200ms);
  });
}

TEST_ON_THREADS(RateLimiterTest, TokenGrantedBeforeTheCancellationIsDelivered) {
  SetClock clock;
  RateLimiter limiter(1, 1, &clock);
  EXPECT_TRUE(limiter.try_acquire());
  machine.run([&]() -> Task<> {
    bool got = false;
    auto taker = [&]() -> Task<> {
      co_await limiter.acquire();
      got = true;
      co_await this_task::checkpoint();
    };
    JoinHandle<void> handle = executor.spawn(taker());
    co_await sleep_for(1ms);
    clock.ns = 1'000'000'000;
    EXPECT_FALSE(limiter.try_acquire());  // gives the token to the waiter
    handle.cancel();                      // in time or not
    co_await as_result(handle);
    EXPECT_TRUE(got);
  });
}

TEST(RateLimiterOrder, TokenOfAWaiterThatWasCancelledGoesToTheNext) {
  SetClock clock;
  RateLimiter limiter(1, 1, &clock);
  Machine machine(1);  // so that the cancelled waiter has not left the queue when it is served
  EXPECT_TRUE(limiter.try_acquire());
  machine.run([&]() -> Task<> {
    auto waits_in_a_race = [&]() -> Task<std::size_t> {
      auto first = co_await race(limiter.acquire(), sleep_for(2s));
      co_return first.index;
    };
    JoinHandle<void> cancelled = machine.executor.spawn(limiter.acquire());
    co_await sleep_for(1us);
    JoinHandle<std::size_t> second = machine.executor.spawn(waits_in_a_race());
    co_await sleep_for(1us);
    JoinHandle<void> next = machine.executor.spawn(limiter.acquire());
    co_await sleep_for(1us);
    clock.ns = 1'000'000'000;
    cancelled.cancel();
    EXPECT_FALSE(limiter.try_acquire());  // gives the token to the second
    const std::size_t winner = co_await second;
    EXPECT_EQ(winner, 0u);
    EXPECT_FALSE(next.done());
    clock.ns = 2'000'000'000;
    EXPECT_FALSE(limiter.try_acquire());
    co_await next;
    EXPECT_FALSE(limiter.try_acquire());
    Result<void> r = co_await as_result(cancelled);
    EXPECT_TRUE(r.is_cancelled());
  });
}

TEST_ON_THREADS(RateLimiterTest, InACancelledScopeNothingIsTaken) {
  RateLimiter limiter(1, 1);
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await limiter.acquire();
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_TRUE(limiter.try_acquire());
  });
}

TEST_ON_THREADS(RateLimiterTest, GivenToARaceItTakesItsTokenOnlyIfItWins) {
  RateLimiter limiter(1, 1);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire();
    auto later = co_await race(sleep_for(500ms), limiter.acquire());
    EXPECT_EQ(later.index, 0u);
    auto won = co_await race(sleep_for(2s), limiter.acquire());
    EXPECT_EQ(won.index, 1u);
    EXPECT_EQ(machine.elapsed(), 1s);
    RateLimiter other(1, 1);
    auto first = co_await race(other.acquire(), limiter.acquire());
    EXPECT_EQ(first.index, 0u);
    EXPECT_FALSE(other.try_acquire());
  });
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(RateLimiterTest, MovedBeforeItIsAwaited) {
  RateLimiter limiter(1, 2);
  machine.run([&]() -> Task<> {
    auto make = [&] { return limiter.acquire(2); };
    auto later = make();
    auto moved = std::move(later);
    co_await std::move(moved);
    EXPECT_FALSE(limiter.try_acquire());
  });
}

// --- clocks --------------------------------------------------------------------------------------

TEST(RateLimiterClocks, OffEveryExecutorItIsTheSteadyClock) {
  RateLimiter limiter(1000, 5);
  int taken = 0;
  auto begun = std::chrono::steady_clock::now();  // no later than the one that is refused
  while (limiter.try_acquire()) {
    ++taken;
    begun = std::chrono::steady_clock::now();
  }
  EXPECT_GE(taken, 5);
  while (!limiter.try_acquire(2)) {
  }
  EXPECT_GE(std::chrono::steady_clock::now() - begun, 500us);
}

TEST(RateLimiterClocks, GivenOneIsTheOneThatCounts) {
  SetClock clock;
  RateLimiter limiter(10, 2, &clock);
  EXPECT_TRUE(limiter.try_acquire(2));
  clock.ns = 99'999'999;
  EXPECT_FALSE(limiter.try_acquire());
  clock.ns = 100'000'000;
  EXPECT_TRUE(limiter.try_acquire());
  clock.ns = 100'000'000'000;
  EXPECT_TRUE(limiter.try_acquire(2));
  EXPECT_FALSE(limiter.try_acquire());
}

TEST(RateLimiterClocks, OneThatGoesBackwardsStandsStill) {  // B197
  SetClock clock;
  clock.ns = 10'000'000'000;
  RateLimiter limiter(1, 2, &clock);
  EXPECT_TRUE(limiter.try_acquire(2));
  clock.ns = 5'000'000'000;
  EXPECT_FALSE(limiter.try_acquire());
  clock.ns = 10'999'999'999;
  EXPECT_FALSE(limiter.try_acquire());
  clock.ns = 11'000'000'000;
  EXPECT_TRUE(limiter.try_acquire());
  clock.ns = std::numeric_limits<std::int64_t>::min();
  EXPECT_FALSE(limiter.try_acquire());
  clock.ns = std::numeric_limits<std::int64_t>::max();
  EXPECT_TRUE(limiter.try_acquire(2));
}

TEST_ON_THREADS(RateLimiterTest, WaitersFollowAClockThatIsNotTheExecutors) {
  SetClock clock;
  RateLimiter limiter(1, 1, &clock);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire();
    JoinHandle<void> waiting = executor.spawn(limiter.acquire());
    co_await sleep_for(10s);  // its own clock has not moved
    EXPECT_FALSE(waiting.done());
    clock.ns = 999'999'999;
    co_await sleep_for(10s);
    EXPECT_FALSE(waiting.done());
    clock.ns = 1'000'000'000;
    co_await waiting;
  });
}

TEST_ON_THREADS(RateLimiterTest, AForeignClockThatJumpsIsSeenWithinHalfASecond) {
  SetClock clock;
  RateLimiter limiter(0.1, 1, &clock);
  machine.run([&]() -> Task<> {
    co_await limiter.acquire();
    JoinHandle<void> waiting = executor.spawn(limiter.acquire());
    co_await sleep_for(1s);
    EXPECT_FALSE(waiting.done());
    clock.ns = 10'000'000'000;
    co_await waiting;
  });
  EXPECT_LE(machine.elapsed(), 1512ms);
}

// Its time passes as the executor's does: looks before the token is due do not make it later.
TEST_ON_THREADS(RateLimiterTest, AForeignClockOfTheSamePaceIsExact) {
  struct Shifted : Clock {
    Deadline now() const override { return executors->now() - 1h; }
    Clock* executors = nullptr;
  } clock;
  clock.executors = &executor.clock();
  RateLimiter limiter(0.1, 1, &clock);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 3; ++i) co_await limiter.acquire();
  });
  EXPECT_EQ(machine.elapsed(), 20s);
}

TEST_ON_THREADS(RateLimiterTest, UsersOnTwoClocksDoNotHang) {
  RateLimiter limiter(10, 1);
  Machine other(1);
  while (limiter.try_acquire()) {
  }  // by the steady clock
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 3; ++i) co_await limiter.acquire();
  });
  EXPECT_GE(machine.elapsed(), 200ms);
  EXPECT_LE(machine.elapsed(), 300ms);
  other.run([&]() -> Task<> { co_await limiter.acquire(); });
  EXPECT_EQ(other.elapsed(), 100ms);
}

// --- at any moment -------------------------------------------------------------------------------

TEST(RateLimiterInASimulation, NoTokenIsLostOrGivenTwice) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    RateLimiter limiter(1000, 3);
    const Deadline start = executor.clock().now();
    std::size_t taken = 0;
    detail::Random random(executor.seed());
    auto taker = [&](std::uint64_t n) -> Task<> {
      co_await limiter.acquire(n);
      taken += n;
    };
    auto main = [&]() -> Task<> {
      std::vector<JoinHandle<void>> handles;
      for (int i = 0; i < 12; ++i) {
        handles.push_back(spawn(taker(random.below(3) + 1)));
        if (random.below(2) == 0) co_await this_task::yield();
        if (random.below(3) == 0) handles[random.below(handles.size())].cancel();
        if (random.below(4) == 0) co_await sleep_for(std::chrono::microseconds(random.below(3000)));
      }
      for (auto& h : handles) co_await as_result(h);
      const auto passed = executor.clock().now() - start;
      const double most = 3 + 1000 * std::chrono::duration<double>(passed).count();
      if (static_cast<double>(taken) > most + 1e-9) throw std::runtime_error("too many");
      // Nothing is lost: the bucket is full after exactly as long as it lacks tokens.
      co_await sleep_for(3ms);
      if (!limiter.try_acquire(3)) throw std::runtime_error("not full");
      if (limiter.try_acquire()) throw std::runtime_error("more than full");
    };
    executor.run(main());
    if (executor.stats().pending_timers != 0) throw std::runtime_error("a timer was left");
  });
}

// Everything at once, on several executors, in real time: what is given out stays within the rate.
TEST(RateLimiterAcrossThreads, StaysWithinItsRate) {
  WorkStealingExecutor workers({.threads = 3});
  WorkStealingExecutor others({.threads = 1});
  constexpr double kRate = 50'000;
  constexpr std::size_t kBurst = 8;
  RateLimiter limiter(kRate, kBurst);
  std::atomic<std::size_t> taken{0};
  const auto begun = std::chrono::steady_clock::now();
  auto body = [&](std::uint64_t seed) -> Task<> {
    detail::Random random(seed);
    for (int i = 0; i < static_cast<int>(scaled(1500)); ++i) {
      const auto n = static_cast<std::size_t>(random.below(4) + 1);
      const auto limit = std::chrono::microseconds(random.below(400));
      switch (random.below(4)) {
        case 0: {
          Result<void> r = co_await try_timeout(limiter.acquire(n), limit);
          if (r.has_value()) taken += n;
          break;
        }
        case 1: {
          auto first = co_await race(limiter.acquire(n), sleep_for(limit));
          if (first.index == 0) taken += n;
          break;
        }
        case 2: {
          auto first = co_await any(limiter.acquire(n), limiter.acquire(1), sleep_for(limit));
          if (first.index == 0) taken += n;
          if (first.index == 1) taken += 1;
          break;
        }
        default:
          if (limiter.try_acquire(n)) taken += n;
          co_await this_task::yield();
      }
    }
  };
  std::vector<JoinHandle<void>> handles;
  for (std::uint64_t i = 0; i < 8; ++i) {
    handles.push_back(i % 4 == 0 ? others.spawn(body(i)) : workers.spawn(body(i)));
  }
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
  EXPECT_LE(static_cast<double>(taken.load()), kBurst + kRate * passed.count() + 1);
  EXPECT_GT(taken.load(), 0u);
}

// The last waiter may destroy the limiter as soon as it goes on.
TEST(RateLimiterAcrossThreads, WokenWaiterMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (int round = 0; round < static_cast<int>(scaled(400)); ++round) {
    auto limiter = std::make_unique<RateLimiter>(20'000, 1);
    EXPECT_TRUE(limiter->try_acquire());
    auto body = [&]() -> Task<> {
      co_await limiter->acquire();
      limiter.reset();
    };
    EXPECT_TRUE(workers.spawn(body()).wait().has_value());
  }
}

// Waiters of one executor are served by another one's timers, while the executors come and go.
TEST(RateLimiterAcrossThreads, ExecutorsMayGoWhileOthersWait) {
  RateLimiter limiter(20'000, 1);
  auto body = [&]() -> Task<> {
    for (int i = 0; i < 3; ++i) co_await limiter.acquire();
  };
  for (int round = 0; round < static_cast<int>(scaled(100)); ++round) {
    WorkStealingExecutor a({.threads = 1});
    JoinHandle<void> kept;
    {
      WorkStealingExecutor b({.threads = 1});
      JoinHandle<void> in_b = b.spawn(body());
      kept = a.spawn(body());
      if (round % 2 == 0) {
        EXPECT_TRUE(in_b.wait().has_value());
      }
    }  // or cancels what still waits
    EXPECT_TRUE(kept.wait().has_value());
  }
}

}  // namespace
}  // namespace magpie
