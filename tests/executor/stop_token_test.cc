// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

// The bridges to std::stop_token, both ways.

#include <atomic>
#include <memory>
#include <optional>
#include <stop_token>
#include <thread>

#include <gtest/gtest.h>

#include <magpie/cancellation_token.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::scaled;

TEST(StopToken, FromFollowsAStopSource) {
  std::stop_source stop;
  CancellationToken token = from(stop.get_token());
  EXPECT_TRUE(token.can_be_cancelled());
  EXPECT_FALSE(token.cancelled());
  int calls = 0;
  CancellationCallback callback(token, [&] { ++calls; });
  stop.request_stop();
  EXPECT_TRUE(token.cancelled());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(from(stop.get_token()).cancelled());
}

TEST(StopToken, FromOneThatCannotStopCannotBeCancelled) {
  EXPECT_FALSE(from(std::stop_token()).can_be_cancelled());
  EXPECT_FALSE(
      from(std::stop_token(std::stop_source(std::nostopstate).get_token())).can_be_cancelled());
  CancellationToken token;
  {
    std::stop_source stop;
    token = from(stop.get_token());
    EXPECT_TRUE(token.can_be_cancelled());
  }
  EXPECT_FALSE(token.can_be_cancelled());
}

TEST(StopToken, ToStopTokenFollowsAToken) {
  CancellationSource source;
  std::stop_token stop = to_stop_token(source.token());
  EXPECT_TRUE(stop.stop_possible());
  EXPECT_FALSE(stop.stop_requested());
  int calls = 0;
  std::stop_callback callback(stop, [&] { ++calls; });
  source.cancel();
  EXPECT_TRUE(stop.stop_requested());
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(to_stop_token(source.token()).stop_requested());
}

TEST(StopToken, ToStopTokenOfOneThatCannotBeCancelled) {
  EXPECT_FALSE(to_stop_token(CancellationToken()).stop_possible());
}

TEST(StopToken, OneBridgeForEachState) {
  CancellationSource source;
  std::stop_token first = to_stop_token(source.token());
  CancellationSource copy = source;
  EXPECT_EQ(first, to_stop_token(copy.token()));
  EXPECT_NE(first, to_stop_token(CancellationSource().token()));
}

TEST(StopToken, AStopTokenComesBackAsItself) {
  std::stop_source stop;
  std::stop_token there = to_stop_token(from(stop.get_token()));
  EXPECT_EQ(there, stop.get_token());
  EXPECT_FALSE(there.stop_requested());
  CancellationToken kept = from(stop.get_token());
  stop.request_stop();
  EXPECT_TRUE(there.stop_requested());  // though nobody has kept the token in between
  EXPECT_TRUE(to_stop_token(kept).stop_requested());
}

TEST(StopToken, ATokenComesBackThroughAStopToken) {
  CancellationSource source;
  CancellationToken there = from(to_stop_token(source.token()));
  EXPECT_FALSE(there.cancelled());
  source.cancel();
  EXPECT_TRUE(there.cancelled());
}

// The stop token cannot own the merged state.
TEST(StopToken, OneOfAnyOfFollowsWhileItsTokenIsKept) {
  CancellationSource one;
  CancellationSource other;
  CancellationToken both = any_of(one.token(), other.token());
  std::stop_token stop = to_stop_token(both);
  other.cancel();
  EXPECT_TRUE(stop.stop_requested());
}

TEST(StopToken, AThreadStopsWithItsTask) {
  WorkStealingExecutor executor({.threads = 2});
  std::atomic<bool> started{false};
  std::atomic<bool> stopped{false};
  auto body = [&]() -> Task<> {
    CancellationToken token = co_await this_task::token();
    std::stop_token stop = to_stop_token(token);
    std::thread thread([stop, &stopped] {
      while (!stop.stop_requested()) std::this_thread::yield();
      stopped = true;
    });
    started = true;
    Result<void> slept = co_await as_result(sleep_for(1h));
    thread.join();
    EXPECT_TRUE(slept.is_cancelled());
  };
  auto handle = executor.spawn(body());
  ASSERT_TRUE(eventually([&] { return started.load(); }));
  handle.cancel();
  EXPECT_TRUE(handle.wait());
  EXPECT_TRUE(stopped.load());
}

TEST(StopToken, ATaskStopsWithAJthread) {
  WorkStealingExecutor executor({.threads = 2});
  JoinHandle<void> handle;
  std::atomic<bool> spawned{false};
  {
    std::jthread thread([&](std::stop_token stop) {
      handle = executor.spawn(sleep_for(1h), SpawnOptions().token(from(stop)));
      spawned = true;
      while (!stop.stop_requested()) std::this_thread::yield();
    });
    ASSERT_TRUE(eventually([&] { return spawned.load(); }));
  }
  EXPECT_TRUE(handle.wait().is_cancelled());
}

TEST(StopToken, BridgesMayDieWhileTheyAreUsed) {
  for (std::size_t round = 0; round < scaled(1000); ++round) {
    std::stop_source stop;
    auto token = std::make_unique<CancellationToken>(from(stop.get_token()));
    std::thread stopper([&] { stop.request_stop(); });
    CancellationSource source;
    auto follower = std::make_unique<std::stop_token>(to_stop_token(source.token()));
    std::thread canceller([&] { source.cancel(); });
    token.reset();
    follower.reset();
    stopper.join();
    canceller.join();
  }
}

}  // namespace
}  // namespace magpie
