// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what condition_test shows)

// Condition in every order of steps, and across threads: no notification and no lock is lost.

#include <magpie/condition.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

// A bounded buffer with two conditions, in every order, with a consumer that is cancelled
// somewhere: no item is lost, nobody hangs.
TEST(ConditionInEveryOrder, ABoundedBufferAgainstCancellations) {
  testing::explore(scaled(20'000), [](testing::SimulatedExecutor& simulator) {
    Mutex mutex;
    Condition not_empty;
    Condition not_full;
    std::deque<int> buffer;
    int consumed = 0;
    auto produce = [&](int n) -> Task<> {
      for (int i = 0; i < n; ++i) {
        Mutex::Lock lock = co_await mutex.lock();
        co_await not_full.wait(lock, [&] { return buffer.size() < 2; });
        buffer.push_back(i);
        not_empty.notify_one();
      }
    };
    auto consume = [&](int n) -> Task<> {
      for (int i = 0; i < n; ++i) {
        Mutex::Lock lock = co_await mutex.lock();
        auto got = co_await as_result(not_empty.wait(lock, [&] { return !buffer.empty(); }));
        if (!lock) throw std::logic_error("wait() ended without the lock");
        std::move(got).value();
        buffer.pop_front();
        ++consumed;
        not_full.notify_one();
      }
    };
    auto contend = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      auto available = [&] { return !buffer.empty(); };
      auto first = co_await race(not_empty.wait(lock, available), this_task::yield());
      if (!lock) throw std::logic_error("a race ended without the lock");
      if (first.index != 0) co_return;
      buffer.pop_front();
      ++consumed;
      not_full.notify_one();
    };
    auto body = [&]() -> Task<> {
      JoinHandle<void> first = spawn(produce(3));
      JoinHandle<void> second = spawn(produce(3));
      JoinHandle<void> cancelled = spawn(consume(3));
      JoinHandle<void> racing = spawn(contend());
      co_await this_task::yield();
      co_await this_task::yield();
      cancelled.cancel();
      co_await as_result(cancelled);
      co_await racing;
      JoinHandle<void> rest = spawn(consume(6 - consumed));
      co_await rest;
      co_await first;
      co_await second;
    };
    simulator.run(body());
    if (consumed != 6 || !buffer.empty()) throw std::logic_error("an item was lost");
    if (!mutex.try_lock()) throw std::logic_error("the mutex is lost");
  });
}

// Nobody can ever go on: the simulator destroys waits in both stages, and says so.
// The mutex and the condition lie in a frame that is destroyed as well.
TEST(ConditionInEveryOrder, ADeadlockIsTornDownTogetherWithWhatItWaitsFor) {
  for (const bool masked : {false, true}) {
    testing::explore(scaled(200), [&](testing::SimulatedExecutor& simulator) {
      struct Shared {
        Mutex mutex;
        Condition condition;
      };
      auto wait_once = [](Shared& shared) -> Task<> {
        Mutex::Lock lock = co_await shared.mutex.lock();
        co_await shared.condition.wait(lock);
      };
      auto body = [&]() -> Task<> {
        auto shared = std::make_unique<Shared>();
        auto waiter = wait_once(*shared);
        JoinHandle<void> handle =
            masked ? spawn(uncancellable(std::move(waiter))) : spawn(std::move(waiter));
        co_await sleep_for(1ms);
        Mutex::Lock mine = co_await shared->mutex.lock();
        co_await uncancellable(handle);
      };
      bool deadlock = false;
      try {
        simulator.run(body());
      } catch (const testing::DeadlockError&) {
        deadlock = true;
      }
      if (!deadlock) throw std::logic_error("the deadlock was not noticed");
    });
  }
}

TEST(ConditionInEveryOrder, ADeadlockIsTornDown) {
  testing::explore(scaled(2000), [](testing::SimulatedExecutor& simulator) {
    Mutex mutex;
    Condition condition;
    std::optional<Mutex::Lock> kept;
    auto wait_once = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await uncancellable(condition.wait(lock));
    };
    auto body = [&]() -> Task<> {
      spawn(wait_once());
      spawn(wait_once());
      co_await sleep_for(1ms);
      kept = mutex.try_lock();
      condition.notify_one();  // one waits for the mutex now, for ever
    };
    bool deadlock = false;
    try {
      simulator.run(body());
    } catch (const testing::DeadlockError&) {
      deadlock = true;
    }
    if (!deadlock) throw std::logic_error("the deadlock was not noticed");
    if (!kept) throw std::logic_error("the mutex was not free");
    kept.reset();
    if (!mutex.try_lock()) throw std::logic_error("the mutex is lost");
  });
}

TEST(ConditionAcrossThreads, NotificationsAndCancellationsCross) {
  WorkStealingExecutor workers({.threads = 3});
  Mutex mutex;
  Condition condition;
  long available = 0;  // no atomic: under the mutex
  long taken = 0;
  std::atomic<long> given{0};
  const std::size_t rounds = scaled(20'000);
  auto give = [&]() -> Task<> {
    for (std::size_t i = 0; i < rounds; ++i) {
      Mutex::Lock lock = co_await mutex.lock();
      ++available;
      ++given;
      lock.unlock();
      i % 16 == 0 ? condition.notify_all() : condition.notify_one();
    }
  };
  auto take = [&](std::uint64_t seed) -> Task<> {
    detail::Random random(seed);
    for (std::size_t i = 0; i < rounds; ++i) {
      Mutex::Lock lock = co_await mutex.lock();
      const auto limit = std::chrono::microseconds(random.below(50));
      auto ready = [&] { return available > 0; };
      bool got = false;
      if (random.below(2) == 0) {
        const Result<void> r = co_await try_timeout(condition.wait(lock, ready), limit);
        got = r.has_value();
      } else {
        auto first = co_await race(condition.wait(lock, ready), sleep_for(limit));
        got = first.index == 0;
      }
      if (!lock) throw std::logic_error("no lock");
      if (got) {
        --available;
        ++taken;
      }
    }
  };
  std::vector<JoinHandle<void>> handles;
  for (std::uint64_t i = 0; i < 3; ++i) handles.push_back(workers.spawn(take(i)));
  handles.push_back(workers.spawn(give()));
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  EXPECT_EQ(taken + available, given.load());
  EXPECT_GE(available, 0);
  EXPECT_TRUE(mutex.try_lock().has_value());
}

// Waiters of another executor, which is destroyed while they are notified.
TEST(ConditionAcrossThreads, AnExecutorEndsUnderItsWaiters) {
  Mutex mutex;
  Condition condition;
  for (std::size_t round = 0; round < scaled(300); ++round) {
    auto wait_once = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock);
    };
    std::optional<WorkStealingExecutor> there(std::in_place, ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 3; ++i) handles.push_back(there->spawn(wait_once()));
    std::thread notifier([&] {
      condition.notify_one();
      condition.notify_all();
    });
    there.reset();
    for (auto& h : handles) EXPECT_TRUE(h.done());
    notifier.join();
    ASSERT_TRUE(mutex.try_lock().has_value());
  }
}

}  // namespace
}  // namespace magpie
