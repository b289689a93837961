// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Mutex and its locks: what api.md, sections 0 and 7, says of them.

#include <magpie/mutex.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class MutexTest : public OnMachine {};

bool is_free(Mutex& mutex) {
  return mutex.try_lock().has_value();
}

Task<> lock_and_note(Mutex& mutex, int name, std::vector<int>& order, Duration hold = {}) {
  Mutex::Lock lock = co_await mutex.lock();
  order.push_back(name);
  co_await sleep_for(hold);
}

// At namespace scope nothing has to run before the first use, as with std::mutex.
constinit Mutex before_main;

TEST(MutexOfTheNamespace, IsThereBeforeAnyInitialiserRuns) {
  EXPECT_TRUE(before_main.try_lock().has_value());
}

TEST_ON_THREADS(MutexTest, LocksComeAndGo) {
  Mutex mutex;
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    EXPECT_TRUE(static_cast<bool>(lock));
    EXPECT_FALSE(is_free(mutex));
    lock.unlock();
    EXPECT_FALSE(static_cast<bool>(lock));
    EXPECT_TRUE(is_free(mutex));
    lock.unlock();  // no-op
    lock = co_await mutex.lock();
    Mutex::Lock moved = std::move(lock);
    EXPECT_FALSE(static_cast<bool>(lock));
    lock.unlock();  // holds nothing
    EXPECT_FALSE(is_free(mutex));
    Mutex other;
    Mutex::Lock second = co_await other.lock();
    moved = std::move(second);  // releases what it had
    EXPECT_TRUE(is_free(mutex));
    EXPECT_FALSE(is_free(other));
    moved.unlock();
    EXPECT_TRUE(is_free(other));
    Mutex::Lock none;
    none.unlock();
    EXPECT_FALSE(static_cast<bool>(none));
  });
  EXPECT_TRUE(is_free(mutex));
}

TEST_ON_THREADS(MutexTest, TryLock) {
  Mutex mutex;
  std::optional<Mutex::Lock> lock = mutex.try_lock();
  ASSERT_TRUE(lock.has_value());
  EXPECT_FALSE(mutex.try_lock().has_value());
  lock.reset();
  EXPECT_TRUE(mutex.try_lock().has_value());
}

TEST_ON_THREADS(MutexTest, FirstInFirstOut) {  // B182
  Mutex mutex;
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 20; ++i) {
      handles.push_back(executor.spawn(lock_and_note(mutex, i, order, 1ms)));
      co_await sleep_for(1us);
    }
    lock.unlock();
    for (auto& h : handles) co_await h;
  });
  std::vector<int> expected;
  for (int i = 0; i < 20; ++i) expected.push_back(i);
  EXPECT_EQ(order, expected);
  EXPECT_TRUE(is_free(mutex));
}

TEST_ON_THREADS(MutexTest, NobodyOvertakesTheOldestWaiter) {  // B182
  Mutex mutex;
  machine.run([&]() -> Task<> {
    std::vector<int> order;
    Mutex::Lock mine = co_await mutex.lock();
    JoinHandle<void> waiter = executor.spawn(lock_and_note(mutex, 1, order, 1ms));
    co_await sleep_for(1ms);
    mine.unlock();
    // The mutex belongs to the waiter, although it has not run yet.
    EXPECT_FALSE(mutex.try_lock().has_value());
    mine = co_await mutex.lock();
    EXPECT_EQ(order.size(), 1u);
    co_await waiter;
  });
}

TEST_ON_THREADS(MutexTest, CancelledWaiterIsSkippedAndLeavesNothingBehind) {  // B045, B183
  auto mutex = std::make_unique<Mutex>();
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex->lock();
    JoinHandle<void> first = executor.spawn(lock_and_note(*mutex, 1, order));
    co_await sleep_for(1ms);
    JoinHandle<void> second = executor.spawn(lock_and_note(*mutex, 2, order));
    co_await sleep_for(1ms);
    first.cancel();
    lock.unlock();
    co_await second;
    const Result<void> r = co_await as_result(first);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(order, std::vector<int>{2});
    EXPECT_TRUE(is_free(*mutex));
    mutex.reset();
  });
}

TEST_ON_THREADS(MutexTest, OnlyWaiterCancelledAndTheMutexIsFreeAfterwards) {
  Mutex mutex;
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    JoinHandle<void> waiter = executor.spawn(lock_and_note(mutex, 1, order));
    co_await sleep_for(1ms);
    waiter.cancel();
    lock.unlock();
    EXPECT_TRUE(is_free(mutex));
    const Result<void> r = co_await as_result(waiter);
    EXPECT_TRUE(r.is_cancelled());
  });
}

TEST_ON_THREADS(MutexTest, LockGrantedBeforeTheCancellationIsDelivered) {
  Mutex mutex;
  machine.run([&]() -> Task<> {
    bool got = false;
    auto taker = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      got = true;
      co_await this_task::checkpoint();
    };
    Mutex::Lock mine = co_await mutex.lock();
    JoinHandle<void> handle = executor.spawn(taker());
    co_await sleep_for(1ms);
    mine.unlock();
    handle.cancel();  // seen at the checkpoint, unless the task has ended before
    co_await as_result(handle);
    EXPECT_TRUE(got);
    EXPECT_TRUE(is_free(mutex));
  });
}

