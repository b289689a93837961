// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600
// ctest-leave-out: gcc (threads and time, the coroutines are those of task_test)
// ctest-leave-out: asan (time and threads, hardly memory)

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/blocking.h>
#include <magpie/cancellation.h>
#include <magpie/detail/timers.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/manual_clock.h>
#include <magpie/resume_on.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

namespace {

using namespace magpie;
using namespace std::chrono_literals;

// A jump that must not happen is given this long to happen all the same. A failure to jump is a
// hang, which ctest's timeout ends.
constexpr auto kGrace = 3ms;

int rounds() {
  const char* const text = std::getenv("MAGPIE_CLOCK_ROUNDS");
  return text != nullptr ? std::atoi(text) : 5;
}

void on_several_threads(const std::function<void(std::size_t threads)>& test) {
  for (int round = 0; round < rounds(); ++round) {
    for (const std::size_t threads : {1U, 2U, 8U}) {
      SCOPED_TRACE("threads: " + std::to_string(threads));
      test(threads);
    }
  }
}

ExecutorOptions with(std::size_t threads, Clock& clock) {
  ExecutorOptions options;
  options.threads = threads;
  options.clock = &clock;
  return options;
}

Task<void> sleep_often(int times, std::chrono::nanoseconds each) {
  for (int i = 0; i < times; ++i) co_await sleep_for(each);
}

TEST(ManualClock, StartsAfterTheEpochAndStandsStill) {
  ManualClock clock;
  const Deadline start = clock.now();
  EXPECT_GT(start, Deadline());
  EXPECT_EQ(clock.now(), start);
}

TEST(ManualClock, AdvanceWithoutAnExecutorMovesIt) {
  ManualClock clock;
  const Deadline start = clock.now();
  clock.advance(5s);
  clock.advance(0s);
  EXPECT_EQ(clock.now() - start, 5s);
}

TEST(ManualClock, NeverOverflows) {
  ManualClock clock;
  clock.advance(Duration::never());
  const Deadline end = clock.now();
  clock.advance(Duration::never());
  EXPECT_EQ(clock.now(), end);
}

TEST(ManualClock, ReachesTheEndOfTimeAlsoWithAnExecutor) {
  ManualClock clock;
  WorkStealingExecutor executor(with(1, clock));
  executor.run(sleep_for(1h));
  clock.advance(Duration::never());
  const Deadline end = clock.now();
  clock.advance(Duration::never());
  EXPECT_EQ(clock.now(), end);
}

TEST(ManualClock, AHundredDaysOfSleepEndAtOnceAndExactly) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    executor.run(sleep_for(2400h));
    EXPECT_EQ(clock.now() - start, 2400h);
  });
}

TEST(ManualClock, ElapsedTimeIsThatOfTheLongestOfMany) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    std::vector<Task<void>> tasks;
    for (int i = 1; i <= 40; ++i) tasks.push_back(sleep_often(i % 7 + 1, std::chrono::seconds(i)));
    executor.run(gather(std::move(tasks)));
    std::chrono::seconds longest{};
    for (int i = 1; i <= 40; ++i)
      longest = std::max(longest, std::chrono::seconds(i * (i % 7 + 1)));
    EXPECT_EQ(clock.now() - start, longest);
  });
}

TEST(ManualClock, EachSleeperSeesItsOwnTimeExactly) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<int> wrong{0};
    const auto sleeper = [](std::atomic<int>& mistakes, int seed) -> Task<void> {
      Deadline expected = co_await this_task::now();
      for (int i = 0; i < 20; ++i) {
        const auto pause = std::chrono::nanoseconds(1 + (seed * 7919 + i * 104729) % 1000);
        expected += pause;
        co_await sleep_for(pause);
        const Deadline now = co_await this_task::now();
        if (now != expected) mistakes.fetch_add(1);
        if (i % 3 == 0) co_await this_task::yield();
      }
    };
    std::vector<Task<void>> tasks;
    for (int i = 0; i < 30; ++i) tasks.push_back(sleeper(wrong, i));
    executor.run(gather(std::move(tasks)));
    EXPECT_EQ(wrong.load(), 0);
  });
}

TEST(ManualClock, TasksThatForkInBetweenSeeExactTime) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const auto leaf = [](int i) -> Task<int> {
      co_await sleep_for(std::chrono::milliseconds(i));
      co_return i;
    };
    const auto body = [&leaf]() -> Task<std::chrono::nanoseconds> {
      const Deadline start = co_await this_task::now();
      for (int i = 0; i < 10; ++i) {
        std::vector<Task<int>> tasks;
        for (int k = 1; k <= 16; ++k) tasks.push_back(leaf(k));
        co_await gather(std::move(tasks));
      }
      co_return co_await this_task::now() - start;
    };
    EXPECT_EQ(executor.run(body()), 160ms);
  });
}

