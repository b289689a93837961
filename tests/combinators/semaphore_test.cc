// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Semaphore, BoundedSemaphore and Permit: what api.md, sections 0 and 6, says of them.

#include <magpie/semaphore.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
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
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class SemaphoreTest : public OnMachine {};

Task<> take_and_note(Semaphore& semaphore, std::size_t n, int name, std::vector<int>& order,
                     Duration hold = {}) {
  static std::mutex mutex;
  Permit permit = co_await semaphore.acquire(n);
  {
    std::lock_guard guard(mutex);
    order.push_back(name);
  }
  co_await sleep_for(hold);
}

TEST_ON_THREADS(SemaphoreTest, PermitsComeAndGo) {
  Semaphore semaphore(3);
  machine.run([&]() -> Task<> {
    EXPECT_EQ(semaphore.available(), 3u);
    Permit one = co_await semaphore.acquire();
    EXPECT_EQ(one.count(), 1u);
    Permit two = co_await semaphore.acquire(2);
    EXPECT_EQ(semaphore.available(), 0u);
    two.release();
    two.release();  // no-op
    EXPECT_EQ(two.count(), 0u);
    EXPECT_EQ(semaphore.available(), 2u);
    Permit moved = std::move(one);
    one.release();  // holds nothing
    EXPECT_EQ(semaphore.available(), 2u);
    {
      Semaphore::Permit inner = std::move(moved);
      EXPECT_EQ(inner.count(), 1u);
    }
    EXPECT_EQ(semaphore.available(), 3u);
    Permit a = co_await semaphore.acquire(2);
    Permit b = co_await semaphore.acquire(1);
    a = std::move(b);  // gives back what it had
    EXPECT_EQ(semaphore.available(), 2u);
    a.release();
    Permit none;
    none.release();
  });
  EXPECT_EQ(semaphore.available(), 3u);
}

TEST_ON_THREADS(SemaphoreTest, TryAcquire) {
  Semaphore semaphore(2);
  std::optional<Permit> a = semaphore.try_acquire(2);
  EXPECT_TRUE(a.has_value());
  EXPECT_FALSE(semaphore.try_acquire().has_value());
  EXPECT_TRUE(semaphore.try_acquire(0).has_value());
  a.reset();
  EXPECT_EQ(semaphore.available(), 2u);
  EXPECT_FALSE(semaphore.try_acquire(3).has_value());
}

TEST_ON_THREADS(SemaphoreTest, FirstInFirstOut) {  // B182
  Semaphore semaphore(0);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 20; ++i) {
      handles.push_back(executor.spawn(take_and_note(semaphore, 1, i, order, 1ms)));
      co_await sleep_for(1us);
    }
    semaphore.add_permits(1);
    for (auto& h : handles) co_await h;
  });
  std::vector<int> expected;
  for (int i = 0; i < 20; ++i) expected.push_back(i);
  EXPECT_EQ(order, expected);
  EXPECT_EQ(semaphore.available(), 1u);
}

TEST_ON_THREADS(SemaphoreTest, NobodyOvertakesTheOldestWaiter) {  // B182
  Semaphore semaphore(1);
  machine.run([&]() -> Task<> {
    std::vector<int> order;
    Permit mine = co_await semaphore.acquire();
    JoinHandle<void> waiter = executor.spawn(take_and_note(semaphore, 1, 1, order, 1ms));
    co_await sleep_for(1ms);
    mine.release();
    // The permit belongs to the waiter, although it has not run yet.
    EXPECT_EQ(semaphore.available(), 0u);
    EXPECT_FALSE(semaphore.try_acquire().has_value());
    Permit after = co_await semaphore.acquire();
    EXPECT_EQ(order.size(), 1u);
    co_await waiter;
  });
}

TEST_ON_THREADS(SemaphoreTest, LargeRequestAtTheHeadIsNotStarved) {  // B185
  Semaphore semaphore(4);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Permit held = co_await semaphore.acquire(3);
    JoinHandle<void> large = executor.spawn(take_and_note(semaphore, 4, 4, order));
    co_await sleep_for(1ms);
    std::vector<JoinHandle<void>> small;
    for (int i = 0; i < 5; ++i)
      small.push_back(executor.spawn(take_and_note(semaphore, 1, 1, order)));
    co_await sleep_for(1ms);
    EXPECT_TRUE(order.empty());  // one is free, but the head wants four
    EXPECT_FALSE(semaphore.try_acquire(1).has_value());
    held.release();
    co_await large;
    for (auto& h : small) co_await h;
    EXPECT_EQ(order.front(), 4);
  });
  EXPECT_EQ(semaphore.available(), 4u);
}

