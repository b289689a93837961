// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan gcc (more of what as_completed_test shows)

// as_completed in every order: several consumers, losers of races, a timeout, a cancellation; and
// on oneTBB.

#include <magpie/as_completed.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;
using namespace std::chrono_literals;

void must(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

Task<Tracked> tracked_after(Ledger& ledger, int steps, bool fails) {
  for (int i = 0; i < steps; ++i) co_await this_task::yield();
  if (fails) throw std::runtime_error("failed");
  co_return Tracked(ledger);
}

struct Tally {
  std::atomic<int> given[5] = {};
  std::atomic<int> ends{0};
  std::atomic<int> late{0};
  std::atomic<int> cancelled{0};
};

/// Asks until there is no more, or it is too late, or it is cancelled; now and then it loses a
/// race.
Task<> consume(CompletionStream<Tracked>& stream, Tally& tally, bool races) {
  for (;;) {
    std::optional<Indexed<Result<Tracked>>> next;
    if (races) {
      auto first = co_await as_result(race(stream.next(), this_task::yield()));
      if (!first) break;
      if (first.value().index == 1) {
        races = false;
        continue;
      }
      next = std::get<0>(std::move(first).value().value);
    } else {
      auto asked = co_await as_result(stream.next());
      if (asked.is_timeout()) {
        ++tally.late;
        break;
      }
      if (!asked) {
        ++tally.cancelled;
        break;
      }
      next = std::move(asked).value();
    }
    if (!next) {
      ++tally.ends;
      break;
    }
    ++tally.given[next->index];
    must(next->value.has_value() || next->index == 1 || next->value.is_cancelled(),
         "a result is wrong");
  }
}

// Several consumers, tasks that end and fail, a timeout and a cancellation, all within a few steps:
// each result goes to one consumer.
TEST(AsCompletedInEveryOrder, EachResultIsGivenOnceAndNothingStays) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulator) {
    Ledger ledger;
    auto program = [&](int mode) -> Task<> {
      Tally tally;
      CancellationSource source;
      std::vector<Task<Tracked>> tasks;
      for (int i = 0; i < 5; ++i)
        tasks.push_back(tracked_after(ledger, i == 4 && mode == 1 ? 1000 : i % 3, i == 1));
      auto body = [&](CompletionStream<Tracked>& stream) -> Task<> {
        co_await gather(consume(stream, tally, false), consume(stream, tally, true),
                        consume(stream, tally, false));
      };
      auto meddle = [&]() -> Task<> {
        for (int i = 0; i < 6; ++i) co_await this_task::yield();
        if (mode == 2) source.cancel();
      };
      JoinHandle<void> meddler = spawn(meddle());
      std::optional<Duration> limit;
      if (mode == 1) limit = 1ns;
      const auto ended = co_await as_result(
          with_token(source.token(), as_completed(std::move(tasks), limit, body)));
      co_await meddler;
      int given = 0;
      for (std::atomic<int>& count : tally.given) {
        must(count <= 1, "a result was given twice");
        given += count;
      }
      if (mode == 0) must(ended.has_value() && given == 5 && tally.ends >= 2, "a result was lost");
      if (mode == 1)
        must(ended.has_value() && given <= 5 && tally.late + tally.ends >= 2,
             "somebody was told nothing");
      if (mode == 2)
        must(ended.has_value() || ended.is_cancelled(), "it ended in no way that there is");
    };
    for (const int mode : {0, 1, 2}) simulator.run(program(mode));
    must(ledger.alive() == 0, "a value was lost");
  });
}

TEST(AsCompletedInEveryOrder, LeavesNothingBehindInADeadlock) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Event never_set;
    Ledger ledger;
    testing::SimulatedExecutor simulator(seed);
    auto stuck = [&]() -> Task<Tracked> {
      const Tracked local(ledger);
      co_await uncancellable(never_set.wait());
      co_return Tracked(ledger);
    };
    auto program = [&]() -> Task<> {
      std::vector<Task<Tracked>> tasks;
      for (int i = 0; i < 3; ++i) tasks.push_back(stuck());
      tasks.push_back(tracked_after(ledger, 1, false));
      auto body = [&](CompletionStream<Tracked>& stream) -> Task<> {
        const Tracked local(ledger);
        auto drain = [&]() -> Task<> {
          for (auto next = co_await stream.next(); next; next = co_await stream.next()) {
          }
        };
        co_await uncancellable(drain());
      };
      co_await as_completed(std::move(tasks), body);
    };
    EXPECT_THROW(simulator.run(program()), testing::DeadlockError);
    EXPECT_EQ(ledger.alive(), 0);
  }
}

// The same on real threads, against a timer that fires about when the tasks end.
TEST(AsCompletedAcrossThreads, EndsTimersAndConsumersMeet) {
  WorkStealingExecutor executor({.threads = 3});
  Ledger ledger;
  auto program = [&]() -> Task<> {
    for (std::size_t round = 0; round < scaled(3000); ++round) {
      Tally tally;
      std::vector<Task<Tracked>> tasks;
      for (int i = 0; i < 5; ++i)
        tasks.push_back(tracked_after(ledger, i * static_cast<int>(round % 4), i == 1));
      auto body = [&](CompletionStream<Tracked>& stream) -> Task<> {
        co_await gather(consume(stream, tally, false), consume(stream, tally, true),
                        consume(stream, tally, false));
      };
      const auto limit = std::chrono::microseconds(1 + round % 30);
      co_await as_completed(std::move(tasks), limit, body);
      for (std::atomic<int>& count : tally.given) EXPECT_LE(count.load(), 1);
      EXPECT_GE(tally.late + tally.ends, 2);
    }
  };
  executor.run(program());
  EXPECT_EQ(ledger.alive(), 0);
}

Task<> stream_ends(CompletionStream<int>& stream) {
  co_await stream.next();
}

// The stream's timeout is an error, which wins a race of the first to end, but not one of the first
// to succeed.
TEST(AsCompletedOrders, ANextThatIsTooLateDoesNotWinAnAny) {
  for (const bool waits : {false, true}) {
    testing::explore(scaled(100), [&](testing::SimulatedExecutor& simulator) {
      auto body = [&](CompletionStream<int>& stream) -> Task<> {
        if (!waits) co_await sleep_for(50ms);
        auto winner = co_await any(stream.next(), give_after(60ms, 7));
        if (winner.index != 1) throw std::logic_error("the timeout has won");
        Result<void> second = co_await as_result(stream_ends(stream));
        if (!second.is_timeout()) throw std::logic_error("the stream has forgotten its timeout");
      };
      auto program = [&]() -> Task<> {
        std::vector<Task<int>> tasks;
        tasks.push_back(give_after(300ms, 1));
        co_await as_completed(std::move(tasks), 20ms, body);
      };
      simulator.run(program());
    });
  }
}

TEST(AsCompletedOnTbb, Works) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  auto body = [&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 10; ++i) tasks.push_back(give_after(std::chrono::milliseconds(i), i));
    tasks.push_back(never());
    int sum = 0;
    const auto timed = [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next())
        sum += next->value.value();
    };
    const auto result = co_await as_result(as_completed(std::move(tasks), 100ms, timed));
    EXPECT_TRUE(result.is_timeout());
    EXPECT_EQ(sum, 45);
  };
  executor.run(body());
}

}  // namespace
}  // namespace magpie