TEST(ManualClock, TimeoutsFireAtTheirTime) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    Event never;
    const Deadline start = clock.now();
    EXPECT_THROW(executor.run(timeout(never.wait(), 1h)), TimeoutError);
    EXPECT_EQ(clock.now() - start, 1h);
    EXPECT_NO_THROW(executor.run(timeout(sleep_for(1h), 1h + 1ns)));
    EXPECT_EQ(clock.now() - start, 2h);
  });
}

TEST(ManualClock, StandsStillWhileATaskRuns) {
  on_several_threads([](std::size_t threads) {
    if (threads == 1) return;  // the spinning task would keep the sleeper from starting
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<bool> slept{false};
    std::atomic<bool> go{false};
    std::atomic<bool> started{false};
    const auto spins = [](std::atomic<bool>& running, std::atomic<bool>& end) -> Task<void> {
      running = true;
      while (!end.load()) std::this_thread::yield();
      co_return;
    };
    const auto sleeps = [](std::atomic<bool>& done) -> Task<void> {
      co_await sleep_for(1s);
      done = true;
    };
    const Deadline start = clock.now();
    std::thread watcher([&] {
      while (!started.load()) std::this_thread::yield();
      std::this_thread::sleep_for(kGrace);
      EXPECT_EQ(clock.now(), start);
      EXPECT_FALSE(slept.load());
      go = true;
    });
    executor.run(gather(spins(started, go), sleeps(slept)));
    watcher.join();
    EXPECT_TRUE(slept.load());
    EXPECT_EQ(clock.now() - start, 1s);
  });
}

TEST(ManualClock, StandsStillWhileNoThreadBlocks) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    JoinHandle<void> handle = executor.spawn(sleep_for(1h));
    std::this_thread::sleep_for(kGrace);
    EXPECT_FALSE(handle.done());
    EXPECT_EQ(clock.now(), start);
    handle.wait();
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, StandsStillOnceWhatTheThreadWaitedForHasHappened) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    JoinHandle<void> background = executor.spawn(sleep_for(1000h));
    for (int i = 0; i < 50; ++i) {
      executor.run(this_task::yield());
      JoinHandle<void> short_one = executor.spawn(this_task::yield());
      short_one.wait();
    }
    executor.run(sleep_for(1s));
    EXPECT_FALSE(background.done());
    EXPECT_EQ(clock.now() - start, 1s);
  });
}

TEST(ManualClock, StandsStillWhileAHoldExists) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    std::optional<ManualClock::Hold> hold(clock.hold());
    std::thread foreign([&] {
      std::this_thread::sleep_for(kGrace);
      EXPECT_EQ(clock.now(), start);
      hold.reset();
    });
    executor.run(sleep_for(1h));
    foreign.join();
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, WhatAForeignThreadDoesUnderAHoldComesBeforeTheTimeout) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    Event event;
    ManualClock::Hold hold = clock.hold();
    std::thread foreign([&event, held = std::move(hold)]() mutable {
      std::this_thread::yield();
      event.set();
      held.release();
    });
    executor.run(timeout(event.wait(), 1ns));
    foreign.join();
    EXPECT_EQ(clock.now(), start);
  });
}

TEST(ManualClock, AHoldCanBeMovedAndReleasedTwice) {
  ManualClock clock;
  WorkStealingExecutor executor(with(1, clock));
  ManualClock::Hold first = clock.hold();
  ManualClock::Hold second = std::move(first);
  second = clock.hold();
  second.release();
  second.release();
  executor.run(sleep_for(1s));
}

