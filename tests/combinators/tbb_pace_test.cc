// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (numbers in virtual time)

// Retries, rates, chains and batches on a oneTBB arena, in virtual time.

#include <magpie/tbb_executor.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/batch.h>
#include <magpie/chain.h>
#include <magpie/gather.h>
#include <magpie/manual_clock.h>
#include <magpie/rate_limiter.h>
#include <magpie/retry.h>
#include <magpie/sleep.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class OnTbb : public ::testing::Test {
 protected:
  std::chrono::nanoseconds elapsed() const { return clock_.now() - start_; }

  ManualClock clock_;
  TbbExecutor executor_{{.threads = 2, .clock = &clock_}};
  const Deadline start_ = clock_.now();
};

TEST_F(OnTbb, Retry) {
  int calls = 0;
  auto factory = [&]() -> Task<int> {
    if (++calls < 3) return fail_after(1s, "again");
    return give(calls);
  };
  EXPECT_EQ(executor_.run(retry(factory, RetryPolicy().backoff(Backoff::constant(1s)))), 3);
  EXPECT_EQ(elapsed(), 4s);
}

TEST_F(OnTbb, RateLimiterAndItsGather) {
  RateLimiter limiter(10, 2);
  std::vector<Task<std::chrono::nanoseconds>> tasks;
  auto start_time = [this]() -> Task<std::chrono::nanoseconds> {
    const auto started = elapsed();
    co_await sleep_for(1s);
    co_return started;
  };
  for (int i = 0; i < 6; ++i) tasks.push_back(start_time());
  const auto starts = executor_.run(gather_rate_limited(limiter, std::move(tasks)));
  for (int i = 0; i < 6; ++i) {
    EXPECT_EQ(starts[static_cast<std::size_t>(i)], i < 2 ? 0ms : (i - 1) * 100ms) << i;
  }
  EXPECT_EQ(elapsed(), 1400ms);
}

TEST_F(OnTbb, ChildrenThatNeverBeginAreDropped) {
  RateLimiter limiter(10, 2);
  std::vector<Task<int>> tasks;
  for (int i = 0; i < static_cast<int>(scaled(10'000)); ++i) tasks.push_back(never());
  auto all = try_timeout(gather_rate_limited(limiter, std::move(tasks)), 1s);
  EXPECT_TRUE(executor_.run(std::move(all)).is_timeout());
  EXPECT_EQ(elapsed(), 1s);
}

TEST_F(OnTbb, Chain) {
  auto step = [](int value) { return give_after(1s, value + 1); };
  auto text = [](int value) { return std::to_string(value); };
  EXPECT_EQ(executor_.run(chain(give(1), step, step, text)), "3");
  EXPECT_EQ(elapsed(), 2s);
}

TEST_F(OnTbb, Batch) {
  std::vector<int> items = {1, 2, 3, 4, 5};
  auto work = [](int item) { return give_after(1s, 2 * item); };
  const std::vector<int> doubled =
      executor_.run(batch(items, 2, work, BatchOptions().pause(100ms)));
  EXPECT_EQ(doubled, (std::vector<int>{2, 4, 6, 8, 10}));
  EXPECT_EQ(elapsed(), 3200ms);
}

TEST_F(OnTbb, Batcher) {
  std::atomic<int> calls{0};
  auto fn = [&](std::vector<int> items) -> Task<std::vector<int>> {
    ++calls;
    co_await sleep_for(1s);
    co_return items;
  };
  magpie::Batcher<int, int> batcher(3, 10ms, fn);
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 7; ++i) tasks.push_back(batcher.submit(i));
  const std::vector<int> all = executor_.run(gather(std::move(tasks)));
  EXPECT_EQ(all.at(6), 6);
  EXPECT_EQ(calls.load(), 3);
  EXPECT_EQ(elapsed(), 1010ms);
}

}  // namespace
}  // namespace magpie
