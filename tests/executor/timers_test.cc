// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/clock.h>
#include <magpie/detail/timers.h>
#include <magpie/sleep.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

namespace {

using namespace magpie;
using namespace magpie::detail;
using namespace std::chrono_literals;

constexpr std::int64_t kYearNs = 365LL * 24 * 3600 * 1'000'000'000;

// A clock that stands where it is put, and is not a ManualClock: the timers do not know that it is
// not the real one.
class FixedClock : public Clock {
 public:
  Deadline now() const override { return from_ns(ns.load()); }
  std::atomic<std::int64_t> ns{1'000};
};

struct TestTimer : Timer {
  TestTimer() {
    claim = [](Timer* timer) noexcept { return static_cast<TestTimer*>(timer)->wanted.load(); };
    fire = [](Timer* timer) noexcept {
      auto* const self = static_cast<TestTimer*>(timer);
      if (self->order != nullptr) self->order->push_back(self->deadline_ns);
      self->fired.fetch_add(1);
      self->fired.notify_all();
    };
  }
  std::atomic<bool> wanted{true};
  std::atomic<int> fired{0};
  std::vector<std::int64_t>* order = nullptr;
};

TimerShard& arm_at(Timers& timers, TestTimer& timer, std::int64_t deadline_ns) {
  timer.deadline_ns = deadline_ns;
  TimerShard& shard = timers.shard_here();
  std::lock_guard guard(shard.lock);
  Timers::arm(shard, timer);
  return shard;
}

bool disarm(TestTimer& timer) {
  std::lock_guard guard(timer.shard->lock);
  return Timers::disarm(*timer.shard, timer);
}

TEST(Timers, NothingIsDueInTheBeginning) {
  FixedClock clock;
  Timers timers(clock);
  EXPECT_EQ(timers.earliest(), kNeverNs);
  EXPECT_EQ(timers.pending(), 0U);
  EXPECT_FALSE(timers.serve_all(kNeverNs));
}

TEST(Timers, ATimerFiresOnceAtItsDeadlineAndNotBefore) {
  FixedClock clock;
  Timers timers(clock);
  TestTimer timer;
  TimerShard& shard = arm_at(timers, timer, 5'000);
  EXPECT_EQ(timers.earliest(), 5'000);
  EXPECT_EQ(timers.pending(), 1U);
  EXPECT_FALSE(timers.serve(shard, 4'999));
  EXPECT_EQ(timer.fired.load(), 0);
  EXPECT_TRUE(timers.serve(shard, 5'000));
  EXPECT_EQ(timer.fired.load(), 1);
  EXPECT_FALSE(timers.serve(shard, kNeverNs));
  EXPECT_EQ(timer.fired.load(), 1);
  EXPECT_EQ(timers.earliest(), kNeverNs);
}

TEST(Timers, AreCountedWithoutALockThatWorkersTake) {
  FixedClock clock;
  Timers timers(clock);
  TestTimer timer;
  TimerShard& shard = arm_at(timers, timer, 5'000);
  std::lock_guard guard(shard.lock);
  EXPECT_EQ(timers.pending(), 1U);  // would wait for ever
  EXPECT_TRUE(Timers::disarm(shard, timer));
  EXPECT_EQ(timers.pending(), 0U);
}

TEST(Timers, ADisarmedTimerIsGoneAtOnce) {
  FixedClock clock;
  Timers timers(clock);
  TestTimer first;
  TestTimer second;
  arm_at(timers, first, 5'000);
  arm_at(timers, second, 6'000);
  EXPECT_TRUE(disarm(first));
  EXPECT_FALSE(disarm(first));
  EXPECT_EQ(timers.pending(), 1U);
  EXPECT_EQ(timers.earliest(), 6'000);
  timers.serve_all(10'000);
  EXPECT_EQ(first.fired.load(), 0);
  EXPECT_EQ(second.fired.load(), 1);
  EXPECT_FALSE(disarm(second));
}

TEST(Timers, ATimerThatRefusesToBeClaimedDoesNotFire) {
  FixedClock clock;
  Timers timers(clock);
  TestTimer timer;
  timer.wanted = false;
  arm_at(timers, timer, 5'000);
  EXPECT_FALSE(timers.serve_all(5'000));
  EXPECT_EQ(timer.fired.load(), 0);
  EXPECT_EQ(timers.pending(), 0U);
}

TEST(Timers, ManyFireInTheOrderOfTheirDeadlines) {
  FixedClock clock;
  Timers timers(clock);
  constexpr std::size_t kCount = 1000;  // many times the batch that is taken under one lock
  auto many = std::make_unique<TestTimer[]>(kCount);
  std::vector<std::int64_t> order;
  for (std::size_t i = 0; i < kCount; ++i) {
    many[i].order = &order;
    arm_at(timers, many[i], static_cast<std::int64_t>(2000 + (i * 7919) % kCount));
  }
  EXPECT_TRUE(timers.serve_all(3'000));
  ASSERT_EQ(order.size(), kCount);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(Timers, AFiringTimerMayBeArmedAgain) {
  FixedClock clock;
  Timers timers(clock);
  struct Periodic : TestTimer {
    explicit Periodic(Timers& all) : timers_(all) {
      fire = [](Timer* timer) noexcept {
        auto* const self = static_cast<Periodic*>(timer);
        if (self->fired.fetch_add(1) < 4) arm_at(self->timers_, *self, self->deadline_ns + 100);
      };
    }
    Timers& timers_;
  } timer(timers);
  arm_at(timers, timer, 2'000);
  for (std::int64_t now = 2'000; now < 3'000; now += 100) timers.serve_all(now);
  EXPECT_EQ(timer.fired.load(), 5);
}

TEST(Timers, ExtremeDeadlinesAreKeptApart) {
  FixedClock clock;
  clock.ns = 0;
  Timers timers(clock);
  TestTimer past;
  TestTimer soon;
  TestTimer century;
  TestTimer last;
  TestTimer never;
  arm_at(timers, never, kNeverNs);
  arm_at(timers, last, kNeverNs - 1);
  arm_at(timers, century, 100 * kYearNs);
  arm_at(timers, soon, 1);
  arm_at(timers, past, std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(timers.earliest(), std::numeric_limits<std::int64_t>::min());
  timers.serve_all(0);
  EXPECT_EQ(past.fired.load(), 1);
  EXPECT_EQ(soon.fired.load(), 0);
  EXPECT_EQ(timers.earliest(), 1);
  timers.serve_all(1);
  EXPECT_EQ(soon.fired.load(), 1);
  timers.serve_all(100 * kYearNs - 1);
  EXPECT_EQ(century.fired.load(), 0);
  timers.serve_all(100 * kYearNs);
  EXPECT_EQ(century.fired.load(), 1);
  EXPECT_EQ(last.fired.load(), 0);
  timers.serve_all(kNeverNs - 1);
  EXPECT_EQ(last.fired.load(), 1);
  EXPECT_EQ(never.fired.load(), 0);
  EXPECT_TRUE(disarm(never));
}

TEST(Timers, TheMonitorFiresWhenNobodyServes) {
  Timers timers(system_steady_clock());
  TestTimer timer;
  const std::int64_t due = timers.now_ns() + 2'000'000;
  arm_at(timers, timer, due);
  timers.armed(due);
  timer.fired.wait(0);
  EXPECT_GE(timers.now_ns(), due);
}

TEST(Timers, TheMonitorSeesAnEarlierDeadlineThanTheOneItSleepsFor) {
  Timers timers(system_steady_clock());
  TestTimer century;
  TestTimer soon;
  const std::int64_t now = timers.now_ns();
  arm_at(timers, century, now + 100 * kYearNs);
  timers.armed(century.deadline_ns);
  std::this_thread::sleep_for(2ms);  // the monitor has gone to sleep, mostly
  arm_at(timers, soon, now + 1);
  timers.armed(soon.deadline_ns);
  soon.fired.wait(0);
  EXPECT_EQ(century.fired.load(), 0);
  EXPECT_TRUE(disarm(century));
}

TEST(Timers, TheMonitorEndsAtOnceWhateverIsArmed) {
  for (const std::int64_t ahead : {std::int64_t{1}, 100 * kYearNs, kNeverNs / 2}) {
    Timers timers(system_steady_clock());
    TestTimer timer;
    arm_at(timers, timer, timers.now_ns() + ahead);
    timers.armed(timer.deadline_ns);
    timers.stop_monitor();
    disarm(timer);
  }
}

TEST(Timers, ManyThreadsArmAndDisarmWhileTheMonitorFires) {
  Timers timers(system_steady_clock());
  constexpr int kThreads = 4;
  constexpr int kEach = 500;
  std::atomic<int> over{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        struct Shot : Timer {
          TimerWord<StdEnv> word;
          std::atomic<int> fired{0};
        } shot;
        shot.claim = [](Timer* timer) noexcept {
          return static_cast<Shot*>(timer)->word.begin_fire();
        };
        shot.fire = [](Timer* timer) noexcept {
          auto* const self = static_cast<Shot*>(timer);
          self->fired.fetch_add(1);
          self->word.end_fire();
        };
        shot.deadline_ns = timers.now_ns() + (i * 131 + t) % 3'000;
        TimerShard& shard = timers.shard_here();
        {
          std::lock_guard guard(shard.lock);
          Timers::arm(shard, shot);
        }
        timers.armed(shot.deadline_ns);
        if (i % 50 == 0) {
          while (shot.fired.load() == 0)
            std::this_thread::yield();  // nobody but the monitor serves
        }
        {
          std::lock_guard guard(shard.lock);
          Timers::disarm(shard, shot);
        }
        const bool was_off = shot.word.disarm();
        if (was_off == (shot.fired.load() == 0)) over.fetch_add(1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(over.load(), kThreads * kEach);
  EXPECT_EQ(timers.pending(), 0U);
}

TEST(Timers, InVirtualTimeThereIsOneQueueAndNoMonitor) {
  ManualClock clock;
  Timers timers(clock);
  TestTimer timer;
  TimerShard& here = arm_at(timers, timer, timers.now_ns() + 1);
  timers.armed(timer.deadline_ns);
  TimerShard* there = nullptr;
  std::thread([&] { there = &timers.shard_here(); }).join();
  EXPECT_EQ(there, &here);
  std::this_thread::sleep_for(3ms);
  EXPECT_EQ(timer.fired.load(), 0);
  disarm(timer);
}

TEST(Sleep, DeadlinesAreSeenWhileEveryWorkerIsBusy) {
  WorkStealingExecutor executor({.threads = 1});
  const auto busy = []() -> Task<void> {
    for (;;) co_await this_task::checkpoint();
  };
  EXPECT_THROW(executor.run(timeout(busy(), 2ms)), TimeoutError);
}

TEST(Sleep, FromANanosecondToACenturyIsAccepted) {
  WorkStealingExecutor executor({.threads = 2});
  executor.run(sleep_for(1ns));
  executor.run(sleep_for(0ns));
  executor.run(sleep_for(-5s));
  executor.run(sleep_until(Deadline::min()));
  for (const Duration longest : {Duration(std::chrono::hours(24 * 365 * 100)),
                                 Duration(std::chrono::hours(24 * 365 * 290)), Duration::never()}) {
    JoinHandle<void> handle = executor.spawn(sleep_for(longest));
    std::this_thread::sleep_for(1ms);
    EXPECT_FALSE(handle.done());
    handle.cancel();
    handle.wait();
    EXPECT_TRUE(handle.cancelled());
  }
  EXPECT_EQ(executor.stats().pending_timers, 0U);
}

// Threads wait on the steady clock, whatever zero the executor's clock counts from.
TEST(Sleep, EndsByAClockWithAnotherZero) {
  struct Shifted : Clock {
    explicit Shifted(Duration by) : shift(by) {}
    Deadline now() const override {
      return deadline_after(std::chrono::steady_clock::now(), shift);
    }
    const Duration shift;
  };
  for (const Duration by : {Duration(2400h), Duration(-2400h)}) {
    Shifted clock(by);
    WorkStealingExecutor executor({.threads = 1, .clock = &clock});
    executor.run(sleep_for(1ms));
    EXPECT_THROW(executor.run(timeout(sleep_for(1h), 1ms)), TimeoutError);
  }
}

}  // namespace