TEST(ManualClock, StandsStillWhileABlockingCallRuns) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    const auto call = [](ManualClock& time, Deadline from) -> Task<bool> {
      co_return co_await to_thread([&] {
        std::this_thread::sleep_for(kGrace);
        return time.now() == from;
      });
    };
    const auto body = [&call](ManualClock& time, Deadline from) -> Task<bool> {
      auto [still, nothing] = co_await gather(call(time, from), sleep_for(1h));
      co_return still;
    };
    EXPECT_TRUE(executor.run(body(clock, start)));
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, StandsStillWhileABlockingCallIsQueued) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    ExecutorOptions options = with(threads, clock);
    options.max_blocking_threads = 1;
    WorkStealingExecutor executor(options);
    const Deadline start = clock.now();
    std::atomic<int> early{0};
    const auto call = [](ManualClock& time, Deadline from, std::atomic<int>& moved) -> Task<void> {
      co_await to_thread([&] {
        if (time.now() != from) moved.fetch_add(1);
      });
    };
    executor.run(gather(sleep_for(1h), call(clock, start, early), call(clock, start, early),
                        call(clock, start, early)));
    EXPECT_EQ(early.load(), 0);
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, GoesOnAfterACancelledBlockingCall) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    ExecutorOptions options = with(threads, clock);
    options.max_blocking_threads = 1;
    WorkStealingExecutor executor(options);
    std::atomic<bool> go{false};
    std::atomic<bool> began{false};
    const auto blocks = [&]() -> Task<void> {
      co_await to_thread([&] {
        began = true;
        while (!go.load()) std::this_thread::yield();
      });
    };
    const auto queued = [&]() -> Task<void> { co_await to_thread([] {}); };
    const auto body = [&]() -> Task<void> {
      JoinHandle<void> first = spawn(blocks());
      while (!began.load()) co_await this_task::yield();
      JoinHandle<void> second = spawn(queued());
      co_await this_task::yield();
      second.cancel();
      Result<void> result = co_await as_result(second);
      EXPECT_TRUE(result.is_cancelled());
      go = true;
      co_await first;
      co_await sleep_for(1h);
    };
    const Deadline start = clock.now();
    executor.run(body());
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, StandsStillWhileATaskVisitsAnotherExecutor) {
  WorkStealingExecutor other({.threads = 1});
  on_several_threads([&other](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    const auto there = [](ManualClock& time, Deadline from) -> Task<bool> {
      co_await sleep_for(kGrace);  // real time there
      co_return time.now() == from;
    };
    const auto visits = [&](ManualClock& time, Deadline from) -> Task<bool> {
      return on(other, there(time, from));
    };
    const auto body = [&](ManualClock& time, Deadline from) -> Task<bool> {
      auto [still, nothing] = co_await gather(visits(time, from), sleep_for(1h));
      co_return still;
    };
    EXPECT_TRUE(executor.run(body(clock, start)));
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, GoesOnAfterATaskHasEndedOnAnotherExecutor) {
  WorkStealingExecutor other({.threads = 1});
  on_several_threads([&other](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    const auto leaves = [](Executor& away) -> Task<int> {
      co_await resume_on(away);
      co_return 1;
    };
    JoinHandle<int> handle = executor.spawn(leaves(other));
    executor.run(gather(leaves(other), leaves(other), sleep_for(1h)));
    handle.wait();
    executor.run(sleep_for(1h));
    EXPECT_EQ(clock.now() - start, 2h);
  });
}

TEST(ManualClock, AdvanceByHandFiresInOrder) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    clock.set_auto_advance(false);
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<int> fired{0};
    std::vector<JoinHandle<int>> handles;
    const auto sleeper = [](std::atomic<int>& count, int hours) -> Task<int> {
      co_await sleep_for(std::chrono::hours(hours));
      co_return count.fetch_add(1);
    };
    for (int hours : {3, 1, 2}) handles.push_back(executor.spawn(sleeper(fired, hours)));
    while (executor.stats().pending_timers != 3) std::this_thread::yield();
    clock.advance(59min);
    std::this_thread::sleep_for(kGrace);
    EXPECT_EQ(fired.load(), 0);
    clock.advance(1min);
    EXPECT_EQ(handles[1].wait().value(), 0);
    EXPECT_EQ(fired.load(), 1);
    clock.advance(1h);
    EXPECT_EQ(handles[2].wait().value(), 1);
    clock.advance(10h);
    EXPECT_EQ(handles[0].wait().value(), 2);
  });
}

