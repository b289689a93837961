// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 600

// Cancellation at random moments from many threads: each task ends exactly once, with a value or
// cancelled, and leaves nothing. SEED= replays the choices (not the schedule).

#include <atomic>
#include <memory>
#include <random>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/gather.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>
#include <support/soak.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::Ledger;
using test::scaled;
using test::Tracked;

struct Program {
  Ledger& ledger;

  Task<long> node(Tracked tracked, std::uint64_t seed, int depth) {
    tracked.touch();
    std::mt19937_64 choose(seed);
    if (depth == 0) {
      switch (choose() % 8) {
        case 0:
          co_await this_task::yield();
          break;
        case 1:
          co_await sleep_for(std::chrono::microseconds(choose() % 100));
          break;
        case 2:
          co_await sleep_for(1h);
          break;
        case 3:
          co_await as_result(sleep_for(1h));
          break;  // swallows it
        case 4: {
          CancellationToken token = co_await this_task::token();
          std::atomic<int> calls{0};
          {
            CancellationCallback callback(token, [&] { ++calls; });
            co_await sleep_for(std::chrono::microseconds(choose() % 100));
          }
          EXPECT_LE(calls.load(), 1);
          break;
        }
        case 5: {
          // A std::stop_token of this scope, taken along by a copy of the token.
          CancellationToken token = co_await this_task::token();
          std::stop_token stop = to_stop_token(token);
          co_await sleep_for(std::chrono::microseconds(choose() % 60));
          (void)stop.stop_requested();
          break;
        }
        case 6:
          if (choose() % 2 == 0) throw std::runtime_error("a failure of its own");
          break;
        default:
          break;
      }
      co_return 1;
    }
    long sum = 0;
    if (choose() % 2 == 0) {
      std::vector<Task<long>> below;
      for (std::size_t i = 0; i < 1 + choose() % 4; ++i)
        below.push_back(node(Tracked(ledger), choose(), depth - 1));
      std::vector<Result<long>> results = co_await gather(return_exceptions, std::move(below));
      for (const auto& result : results) sum += result.value_or(0L);
    } else {
      auto both = gather(node(Tracked(ledger), choose(), depth - 1),
                         node(Tracked(ledger), choose(), depth - 1));
      auto [a, b] = co_await std::move(both);
      sum += a + b;
    }
    co_return sum;
  }
};

TEST(CancelStress, HandlesTokensAndTheExecutorCancelAtRandomMoments) {
  const std::uint64_t seed = test::seed_or(20261122);
  std::mt19937_64 random(seed);
  SCOPED_TRACE("seed " + std::to_string(seed));
  for (std::size_t round = 0; round < scaled(1500); ++round) {
    Ledger ledger;
    std::vector<JoinHandle<long>> handles;
    Program program{ledger};
    {
      CancellationSource source;
      WorkStealingExecutor executor(
          {.threads = 1 + round % 4,
           .on_unobserved_error = [](std::string_view, std::exception_ptr) {}});
      const test::LifeLimit limit(executor);
      for (int i = 0; i < 6; ++i) {
        SpawnOptions options;
        if (i % 2 == 0) options.token(source.token());
        handles.push_back(executor.spawn(program.node(Tracked(ledger), random(), 3), options));
      }
      std::vector<std::thread> cancellers;
      for (std::size_t t = 0; t < 2; ++t) {
        cancellers.emplace_back([&, t, pause = random() % 200] {
          const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(pause);
          while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
          for (std::size_t i = t; i < handles.size(); i += 3) handles[i].cancel();
          source.cancel();
        });
      }
      if (round % 3 == 0) {
        for (auto& canceller : cancellers) canceller.join();
        cancellers.clear();
        if (round % 2 == 0) executor.shutdown(0s);
      }
      for (auto& canceller : cancellers) canceller.join();
    }
    for (auto& handle : handles) {
      ASSERT_TRUE(handle.done());
      (void)handle.result().outcome();
    }
    ASSERT_EQ(ledger.alive(), 0);
  }
}

TEST(CancelStress, FinishAndCancelAgreeOnWhoWasFirst) {
  WorkStealingExecutor executor({.threads = 2});
  const test::LifeLimit limit(executor);
  for (std::size_t round = 0; round < scaled(20'000); ++round) {
    auto quick = []() -> Task<int> {
      co_await this_task::yield();
      co_return 1;
    };
    auto handle = executor.spawn(quick());
    const bool requested = handle.cancel();
    const Result<int>& result = handle.wait();
    if (!requested) {
      ASSERT_TRUE(result.has_value());  // it was done
    }
    ASSERT_FALSE(handle.cancel());
  }
}

TEST(CancelStress, WaitersOfOneTaskAreCancelledWhileItEnds) {
  WorkStealingExecutor executor({.threads = 3});
  const test::LifeLimit limit(executor);
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    auto text = []() -> Task<std::string> {
      co_await sleep_for(20us);
      co_return std::string(50, 'z');
    };
    auto target = executor.spawn(text());
    auto copier = [](JoinHandle<std::string> h) -> Task<std::size_t> {
      std::string value = co_await h;
      co_return value.size();
    };
    auto mover = [](JoinHandle<std::string> h) -> Task<std::size_t> {
      std::string value = co_await std::move(h);
      co_return value.size();
    };
    std::vector<JoinHandle<std::size_t>> waiters;
    for (int i = 0; i < 4; ++i) waiters.push_back(executor.spawn(copier(target)));
    waiters.push_back(executor.spawn(mover(target)));
    std::thread canceller([&] {
      for (std::size_t i = 0; i < waiters.size(); i += 2) waiters[i].cancel();
    });
    for (auto& waiter : waiters) {
      const Result<std::size_t>& result = waiter.wait();
      if (result.has_value()) {
        ASSERT_EQ(result.value(), 50U);
      } else if (result.is_error()) {
        ASSERT_THROW(result.value(), InvalidStateError);  // the mover was faster than a late copier
      }
    }
    canceller.join();
  }
}

TEST(CancelStress, SleepsAreCancelledWhileTheyAreArmed) {
  WorkStealingExecutor executor({.threads = 2});
  const test::LifeLimit limit(executor);
  for (std::size_t round = 0; round < scaled(5000); ++round) {
    auto handle = executor.spawn(gather(sleep_for(1h), sleep_for(2h), sleep_for(1us)));
    for (std::size_t spin = 0; spin < round % 30 * 10; ++spin) std::this_thread::yield();
    handle.cancel();
    handle.wait();
  }
  EXPECT_EQ(executor.stats().pending_timers, 0U);
}

}  // namespace
}  // namespace magpie
