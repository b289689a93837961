// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)
// ctest-leave-out: asan (words and waits, hardly memory)

#include <magpie/detail/event_count.h>

#include <gtest/gtest.h>

#include <csignal>
#include <thread>
#include <vector>

#include <pthread.h>

namespace magpie::detail {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;

void until_asleep(const EventCount<>& event, std::uint32_t waiters) {
  while (event.waiters() != waiters) std::this_thread::yield();
}

TEST(EventCount, ANotificationBetweenPrepareAndWaitEndsTheWaitAtOnce) {
  EventCount<> event;
  const auto key = event.prepare();
  event.notify_one();
  EXPECT_TRUE(event.wait(key, std::nullopt));
  EXPECT_EQ(event.waiters(), 0U);
}

TEST(EventCount, ANotificationThatNobodyWaitsForIsForgotten) {
  EventCount<> event;
  event.notify_one();
  event.notify_all();
  const auto key = event.prepare();
  EXPECT_FALSE(event.wait(key, StdEnv::now_ns()));
}

TEST(EventCount, AWaitEndsNotBeforeItsDeadline) {
  EventCount<> event;
  const std::uint64_t deadline = StdEnv::now_ns() + 2 * kMillisecond;
  EXPECT_FALSE(event.wait(event.prepare(), deadline));
  EXPECT_GE(StdEnv::now_ns(), deadline);
  EXPECT_EQ(event.waiters(), 0U);
}

TEST(EventCount, ADeadlineThatHasPassedOrIsZeroEndsTheWait) {
  EventCount<> event;
  EXPECT_FALSE(event.wait(event.prepare(), 0));
  EXPECT_FALSE(event.wait(event.prepare(), 1));
}

TEST(EventCount, CancelCountsTheWaiterOut) {
  EventCount<> event;
  const auto key = event.prepare();
  EXPECT_EQ(event.waiters(), 1U);
  event.cancel(key);
  EXPECT_EQ(event.waiters(), 0U);
}

TEST(EventCount, OneNotificationEndsOneWait) {
  EventCount<> event;
  std::atomic<int> ended{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      EXPECT_TRUE(event.wait(event.prepare(), std::nullopt));
      ended.fetch_add(1, std::memory_order_relaxed);
    });
  }
  until_asleep(event, 3);
  for (std::uint32_t left = 3; left > 0; --left) {
    event.notify_one();
    // Another one may leave as well, if it was on its way into the kernel: never fewer.
    while (event.waiters() >= left) std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended.load(std::memory_order_relaxed), 3);
}

TEST(EventCount, NotifyAllEndsEveryWait) {
  EventCount<> event;
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&] { EXPECT_TRUE(event.wait(event.prepare(), std::nullopt)); });
  }
  until_asleep(event, 5);
  event.notify_all();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(event.waiters(), 0U);
}

TEST(EventCount, SignalsDoNotEndAWait) {
  struct sigaction act{};
  struct sigaction old{};
  act.sa_handler = [](int) {};  // without SA_RESTART: system calls are interrupted
  ASSERT_EQ(sigaction(SIGUSR1, &act, &old), 0);
  EventCount<> event;
  std::atomic<bool> ended{false};
  std::uint64_t left_at = 0;
  const std::uint64_t deadline = StdEnv::now_ns() + 20 * kMillisecond;
  std::thread sleeper([&] {
    EXPECT_FALSE(event.wait(event.prepare(), deadline));
    left_at = StdEnv::now_ns();
    ended.store(true, std::memory_order_release);
  });
  while (!ended.load(std::memory_order_acquire)) {
    pthread_kill(sleeper.native_handle(), SIGUSR1);
    std::this_thread::yield();
  }
  sleeper.join();
  EXPECT_GE(left_at, deadline);
  sigaction(SIGUSR1, &old, nullptr);
}

TEST(EventCount, NothingIsLostBetweenTwoThreadsThatTakeTurns) {
  constexpr int kTurns = 20'000;
  EventCount<> event;
  std::atomic<int> turn{0};
  const auto play = [&](int mine) {
    for (int next = mine; next < kTurns; next += 2) {
      while (turn.load(std::memory_order_acquire) != next) {
        const auto key = event.prepare();
        StdEnv::heavy_fence();
        if (turn.load(std::memory_order_acquire) == next) {
          event.cancel(key);
        } else {
          event.wait(key, std::nullopt);
        }
      }
      turn.store(next + 1, std::memory_order_release);
      StdEnv::light_fence();
      event.notify_one();
    }
  };
  StdEnv::prepare();
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  EXPECT_EQ(turn.load(std::memory_order_relaxed), kTurns);
  EXPECT_EQ(event.waiters(), 0U);
}

// In each round as many units are put in, one by one or two by two, as there are threads that each
// take one.
// Their deadlines come as they are notified; then they sleep without one.
TEST(EventCount, NothingIsLostWhileDeadlinesAndNotificationsComeTogether) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 4'000;
  EventCount<> event;
  std::atomic<int> left{0};
  std::atomic<int> taken{0};
  const auto try_take = [&] {
    int seen = left.load(std::memory_order_relaxed);
    while (seen > 0) {
      if (left.compare_exchange_weak(seen, seen - 1, std::memory_order_relaxed)) return true;
    }
    return false;
  };
  StdEnv::prepare();
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < kRounds; ++round) {
        bool timed = true;
        while (!try_take()) {
          const auto key = event.prepare();
          StdEnv::heavy_fence();
          if (try_take()) {
            event.cancel(key);
            break;
          }
          const auto pause = static_cast<std::uint64_t>((round * 7 + i) % 16) * 1'000;
          timed = event.wait(key, timed ? std::optional(StdEnv::now_ns() + pause) : std::nullopt);
        }
        taken.fetch_add(1, std::memory_order_relaxed);
        while (taken.load(std::memory_order_relaxed) < (round + 1) * kThreads)
          std::this_thread::yield();
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    const int at_once = 1 + round % 2;
    for (int i = 0; i < kThreads; i += at_once) {
      left.fetch_add(at_once, std::memory_order_relaxed);
      StdEnv::light_fence();
      event.notify(static_cast<std::uint32_t>(at_once));
    }
    while (taken.load(std::memory_order_relaxed) < (round + 1) * kThreads)
      std::this_thread::yield();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(left.load(std::memory_order_relaxed), 0);
  EXPECT_EQ(event.waiters(), 0U);
}

}  // namespace
}  // namespace magpie::detail
