// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/detail/spin_lock.h>

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

namespace magpie::detail {
namespace {

TEST(SpinLock, TryLockFailsWhileItIsHeld) {
  SpinLock<> lock;
  ASSERT_TRUE(lock.try_lock());
  EXPECT_FALSE(lock.try_lock());
  lock.unlock();
  EXPECT_TRUE(lock.try_lock());
  lock.unlock();
}

void count_with(int threads, int rounds) {
  SpinLock<> lock;
  int count = 0;
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      for (int n = 0; n < rounds; ++n) {
        std::lock_guard hold(lock);
        count += 1;
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(count, threads * rounds);
}

TEST(SpinLock, OneThreadIsInsideAtATime) {
  count_with(2, 100'000);
}

TEST(SpinLock, ManyMoreThreadsThanProcessorsGetThrough) {
  count_with(64, 500);
}

TEST(SpinLock, WhoeverLocksLastMayDestroyIt) {
  struct Shared {
    SpinLock<> lock;
    int users = 2;
  };
  for (int round = 0; round < 300; ++round) {
    auto* shared = new Shared;
    const auto leave = [shared] {
      shared->lock.lock();
      const bool last = --shared->users == 0;
      shared->lock.unlock();
      if (last) delete shared;
    };
    std::thread other(leave);
    leave();
    other.join();
  }
}

}  // namespace
}  // namespace magpie::detail