TEST(ManualClock, OneAdvanceOverSeveralTimersShowsEachItsOwnTime) {
  ManualClock clock;
  clock.set_auto_advance(false);
  WorkStealingExecutor executor(with(1, clock));
  std::vector<int> order;
  const auto sleeper = [](std::vector<int>& log, int hours) -> Task<void> {
    co_await sleep_for(std::chrono::hours(hours));
    log.push_back(hours);
  };
  JoinHandle<void> c = executor.spawn(sleeper(order, 3));
  JoinHandle<void> a = executor.spawn(sleeper(order, 1));
  JoinHandle<void> b = executor.spawn(sleeper(order, 2));
  while (executor.stats().pending_timers != 3) std::this_thread::yield();
  // One worker, held by a task while time passes: it finds all three in its queue, in the order in
  // which they fired.
  std::atomic<bool> held{false};
  std::atomic<bool> go{false};
  executor.post([&] {
    held = true;
    while (!go.load()) std::this_thread::yield();
  });
  while (!held.load()) std::this_thread::yield();
  clock.advance(10h);
  go = true;
  a.wait();
  b.wait();
  c.wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(ManualClock, WithoutAutoAdvanceItMovesByHandOnly) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    clock.set_auto_advance(false);
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    std::thread hand([&] {
      std::this_thread::sleep_for(kGrace);
      EXPECT_EQ(clock.now(), start);
      clock.set_auto_advance(true);
    });
    executor.run(sleep_for(1h));
    hand.join();
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, ATaskMayAdvanceItByHand) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const auto body = [](ManualClock& time) -> Task<void> {
      JoinHandle<void> sleeper = spawn(sleep_for(1h));
      co_await this_task::yield();
      time.advance(2h);
      co_await sleeper;
    };
    const Deadline start = clock.now();
    executor.run(body(clock));
    EXPECT_GE(clock.now() - start, 2h);
    EXPECT_LE(clock.now() - start, 3h);  // the sleeper may have started after the advance
  });
}

TEST(ManualClock, ADeadlineThatAForeignThreadMovesIsSeen) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<TimeoutScope*> shared{nullptr};
    Event never;
    const auto body = [&](TimeoutScope& scope) -> Task<void> {
      shared = &scope;
      co_await never.wait();
    };
    std::thread foreign([&] {
      while (shared.load() == nullptr) std::this_thread::yield();
      std::this_thread::sleep_for(1ms);  // by now the task waits and time has nowhere to go
      shared.load()->reschedule(clock.now() + 5s);
    });
    const Deadline start = clock.now();
    EXPECT_THROW(executor.run(timeout_scope(Duration::never(), body)), TimeoutError);
    foreign.join();
    EXPECT_EQ(clock.now() - start, 5s);
  });
}

TEST(ManualClock, ServesOneExecutorAtATime) {
  ManualClock clock;
  {
    WorkStealingExecutor first(with(1, clock));
    auto captured = std::make_shared<int>(1);
    ExecutorOptions refused = with(1, clock);
    refused.on_unobserved_error = [captured](std::string_view, std::exception_ptr) {};
    EXPECT_THROW(WorkStealingExecutor{refused}, std::invalid_argument);
    refused.on_unobserved_error = nullptr;
    EXPECT_EQ(captured.use_count(), 1);
    first.run(sleep_for(1h));
  }
  WorkStealingExecutor second(with(2, clock));
  second.run(sleep_for(1h));
}

TEST(ManualClock, ShutdownEndsCleanupsThatSleep) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    clock.set_auto_advance(false);
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<int> cleaned{0};
    const auto cleanup = [&]() -> Task<void> {
      co_await sleep_for(1h);
      cleaned.fetch_add(1);
    };
    const auto body = [&]() -> Task<void> { co_await finally(sleep_for(1000h), cleanup); };
    for (int i = 0; i < 3; ++i) executor.spawn(body());
    while (executor.stats().pending_timers != 3) std::this_thread::yield();
    const Deadline start = clock.now();
    const ShutdownReport report = executor.shutdown(2h);
    EXPECT_EQ(report.cancelled, 3U);
    EXPECT_EQ(cleaned.load(), 3);
    EXPECT_EQ(clock.now() - start, 3h);  // the drain, then the cleanups
  });
}

TEST(ManualClock, ShutdownDrainsInVirtualTime) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    executor.spawn(sleep_for(1h));
    executor.spawn(sleep_for(3h));
    const ShutdownReport report = executor.shutdown(2h);
    EXPECT_EQ(report.completed, 1U);
    EXPECT_EQ(report.cancelled, 1U);
  });
}

TEST(ManualClock, TheDestructorEndsCleanupsThatSleep) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    clock.set_auto_advance(false);
    std::atomic<int> cleaned{0};
    const auto cleanup = [&]() -> Task<void> {
      co_await sleep_for(1h);
      cleaned.fetch_add(1);
    };
    const auto body = [&]() -> Task<void> { co_await finally(sleep_for(1000h), cleanup); };
    const Deadline start = clock.now();
    {
      WorkStealingExecutor executor(with(threads, clock));
      for (int i = 0; i < 3; ++i) executor.spawn(body());
      while (executor.stats().pending_timers != 3) std::this_thread::yield();
    }
    EXPECT_EQ(cleaned.load(), 3);
    EXPECT_EQ(clock.now() - start, 1h);
  });
}

