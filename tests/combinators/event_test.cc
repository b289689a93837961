// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Event: what api.md, section 7, says of it.

#include <magpie/event.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/gather.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class EventTest : public OnMachine {};

TEST_ON_THREADS(EventTest, WaitersGoOnWhenItIsSet) {
  Event event;
  std::atomic<int> woken{0};
  machine.run([&]() -> Task<> {
    auto waiter = [&]() -> Task<> {
      co_await event.wait();
      woken.fetch_add(1);
    };
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 50; ++i) handles.push_back(executor.spawn(waiter()));
    co_await sleep_for(1ms);
    EXPECT_EQ(woken.load(), 0);
    EXPECT_FALSE(event.is_set());
    event.set();
    event.set();
    EXPECT_TRUE(event.is_set());
    for (auto& h : handles) co_await h;
    co_await event.wait();  // at once
  });
  EXPECT_EQ(woken.load(), 50);
}

TEST_ON_THREADS(EventTest, ParkedWaitersWakeEvenIfItIsClearedAtOnce) {  // B193
  Event event;
  machine.run([&]() -> Task<> {
    auto waiter = [&]() -> Task<> { co_await event.wait(); };
    JoinHandle<void> a = executor.spawn(waiter());
    JoinHandle<void> b = executor.spawn(waiter());
    co_await sleep_for(1ms);
    event.set();
    event.clear();
    EXPECT_FALSE(event.is_set());
    co_await a;
    co_await b;
    Result<void> late = co_await as_result(timeout(event.wait(), 1ms));
    EXPECT_TRUE(late.is_timeout());
  });
}

TEST_ON_THREADS(EventTest, SetThenCancelInOneStepWakesTheWaiter) {  // B193
  Event event;
  machine.run([&]() -> Task<> {
    bool woke = false;
    auto waiter = [&]() -> Task<> {
      co_await event.wait();
      woke = true;
      co_await this_task::checkpoint();
    };
    JoinHandle<void> handle = executor.spawn(waiter());
    co_await sleep_for(1ms);
    event.set();
    handle.cancel();  // what was given before the cancellation is delivered
    Result<void> r = co_await as_result(handle);
    EXPECT_TRUE(woke);
  });
}

TEST_ON_THREADS(EventTest, CancelledWaiterLeavesNothingBehind) {  // B045
  auto event = std::make_unique<Event>();
  machine.run([&]() -> Task<> {
    Result<void> r = co_await as_result(timeout(event->wait(), 1ms));
    EXPECT_TRUE(r.is_timeout());
    event.reset();
  });
}

TEST(EventAcrossThreads, SetsClearsAndCancellationsCross) {
  WorkStealingExecutor workers({.threads = 2});
  Event event;
  std::atomic<bool> stop{false};
  std::thread setter([&] {
    while (!stop.load()) {
      event.set();
      event.clear();
    }
    event.set();
  });
  auto waiter = [&](int n) -> Task<int> {
    int woken = 0;
    for (int i = 0; i < 300; ++i) {
      Result<void> r =
          co_await try_timeout(event.wait(), std::chrono::microseconds((n * 31 + i) % 60));
      if (r.has_value()) ++woken;
    }
    co_return woken;
  };
  std::vector<JoinHandle<int>> handles;
  for (int i = 0; i < 4; ++i) handles.push_back(workers.spawn(waiter(i)));
  for (auto& h : handles) EXPECT_TRUE(h.wait().has_value());
  stop = true;
  setter.join();
}

// Whoever is woken may destroy the event while set() is still on its way out.
TEST(EventAcrossThreads, WokenWaiterMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (int round = 0; round < 300; ++round) {
    auto event = std::make_unique<Event>();
    Event* const raw = event.get();
    auto body = [&]() -> Task<> {
      co_await event->wait();
      event.reset();
    };
    JoinHandle<void> handle = workers.spawn(body());
    std::thread setter([raw] { raw->set(); });
    EXPECT_TRUE(handle.wait().has_value());
    setter.join();
  }
}

}  // namespace
}  // namespace magpie
