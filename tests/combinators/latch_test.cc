// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the waits are those of event_test)

// Latch: what api.md, sections 0 and 7, says of it.

#include <magpie/latch.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
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

class LatchTest : public OnMachine {};

TEST_ON_THREADS(LatchTest, WaitersGoOnWhenTheCountReachesNothing) {
  Latch latch(3);
  std::atomic<int> woken{0};
  machine.run([&]() -> Task<> {
    auto wait = [&]() -> Task<> {
      co_await latch.wait();
      ++woken;
    };
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 10; ++i) handles.push_back(executor.spawn(wait()));
    co_await sleep_for(1ms);
    latch.count_down();
    EXPECT_FALSE(latch.try_wait());
    co_await sleep_for(1ms);
    EXPECT_EQ(woken.load(), 0);
    latch.count_down(2);
    EXPECT_TRUE(latch.try_wait());
    for (auto& h : handles) co_await h;
    co_await latch.wait();  // at once
  });
  EXPECT_EQ(woken.load(), 10);
}

TEST_ON_THREADS(LatchTest, OneOfNothingIsOpen) {
  Latch latch(0);
  EXPECT_TRUE(latch.try_wait());
  latch.count_down(0);
  executor.run(latch.wait());
}

TEST_ON_THREADS(LatchTest, ArriveAndWait) {
  Latch latch(4);
  std::atomic<int> arrived{0};
  machine.run([&]() -> Task<> {
    auto arrive = [&](Duration after) -> Task<> {
      co_await sleep_for(after);
      ++arrived;
      co_await latch.arrive_and_wait();
      EXPECT_EQ(arrived.load(), 4);
    };
    co_await gather(arrive(1ms), arrive(2ms), arrive(3ms), arrive(4ms));
  });
  EXPECT_EQ(machine.elapsed(), 4ms);
}

TEST_ON_THREADS(LatchTest, CountingTooFarIsAnErrorAndCountsNothing) {
  constexpr std::size_t most = PTRDIFF_MAX;
  EXPECT_THROW(Latch(most + 1), std::invalid_argument);
  Latch latch(2);
  EXPECT_THROW(latch.count_down(3), std::invalid_argument);
  EXPECT_THROW(latch.count_down(SIZE_MAX), std::invalid_argument);
  latch.count_down(0);
  EXPECT_FALSE(latch.try_wait());
  latch.count_down(2);
  EXPECT_THROW(latch.count_down(), std::invalid_argument);
  machine.run([&]() -> Task<> {
    const Result<void> r = co_await as_result(latch.arrive_and_wait());
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    co_await latch.wait();
  });
  Latch large(most);
  large.count_down(most);
  EXPECT_TRUE(large.try_wait());
}

TEST_ON_THREADS(LatchTest, ACancelledWaiterLeavesNothingBehindButItsArrival) {  // B045
  auto latch = std::make_unique<Latch>(2);
  machine.run([&]() -> Task<> {
    const Result<void> waited = co_await as_result(timeout(latch->wait(), 1ms));
    EXPECT_TRUE(waited.is_timeout());
    const Result<void> arrived = co_await as_result(timeout(latch->arrive_and_wait(), 1ms));
    EXPECT_TRUE(arrived.is_timeout());
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await latch->arrive_and_wait();
    };
    const Result<void> refused = co_await cancel_scope(block);
    EXPECT_TRUE(refused.is_cancelled());
    EXPECT_FALSE(latch->try_wait());  // one has arrived, the one that was refused has not
    latch->count_down();
    EXPECT_TRUE(latch->try_wait());
    latch.reset();
  });
}

TEST_ON_THREADS(LatchTest, ReachingNothingBeforeTheCancellationIsDelivered) {
  Latch latch(1);
  machine.run([&]() -> Task<> {
    JoinHandle<void> waiter = executor.spawn(latch.wait());
    co_await sleep_for(1ms);
    latch.count_down();
    waiter.cancel();
    const Result<void> r = co_await as_result(waiter);
    EXPECT_TRUE(r.has_value());
  });
}

TEST_ON_THREADS(LatchTest, GivenToCombinatorsDirectly) {
  Latch latch(1);
  machine.run([&]() -> Task<> {
    auto late = co_await race(latch.wait(), sleep_for(1ms));
    EXPECT_EQ(late.index, 1u);
    auto both = gather(latch.arrive_and_wait(), latch.wait());
    co_await std::move(both);
    auto first = co_await race(sleep_for(1ms), latch.wait());
    EXPECT_EQ(first.index, 1u);
  });
}

TEST_ON_THREADS(LatchTest, AHundredThousandWaiters) {
  const std::size_t n = scaled(100'000);
  Latch latch(n);
  machine.run([&]() -> Task<> {
    std::vector<detail::LatchWait> waits;
    for (std::size_t i = 0; i < n; ++i) waits.push_back(latch.arrive_and_wait());
    co_await gather(std::move(waits));
  });
  EXPECT_TRUE(latch.try_wait());
}

TEST_ON_THREADS(LatchTest, DumpsNameIt) {
  Latch latch(1);
  machine.run([&]() -> Task<> {
    JoinHandle<void> waiter = executor.spawn(latch.wait());
    co_await sleep_for(1ms);
    std::ostringstream out;
    executor.dump_tasks(out);
    EXPECT_NE(out.str().find("waiting for a latch"), std::string::npos) << out.str();
    latch.count_down();
    co_await waiter;
  });
}

TEST(LatchInEveryOrder, ArrivalsAndCancellations) {
  testing::explore(scaled(20'000), [](testing::SimulatedExecutor& simulator) {
    Latch latch(4);
    int through = 0;
    auto arrive = [&]() -> Task<> {
      co_await latch.arrive_and_wait();
      if (!latch.try_wait()) throw std::logic_error("through too early");
      ++through;
    };
    auto body = [&]() -> Task<> {
      std::vector<JoinHandle<void>> tasks;
      for (int i = 0; i < 3; ++i) tasks.push_back(spawn(arrive()));
      co_await this_task::yield();
      tasks[0].cancel();
      co_await this_task::yield();
      const bool arrived = !latch.try_wait();
      if (!arrived) throw std::logic_error("opened too early");
      const Result<void> cancelled = co_await as_result(tasks[0]);
      // Cancelled before its first step it has not arrived: then one more is needed.
      std::optional<JoinHandle<void>> more;
      latch.count_down();
      co_await sleep_for(1us);
      if (!latch.try_wait()) {
        if (!cancelled.is_cancelled()) throw std::logic_error("an arrival was lost");
        latch.count_down();
      }
      co_await tasks[1];
      co_await tasks[2];
    };
    simulator.run(body());
    if (through < 2) throw std::logic_error("a waiter was lost");
  });
}

TEST(LatchAcrossThreads, TheLastArrivalWakesEverybody) {
  WorkStealingExecutor workers({.threads = 3});
  for (std::size_t round = 0; round < scaled(3000); ++round) {
    auto latch = std::make_unique<Latch>(5);
    Latch* const raw = latch.get();
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 2; ++i) handles.push_back(workers.spawn(latch->arrive_and_wait()));
    std::thread outsider([raw] { raw->count_down(2); });
    // Whoever is woken may destroy it while the last arrival is on its way out.
    auto destroy = [&]() -> Task<> {
      co_await latch->arrive_and_wait();
      for (auto& h : handles) co_await h;
      latch.reset();
    };
    workers.run(destroy());
    outsider.join();
  }
}

}  // namespace
}  // namespace magpie