TEST_ON_THREADS(MutexTest, InACancelledScopeAFreeMutexIsNotTaken) {  // B186
  Mutex mutex;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      Mutex::Lock lock = co_await mutex.lock();
    };
    const Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_TRUE(is_free(mutex));
  });
}

TEST_ON_THREADS(MutexTest, ALoserOfARaceTakesNothing) {  // B138
  Mutex mutex;
  Mutex other;
  machine.run([&]() -> Task<> {
    // Both are free: one is taken.
    {
      auto first = co_await race(mutex.lock(), other.lock());
      EXPECT_EQ(is_free(mutex), first.index != 0);
      EXPECT_EQ(is_free(other), first.index != 1);
    }
    EXPECT_TRUE(is_free(mutex) && is_free(other));
    // One that is held, against time.
    {
      Mutex::Lock mine = co_await mutex.lock();
      auto first = co_await race(mutex.lock(), sleep_for(1ms));
      EXPECT_EQ(first.index, 1u);
      mine.unlock();
      EXPECT_TRUE(is_free(mutex));
    }
    // Both held; the second is released first.
    {
      Mutex::Lock a = co_await mutex.lock();
      Mutex::Lock b = co_await other.lock();
      auto release = [&]() -> Task<> {
        co_await sleep_for(1ms);
        b.unlock();
        a.unlock();
      };
      JoinHandle<void> releasing = executor.spawn(release());
      auto first = co_await any(mutex.lock(), other.lock());
      EXPECT_EQ(first.index, 1u);
      co_await releasing;
      EXPECT_TRUE(is_free(mutex));
      EXPECT_FALSE(is_free(other));
    }
    EXPECT_TRUE(is_free(other));
  });
}

TEST_ON_THREADS(MutexTest, TimedOutWhileHoldingOrWaitingLeavesItUsable) {  // B191
  Mutex mutex;
  machine.run([&]() -> Task<> {
    auto hold = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await sleep_for(1h);
    };
    JoinHandle<void> holder = executor.spawn(timeout(hold(), 10ms));
    co_await sleep_for(1ms);
    const Result<Mutex::Lock> waited = co_await try_timeout(mutex.lock(), 1ms);
    EXPECT_TRUE(waited.is_timeout());
    const Result<void> held = co_await as_result(holder);
    EXPECT_TRUE(held.is_timeout());
    Mutex::Lock lock = co_await timeout(mutex.lock(), 1ms);
    EXPECT_TRUE(static_cast<bool>(lock));
  });
  EXPECT_TRUE(is_free(mutex));
}

TEST_ON_THREADS(MutexTest, GivenToOtherCombinatorsDirectly) {
  Mutex a;
  Mutex b;
  machine.run([&]() -> Task<> {
    {
      auto [first, second] = co_await gather(a.lock(), b.lock());
      EXPECT_TRUE(!is_free(a) && !is_free(b));
    }
    CancellationSource source;
    Mutex::Lock mine = co_await with_token(source.token(), a.lock());
    auto cancel = [&]() -> Task<> {
      co_await sleep_for(1ms);
      source.cancel();
    };
    JoinHandle<void> cancelling = executor.spawn(cancel());
    const Result<Mutex::Lock> r = co_await as_result(with_token(source.token(), a.lock()));
    EXPECT_TRUE(r.is_cancelled());
    co_await cancelling;
    JoinHandle<Mutex::Lock> spawned = executor.spawn(b.lock());
    Mutex::Lock held = co_await std::move(spawned);
    EXPECT_FALSE(is_free(b));
  });
  EXPECT_TRUE(is_free(a) && is_free(b));
}

TEST_ON_THREADS(MutexTest, AHundredThousandWaitersHaveTheirTurn) {
  const std::size_t n = scaled(100'000);
  Mutex mutex;
  std::size_t count = 0;
  machine.run([&]() -> Task<> {
    auto count_one = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      ++count;
    };
    Mutex::Lock mine = co_await mutex.lock();
    std::vector<Task<>> tasks;
    for (std::size_t i = 0; i < n; ++i) tasks.push_back(count_one());
    JoinHandle<void> all = executor.spawn(gather(std::move(tasks)));
    co_await sleep_for(1ms);
    mine.unlock();
    co_await all;
  });
  EXPECT_EQ(count, n);
}

TEST_ON_THREADS(MutexTest, DumpsNameIt) {
  Mutex mutex;
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Mutex::Lock mine = co_await mutex.lock();
    JoinHandle<void> waiter = executor.spawn(lock_and_note(mutex, 1, order));
    co_await sleep_for(1ms);
    std::ostringstream out;
    executor.dump_tasks(out);
    EXPECT_NE(out.str().find("waiting for a mutex"), std::string::npos) << out.str();
    mine.unlock();
    co_await waiter;
  });
}