TEST_ON_THREADS(SemaphoreTest, LargeRequestThatLeavesMakesWay) {  // B185
  Semaphore semaphore(2);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Permit held = co_await semaphore.acquire();
    JoinHandle<void> large = executor.spawn(take_and_note(semaphore, 2, 2, order));
    co_await sleep_for(1ms);
    JoinHandle<void> small = executor.spawn(take_and_note(semaphore, 1, 1, order));
    co_await sleep_for(1ms);
    EXPECT_TRUE(order.empty());
    large.cancel();
    co_await small;
    EXPECT_EQ(order, std::vector<int>{1});
    Result<void> r = co_await as_result(large);
    EXPECT_TRUE(r.is_cancelled());
  });
  EXPECT_EQ(semaphore.available(), 2u);
}

TEST_ON_THREADS(SemaphoreTest, CancelledWaiterIsSkipped) {  // B183
  Semaphore semaphore(0);
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    JoinHandle<void> first = executor.spawn(take_and_note(semaphore, 1, 1, order));
    co_await sleep_for(1ms);
    JoinHandle<void> second = executor.spawn(take_and_note(semaphore, 1, 2, order));
    co_await sleep_for(1ms);
    first.cancel();
    semaphore.add_permits(1);
    co_await second;
    EXPECT_EQ(order, std::vector<int>{2});
    EXPECT_EQ(semaphore.available(), 1u);
  });
}

TEST_ON_THREADS(SemaphoreTest, PermitGrantedBeforeTheCancellationIsDelivered) {
  Semaphore semaphore(0);
  machine.run([&]() -> Task<> {
    bool got = false;
    auto taker = [&]() -> Task<> {
      Permit permit = co_await semaphore.acquire();
      got = true;
      co_await this_task::checkpoint();
    };
    JoinHandle<void> handle = executor.spawn(taker());
    co_await sleep_for(1ms);
    semaphore.add_permits(1);
    handle.cancel();
    co_await as_result(handle);
    EXPECT_TRUE(got);
    EXPECT_EQ(semaphore.available(), 1u);
  });
}

TEST_ON_THREADS(SemaphoreTest, InACancelledScopeAFreePermitIsNotTaken) {  // B186
  Semaphore semaphore(1);
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      Permit permit = co_await semaphore.acquire();
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(semaphore.available(), 1u);
  });
}

TEST_ON_THREADS(SemaphoreTest, AcquireOfNothingCompletesAtOnce) {
  Semaphore semaphore(0);
  machine.run([&]() -> Task<> {
    JoinHandle<Permit> waiting = executor.spawn(semaphore.acquire(1));
    co_await sleep_for(1ms);
    Permit none = co_await semaphore.acquire(0);
    EXPECT_EQ(none.count(), 0u);
    semaphore.add_permits(1);
    Permit one = co_await std::move(waiting);
    EXPECT_EQ(one.count(), 1u);
  });
}

TEST_ON_THREADS(SemaphoreTest, NumbersThatAreTooLarge) {
  constexpr std::size_t most = PTRDIFF_MAX;
  EXPECT_THROW(Semaphore(most + 1), std::invalid_argument);
  EXPECT_THROW(Semaphore(SIZE_MAX), std::invalid_argument);
  Semaphore full(most);
  EXPECT_THROW(full.add_permits(1), std::invalid_argument);
  EXPECT_THROW(full.add_permits(SIZE_MAX), std::invalid_argument);
  full.add_permits(0);
  EXPECT_EQ(full.available(), most);
  Semaphore small(1);
  EXPECT_THROW(small.add_permits(most), std::invalid_argument);
  EXPECT_THROW((void)small.try_acquire(SIZE_MAX), std::invalid_argument);
  machine.run([&]() -> Task<> {
    Result<Permit> r = co_await as_result(small.acquire(SIZE_MAX));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    Permit held = co_await full.acquire(most);
    EXPECT_EQ(full.available(), 0u);
    EXPECT_THROW(full.add_permits(1), std::invalid_argument);  // what is held counts
  });
  EXPECT_EQ(small.available(), 1u);
}

TEST_ON_THREADS(SemaphoreTest, BoundedOneNeverHasMoreThanItBeganWith) {  // B188
  BoundedSemaphore semaphore(2);
  machine.run([&]() -> Task<> {
    EXPECT_THROW(semaphore.add_permits(1), std::logic_error);
    Permit held = co_await semaphore.acquire();
    EXPECT_THROW(semaphore.add_permits(1),
                 std::logic_error);  // the permit's own release brings it back
    Result<Permit> r = co_await as_result(semaphore.acquire(3));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    held.release();
    held.release();
    EXPECT_EQ(semaphore.available(), 2u);
    Permit all = co_await semaphore.acquire(2);
    EXPECT_EQ(all.count(), 2u);
  });
  EXPECT_EQ(semaphore.available(), 2u);
}