TEST(ManualClock, AForeignThreadMayFireTheLastTimerBeforeTheDestructorEnds) {
  on_several_threads([](std::size_t threads) {
    for (int i = 0; i < 20; ++i) {
      ManualClock clock;
      std::thread foreign;
      {
        WorkStealingExecutor executor(with(threads, clock));
        ManualClock::Hold hold = clock.hold();
        const auto cleanup = []() -> Task<void> { co_await sleep_for(1h); };
        const auto body = [&]() -> Task<void> { co_await finally(sleep_for(1000h), cleanup); };
        executor.spawn(body());
        while (executor.stats().pending_timers != 1) std::this_thread::yield();
        foreign = std::thread([i, held = std::move(hold)]() mutable {
          for (int k = 0; k < i; ++k) std::this_thread::yield();
          held.release();
        });
      }
      foreign.join();
    }
  });
}

TEST(ManualClock, DetachingWaitsForWhoFires) {
  ManualClock clock;
  detail::VirtualTime& time = clock.virtual_time();
  struct Slow : detail::Timer {
    std::atomic<bool> firing{false};
    std::atomic<bool> go{false};
  } timer;
  timer.claim = [](detail::Timer*) noexcept { return true; };
  timer.fire = [](detail::Timer* base) noexcept {
    auto* const self = static_cast<Slow*>(base);
    self->firing = true;
    while (!self->go.load()) std::this_thread::yield();
  };
  detail::Timers timers(clock);
  time.attach(timers);
  timer.deadline_ns = timers.now_ns() + 1;
  {
    detail::TimerShard& shard = timers.shard_here();
    std::lock_guard guard(shard.lock);
    detail::Timers::arm(shard, timer);
  }
  std::thread fires([&] { clock.advance(1h); });
  while (!timer.firing.load()) std::this_thread::yield();
  std::atomic<bool> detached{false};
  std::thread detaches([&] {
    time.detach();
    detached = true;
  });
  std::this_thread::sleep_for(kGrace);
  EXPECT_FALSE(detached.load());
  timer.go = true;
  detaches.join();
  fires.join();
}

TEST(ManualClock, SurvivesResizingMeanwhile) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    std::atomic<bool> end{false};
    std::thread resizer([&] {
      for (std::size_t n = 1; !end.load(); n = n % 4 + 1) executor.resize(n);
    });
    const Deadline start = clock.now();
    std::vector<Task<void>> tasks;
    for (int i = 1; i <= 8; ++i) tasks.push_back(sleep_often(100, std::chrono::milliseconds(i)));
    executor.run(gather(std::move(tasks)));
    EXPECT_EQ(clock.now() - start, 800ms);
    end = true;
    resizer.join();
  });
}

TEST(ManualClock, SeveralThreadsMayBlockAtOnce) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const Deadline start = clock.now();
    ManualClock::Hold hold = clock.hold();
    std::atomic<std::size_t> begun{0};
    const auto body = [](std::atomic<std::size_t>& count, int hours) -> Task<void> {
      count.fetch_add(1);
      co_await sleep_for(std::chrono::hours(hours));
    };
    std::vector<std::thread> callers;
    for (int i = 1; i <= 4; ++i) callers.emplace_back([&, i] { executor.run(body(begun, i)); });
    while (begun.load() != 4) std::this_thread::yield();
    while (executor.stats().pending_timers != 4) std::this_thread::yield();
    hold.release();
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(clock.now() - start, 4h);
  });
}

TEST(ManualClock, GroupsTimersAndCancellationTogetherStayExact) {
  on_several_threads([](std::size_t threads) {
    ManualClock clock;
    WorkStealingExecutor executor(with(threads, clock));
    const auto attempt = [](int i) -> Task<int> {
      Result<void> result = co_await try_timeout(sleep_for(std::chrono::seconds(i)), 3s);
      co_return result.is_timeout() ? 1 : 0;
    };
    const auto in_group = [&](TaskGroup& group) -> Task<int> {
      std::vector<JoinHandle<int>> handles;
      for (int i = 1; i <= 6; ++i) handles.push_back(group.spawn(attempt(i == 3 ? 30 : i)));
      int timed_out = 0;
      for (JoinHandle<int>& handle : handles) timed_out += co_await handle;
      co_return timed_out;
    };
    const auto body = [&]() -> Task<int> {
      int total = 0;
      for (int i = 0; i < 10; ++i) {
        const int timed_out = co_await task_group(in_group);
        total += timed_out;
      }
      co_return total;
    };
    const Deadline start = clock.now();
    EXPECT_EQ(executor.run(body()), 40);
    EXPECT_EQ(clock.now() - start, 30s);
  });
}

}  // namespace
