// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (what happens without memory)

// Memory and the primitives: waits need none, and where some is needed, a failure to get it leaves
// everything as it was.

#include <support/counting_new.h>

#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#if !defined(MAGPIE_TSAN)

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::allocations;
using test::fail_allocation_after;

struct Primitives {
  Mutex mutex;
  Condition condition;
  Event event;
  Semaphore semaphore{1};
  Barrier barrier{2};
  Channel<int> buffered{4};
  Channel<int> rendezvous{0};
  int turn = 0;
};

// One round of two children that wait for each other in every way; no frame is made for them.
Task<> rounds(Primitives& p, int n) {
  for (int i = 0; i < n; ++i) {
    Latch latch(2);
    Mutex::Lock held = co_await p.mutex.lock();
    Permit permit = co_await p.semaphore.acquire();
    auto open = [&] {
      held.unlock();
      permit.release();
      p.event.set();
    };
    auto all = gather(p.mutex.lock(), p.semaphore.acquire(), p.event.wait(),
                      latch.arrive_and_wait(), latch.arrive_and_wait(), p.barrier.arrive_and_wait(),
                      p.barrier.arrive_and_wait(), p.buffered.receive(), p.buffered.send(i),
                      p.rendezvous.send(i), p.rendezvous.receive(), open);
    co_await std::move(all);
    p.event.clear();
    Mutex::Lock lock = co_await p.mutex.lock();
    auto notify = [&] { p.condition.notify_all(); };
    auto notified = gather(p.condition.wait(lock), notify);
    co_await std::move(notified);
  }
}

TEST(PrimitivesMemory, WaitsNeedNone) {
  Primitives primitives;
  testing::SimulatedExecutor executor;
  std::size_t before = 0;
  std::size_t after = 0;
  auto body = [&]() -> Task<> {
    co_await rounds(primitives, 10);  // buffers grow to what is needed
    auto more = rounds(primitives, 1000);
    before = allocations();
    co_await std::move(more);
    after = allocations();
  };
  executor.run(body());
  EXPECT_EQ(after - before, 0u);
}

TEST(PrimitivesMemory, ASendThatGetsNoneHasSentNothing) {
  Channel<std::unique_ptr<int>> channel(100);
  auto value = std::make_unique<int>(1);
  fail_allocation_after(0);
  EXPECT_THROW(channel.try_send(value), std::bad_alloc);
  ASSERT_NE(value, nullptr);
  EXPECT_EQ(channel.size(), 0u);
  EXPECT_TRUE(channel.try_send(value));
  for (int i = 2; i <= 16; ++i)
    EXPECT_TRUE(channel.try_send(std::make_unique<int>(i)));  // the first room is full
  testing::SimulatedExecutor executor;
  auto body = [&]() -> Task<> {
    auto send = channel.send(std::make_unique<int>(17));
    fail_allocation_after(0);
    bool refused = false;
    try {
      co_await std::move(send);
    } catch (const std::bad_alloc&) {
      refused = true;
    }
    EXPECT_TRUE(refused);
    EXPECT_EQ(channel.size(), 16u);
    auto again = channel.send(std::make_unique<int>(17));
    co_await std::move(again);
    for (int i = 1; i <= 17; ++i) {
      std::optional<std::unique_ptr<int>> item = co_await channel.receive();
      EXPECT_EQ(**item, i);
    }
  };
  executor.run(body());
}

TEST(PrimitivesMemory, ALargeItemThatGetsNoBoxIsNotSent) {
  using Large = std::array<char, 5000>;
  testing::SimulatedExecutor executor;
  Channel<Large> channel(2);
  Large value{};
  EXPECT_TRUE(channel.try_send(value));
  fail_allocation_after(0);
  EXPECT_THROW(channel.try_send(value), std::bad_alloc);
  fail_allocation_after(0);
  EXPECT_THROW(executor.run(channel.send(value)), std::bad_alloc);
  EXPECT_EQ(channel.size(), 1u);
  EXPECT_TRUE(channel.try_receive().has_value());
}

TEST(PrimitivesMemory, APromiseThatGetsNoneIsNotMade) {
  std::optional<Promise<std::array<char, 5000>>> promise;
  fail_allocation_after(0);
  EXPECT_THROW(promise.emplace(), std::bad_alloc);
  EXPECT_FALSE(promise.has_value());
  promise.emplace();
  EXPECT_FALSE(promise->future().done());
}

}  // namespace
}  // namespace magpie

#endif