// In every order: one at a time, in the order of arrival among those who were not cancelled, and
// free in the end.
TEST(MutexInEveryOrder, HandOffAgainstCancellation) {
  testing::explore(scaled(10'000), [](testing::SimulatedExecutor& simulator) {
    Mutex mutex;
    int inside = 0;
    int turns = 0;
    auto enter = [&](int depth) -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      if (++inside != 1) throw std::logic_error("two tasks hold the mutex");
      ++turns;
      for (int i = 0; i < depth; ++i) co_await this_task::yield();
      --inside;
    };
    auto leave_early = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      if (inside != 0) throw std::logic_error("two tasks hold the mutex");
    };
    auto body = [&]() -> Task<> {
      std::vector<JoinHandle<void>> tasks;
      for (int i = 0; i < 3; ++i) tasks.push_back(spawn(enter(i % 2)));
      tasks.push_back(spawn(leave_early()));
      JoinHandle<void> contest = spawn([](Mutex& m, int& in) -> Task<> {
        auto first = co_await race(m.lock(), this_task::yield(), m.lock());
        if (first.index != 1 && in != 0)
          throw std::logic_error("the winner of a race holds it with another");
      }(mutex, inside));
      co_await this_task::yield();
      tasks[3].cancel();
      co_await contest;
      for (int i = 0; i < 3; ++i) co_await tasks[static_cast<std::size_t>(i)];
      const Result<void> r = co_await as_result(tasks[3]);
      if (r.is_error()) throw std::logic_error("failed");
      if (!is_free(mutex)) throw std::logic_error("the mutex is lost");
    };
    simulator.run(body());
    if (turns != 3) throw std::logic_error("a turn was lost");
  });
}

TEST(MutexAcrossThreads, OneHolderAtATimeWhateverIsCancelled) {
  WorkStealingExecutor workers({.threads = 3});
  Mutex mutex;
  long shared = 0;  // no atomic: the mutex orders the accesses
  long turns = 0;
  std::atomic<bool> stop{false};
  std::atomic<long> outside{0};
  std::thread outsider([&] {
    while (!stop.load()) {
      if (auto lock = mutex.try_lock()) {
        ++shared;
        ++outside;
      }
      std::this_thread::yield();
    }
  });
  auto body = [&](std::uint64_t seed) -> Task<long> {
    detail::Random random(seed);
    long got = 0;
    for (std::size_t i = 0; i < scaled(40'000); ++i) {
      const auto limit = std::chrono::microseconds(random.below(60));
      switch (random.below(3)) {
        case 0: {
          const Result<Mutex::Lock> r = co_await try_timeout(mutex.lock(), limit);
          if (!r.has_value()) break;
          ++shared;
          ++got;
          if (random.below(4) == 0) co_await this_task::yield();
          break;
        }
        case 1: {
          auto first = co_await race(mutex.lock(), sleep_for(limit));
          if (first.index != 0) break;
          ++shared;
          ++got;
          break;
        }
        default: {
          Mutex::Lock lock = co_await mutex.lock();
          ++shared;
          ++got;
        }
      }
    }
    co_return got;
  };
  std::vector<JoinHandle<long>> handles;
  for (std::uint64_t i = 0; i < 6; ++i) handles.push_back(workers.spawn(body(i)));
  for (auto& h : handles) turns += h.wait().value();
  stop = true;
  outsider.join();
  EXPECT_EQ(shared, turns + outside.load());
  EXPECT_TRUE(is_free(mutex));
}

// A holder on one executor hands over to waiters of another one, which ends as soon as they have.
TEST(MutexAcrossThreads, WaitersOfAnotherExecutorThatEnds) {
  WorkStealingExecutor here({.threads = 1});
  Mutex mutex;
  for (std::size_t round = 0; round < scaled(300); ++round) {
    std::optional<Mutex::Lock> lock = mutex.try_lock();
    ASSERT_TRUE(lock.has_value());
    auto take = [&]() -> Task<> { Mutex::Lock mine = co_await mutex.lock(); };
    std::optional<WorkStealingExecutor> there(std::in_place, ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 3; ++i) handles.push_back(there->spawn(take()));
    here.post([held = std::move(lock)]() mutable { held.reset(); });
    if (round % 2 == 0) {
      for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
    }
    there.reset();  // cancels who still waits
    for (auto& h : handles) EXPECT_TRUE(h.done());
    here.run(this_task::yield());
    const Mutex::Lock free = here.run(mutex.lock());
  }
}

// Whoever gets the mutex may destroy it when he has released it, while the one before is still on
// his way out of unlock().
TEST(MutexAcrossThreads, TheLastHolderMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    auto mutex = std::make_unique<Mutex>();
    std::optional<Mutex::Lock> lock = mutex->try_lock();
    auto body = [&]() -> Task<> {
      Mutex::Lock mine = co_await mutex->lock();
      mine.unlock();
      mutex.reset();
    };
    JoinHandle<void> handle = workers.spawn(body());
    lock->unlock();
    EXPECT_TRUE(handle.wait().has_value());
  }
}

}  // namespace
}  // namespace magpie
