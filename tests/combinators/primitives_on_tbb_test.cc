// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (who runs what where, not how it is compiled)

// The primitives on a TbbExecutor, between two executors of different kinds, and on a simulated one
// besides: nothing in them depends on which executor a waiter goes on.

#include <magpie/tbb_executor.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::scaled;

/// What a pipeline of two tasks uses.
struct Shared {
  Mutex mutex;
  Condition condition;
  Event event;
  Semaphore semaphore{2};
  Latch latch{2};
  Barrier barrier{2};
  Channel<int> buffered{3};
  Channel<int> rendezvous{0};
  Promise<int> promise;
  Future<int> future = promise.future();
  int turn = 0;  // under the mutex
  long sum = 0;  // under the mutex
};

void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

Task<> first_half(Shared& s, int n) {
  co_await s.latch.arrive_and_wait();
  for (int i = 0; i < n; ++i) {
    co_await s.buffered.send(i);
    std::optional<int> back = co_await s.rendezvous.receive();
    require(back == i, "another item came back");
    {
      Mutex::Lock lock = co_await s.mutex.lock();
      co_await s.condition.wait(lock, [&s] { return s.turn % 2 == 0; });
      ++s.turn;
      s.sum += i;
      s.condition.notify_one();
    }
    const bool mine = co_await s.barrier.arrive_and_wait();
    Permit permit = co_await s.semaphore.acquire();
    if (mine) co_await this_task::yield();
  }
  s.buffered.close();
  s.event.set();
  s.promise.set_value(n);
}

Task<> second_half(Shared& s, int n) {
  co_await s.latch.arrive_and_wait();
  while (true) {
    std::optional<int> value = co_await s.buffered.receive();
    if (!value) break;
    co_await s.rendezvous.send(*value);
    {
      Mutex::Lock lock = co_await s.mutex.lock();
      co_await s.condition.wait(lock, [&s] { return s.turn % 2 == 1; });
      ++s.turn;
      s.sum -= *value;
      s.condition.notify_all();
    }
    co_await s.barrier.arrive_and_wait();
    const Result<Permit> permit = co_await try_timeout(s.semaphore.acquire(2), 1us);
  }
  co_await s.event.wait();
  const int there = co_await s.future;
  require(there == n, "another value was promised");
}

void check(Shared& s, int n) {
  EXPECT_EQ(s.sum, 0);
  EXPECT_EQ(s.turn, 2 * n);
  EXPECT_EQ(s.semaphore.available(), 2u);
  EXPECT_TRUE(s.mutex.try_lock().has_value());
  EXPECT_EQ(s.future.wait().value(), n);
}

TEST(PrimitivesOnTbb, APipelineOfTwoTasks) {
  const int n = static_cast<int>(scaled(20'000));
  TbbExecutor executor({.threads = 2});
  Shared shared;
  auto both = [&]() -> Task<> { co_await gather(first_half(shared, n), second_half(shared, n)); };
  executor.run(both());
  check(shared, n);
}

TEST(PrimitivesOnTbb, BetweenExecutorsOfDifferentKinds) {
  const int n = static_cast<int>(scaled(20'000));
  TbbExecutor tbb({.threads = 2});
  WorkStealingExecutor stealing({.threads = 2});
  Shared shared;
  JoinHandle<void> one = tbb.spawn(first_half(shared, n));
  JoinHandle<void> two = stealing.spawn(second_half(shared, n));
  EXPECT_TRUE(one.wait().has_value());
  EXPECT_TRUE(two.wait().has_value());
  check(shared, n);
}

TEST(PrimitivesOnTbb, AnExecutorEndsUnderWaitersOfEveryKind) {
  for (std::size_t round = 0; round < scaled(100); ++round) {
    Shared shared;
    std::optional<Mutex::Lock> lock = shared.mutex.try_lock();
    std::optional<Permit> permits = shared.semaphore.try_acquire(2);
    std::optional<TbbExecutor> executor(std::in_place, ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<void>> handles;
    const auto spawn_all = [&](auto&&... awaitable) {
      const auto drop = [](auto task) -> Task<> {
        // Named: what it gives is given back.
        auto awaited = as_result(std::move(task));
        co_await std::move(awaited);
      };
      (handles.push_back(executor->spawn(drop(std::move(awaitable)))), ...);
    };
    spawn_all(shared.mutex.lock(), shared.semaphore.acquire(), shared.event.wait(),
              shared.latch.wait(), shared.barrier.arrive_and_wait(), shared.buffered.receive(),
              shared.rendezvous.send(1), Future<int>(shared.future).operation());
    WorkStealingExecutor other({.threads = 1});
    other.post([&shared, &lock, &permits] {
      lock.reset();
      permits.reset();
      shared.event.set();
      shared.buffered.close();
      shared.promise.set_value(1);
      shared.latch.count_down(2);
    });
    executor.reset();
    for (auto& handle : handles) EXPECT_TRUE(handle.done());
    other.run(this_task::yield());
    other.shutdown(1h);
    EXPECT_TRUE(shared.mutex.try_lock().has_value());
    EXPECT_EQ(shared.semaphore.available(), 2u);
  }
}

TEST(PrimitivesInEveryOrder, APipelineOfTwoTasks) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulator) {
    Shared shared;
    auto both = [&]() -> Task<> { co_await gather(first_half(shared, 5), second_half(shared, 5)); };
    simulator.run(both());
    require(shared.turn == 10 && shared.sum == 0, "a turn was lost");
    require(shared.semaphore.available() == 2, "a permit was lost");
  });
}

}  // namespace
}  // namespace magpie
