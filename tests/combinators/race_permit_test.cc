// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (more of what race_test shows)

// race of operations that take something: only the winner takes it.

#include <magpie/race.h>

#include <stdexcept>
#include <thread>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Race : public OnMachine {};

// --- things that only the winner takes -----------------------------------------------------------

TEST_ON_THREADS(Race, AcquireThatLosesTakesNoPermit) {  // B138
  Semaphore semaphore(0);
  machine.run([&]() -> Task<> {
    auto first = co_await race(semaphore.acquire(), sleep_for(1ms));
    EXPECT_EQ(first.index, 1u);
    semaphore.add_permits(1);
    EXPECT_EQ(semaphore.available(), 1u);
  });
}

TEST_ON_THREADS(Race, OnlyOneOfTwoAcquiresTakes) {
  Semaphore semaphore(2);
  machine.run([&]() -> Task<> {
    auto first = co_await race(semaphore.acquire(), semaphore.acquire());
    EXPECT_EQ(first.index, 0u);
    EXPECT_EQ(semaphore.available(), 1u);
    first.value.release();
    EXPECT_EQ(semaphore.available(), 2u);
  });
}

TEST_ON_THREADS(Race, AcquireAgainstWhatIsReadyAtOnce) {
  Semaphore semaphore(1);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 300; ++i) {
      auto first = co_await race(give(1), semaphore.acquire());
      EXPECT_EQ(semaphore.available(), first.index == 1 ? 0u : 1u);
    }
    EXPECT_EQ(semaphore.available(), 1u);
  });
}

TEST_ON_THREADS(Race, AcquireOfTooManyIsItsError) {
  BoundedSemaphore semaphore(1);
  machine.run([&]() -> Task<> {
    Result<Indexed<Permit>> r =
        co_await as_result(race(semaphore.acquire(2), semaphore.acquire(2)));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
  });
}

// In every order of steps: whoever wins, the permits are where they belong, and nothing else was
// taken.
TEST(RaceInEveryOrder, AcquiresHandlesAndTimers) {
  testing::explore(400, [](testing::SimulatedExecutor& simulator) {
    Semaphore semaphore(1);
    Ledger ledger;
    auto value = [&]() -> Task<Tracked> {
      co_await this_task::yield();
      co_return Tracked(ledger);
    };
    auto body = [&]() -> Task<> {
      auto holder = [&]() -> Task<> {
        Permit permit = co_await semaphore.acquire();
        co_await this_task::yield();
      };
      JoinHandle<void> other = spawn(holder());
      JoinHandle<Tracked> task = spawn(value());
      int discarded = 0;
      auto discard = [&](std::size_t, auto&&) { ++discarded; };
      auto contest =
          race(semaphore.acquire(), task, value(), this_task::yield()).on_discard(discard);
      auto first = co_await std::move(contest);
      if (first.index == 0) {
        if (semaphore.available() != 0) throw std::runtime_error("the winner has no permit");
        std::get<0>(first.value).release();
      }
      const Result<void> ended = co_await as_result(other);
      if (semaphore.available() != 1) throw std::runtime_error("a permit is not where it belongs");
      const Result<Tracked> behind = co_await as_result(task);
      if (!behind.has_value()) throw std::runtime_error("the task behind the handle was touched");
    };
    simulator.run(body());
    if (semaphore.available() != 1) throw std::runtime_error("a permit was lost");
    if (ledger.alive() != 0) throw std::runtime_error("a value was lost");
  });
}

// Permits given back by another thread at random moments, against a timer: none is lost, none is
// taken twice.
TEST(RaceAcrossThreads, PermitsSurviveAnyOrderOfReleaseAndTimer) {
  WorkStealingExecutor executor({.threads = 2});
  Semaphore semaphore(1);
  std::atomic<bool> stop{false};
  std::thread meddler([&] {
    while (!stop.load()) {
      if (auto permit = semaphore.try_acquire()) std::this_thread::yield();
    }
  });
  std::atomic<int> won{0};
  auto body = [&](int seed) -> Task<> {
    // The meddler may stand still with the permit in its hand: on, until it was had once.
    for (int i = 0; i < 500 || won.load() == 0; ++i) {
      auto first = co_await race(semaphore.acquire(),
                                 sleep_for(std::chrono::microseconds((seed * 7 + i) % 40)));
      if (first.index == 0) ++won;
    }
  };
  std::vector<JoinHandle<void>> handles;
  for (int i = 0; i < 4; ++i) handles.push_back(executor.spawn(body(i)));
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  stop = true;
  meddler.join();
  EXPECT_EQ(semaphore.available(), 1u);
}

}  // namespace
}  // namespace magpie