// Everything at once, from several threads: permits in hand never exceed the number, and all are
// back in the end.
TEST(SemaphoreAcrossThreads, NoPermitIsLostOrTakenTwice) {
  constexpr std::size_t kPermits = 5;
  WorkStealingExecutor workers({.threads = 3});
  Semaphore semaphore(kPermits);
  std::atomic<long> held{0};
  std::atomic<bool> stop{false};
  const auto hold = [&](std::size_t n) {
    const long now = held.fetch_add(static_cast<long>(n)) + static_cast<long>(n);
    EXPECT_LE(now, static_cast<long>(kPermits));
  };
  std::thread outsider([&] {
    while (!stop.load()) {
      if (auto permit = semaphore.try_acquire(2)) {
        hold(2);
        std::this_thread::yield();
        held.fetch_sub(2);
      }
      std::this_thread::yield();
    }
  });
  auto body = [&](std::uint64_t seed) -> Task<int> {
    detail::Random random(seed);
    int got = 0;
    for (int i = 0; i < 400; ++i) {
      const auto n = static_cast<std::size_t>(random.below(3) + 1);
      const auto limit = std::chrono::microseconds(random.below(80));
      switch (random.below(3)) {
        case 0: {
          Result<Permit> r = co_await try_timeout(semaphore.acquire(n), limit);
          if (!r.has_value()) break;
          hold(n);
          ++got;
          co_await this_task::yield();
          held.fetch_sub(static_cast<long>(n));
          break;
        }
        case 1: {
          auto first = co_await race(semaphore.acquire(n), sleep_for(limit));
          if (first.index != 0) break;
          hold(n);
          ++got;
          held.fetch_sub(static_cast<long>(n));
          break;
        }
        default: {
          auto first = co_await any(semaphore.acquire(n), semaphore.acquire(1), sleep_for(limit));
          if (first.index == 2) break;
          const std::size_t taken = first.index == 0 ? std::get<0>(first.value).count()
                                                     : std::get<1>(first.value).count();
          hold(taken);
          ++got;
          held.fetch_sub(static_cast<long>(taken));
        }
      }
    }
    co_return got;
  };
  std::vector<JoinHandle<int>> handles;
  for (std::uint64_t i = 0; i < 8; ++i) handles.push_back(workers.spawn(body(i)));
  int got = 0;
  for (auto& h : handles) got += h.wait().value();
  stop = true;
  outsider.join();
  EXPECT_GT(got, 0);
  EXPECT_EQ(held.load(), 0);
  EXPECT_EQ(semaphore.available(), kPermits);
}

// Whoever gets the last permit may destroy the semaphore, while the one before is still on his way
// out of release(), or out of add_permits().
TEST(SemaphoreAcrossThreads, TheLastHolderMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    auto semaphore = std::make_unique<Semaphore>(1);
    std::optional<Permit> held = semaphore->try_acquire();
    const std::size_t n = round % 2 + 1;  // the one from here, and maybe a new one
    auto body = [&]() -> Task<> {
      Permit mine = co_await semaphore->acquire(n);
      mine.release();
      semaphore.reset();
    };
    JoinHandle<void> handle = workers.spawn(body());
    held->release();
    if (n == 2) semaphore->add_permits(1);
    EXPECT_TRUE(handle.wait().has_value());
  }
}

// Two threads add twice as many as there is room for, and hold permits meanwhile.
TEST(SemaphoreAcrossThreads, NoMoreAreAddedThanThereIsRoomFor) {
  constexpr std::size_t kEach = 2000;
  constexpr std::size_t kMost = PTRDIFF_MAX;
  Semaphore semaphore(kMost - kEach);
  std::atomic<std::size_t> added{0};
  const auto adds = [&] {
    for (std::size_t i = 0; i < kEach; ++i) {
      std::optional<Permit> held = semaphore.try_acquire();
      EXPECT_TRUE(held.has_value());
      try {
        semaphore.add_permits(1);
        added.fetch_add(1);
      } catch (const std::invalid_argument&) {
      }
    }
  };
  std::thread other(adds);
  adds();
  other.join();
  EXPECT_EQ(added.load(), kEach);
  EXPECT_EQ(semaphore.available(), kMost);
}

}  // namespace
}  // namespace magpie
