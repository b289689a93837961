// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (more of what as_completed_test shows)

// as_completed: left before all is done, cancelled, and within a race.

#include <magpie/as_completed.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

/// Tasks that give their number after so many seconds.
template <class... Seconds>
std::vector<Task<int>> after(Seconds... seconds) {
  std::vector<Task<int>> tasks;
  int number = 0;
  (tasks.push_back(give_after(std::chrono::seconds(seconds), number++)), ...);
  return tasks;
}

class AsCompleted : public OnMachine {};

// --- leaving -------------------------------------------------------------------------------------

TEST_ON_THREADS(AsCompleted, LeavingTheBodyCancelsAndAwaitsWhatStillRuns) {  // B126, B129
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(watched(ended, why));
    tasks.push_back(give_after(1s, 1));
    tasks.push_back(stubborn(3s, 2));
    const int first =
        co_await as_completed(std::move(tasks), [&](CompletionStream<int>& stream) -> Task<int> {
          auto next = co_await stream.next();
          co_return next->value.value();
        });
    EXPECT_EQ(first, 1);
    EXPECT_TRUE(ended);
    EXPECT_EQ(why, CancelKind::group_cancelled);
    EXPECT_EQ(machine.elapsed(), 3s);
    co_await this_task::checkpoint();  // nobody but the tasks was cancelled
  });
}

TEST_ON_THREADS(AsCompleted, WhatIsNotAskedForIsDropped) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&](Duration pause) -> Task<Tracked> {
      co_await sleep_for(pause);
      co_return Tracked(ledger);
    };
    std::vector<Task<Tracked>> tasks;
    for (int i = 0; i < 5; ++i) tasks.push_back(make(std::chrono::seconds(i)));
    co_await as_completed(std::move(tasks), [&](CompletionStream<Tracked>& stream) -> Task<> {
      co_await sleep_for(2500ms);
      auto next = co_await stream.next();
      EXPECT_TRUE(next.has_value());
    });
    EXPECT_GE(ledger.total(), 3);
  });
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_EQ(machine.elapsed(), 2500ms);
}

TEST_ON_THREADS(AsCompleted, AnErrorOfTheBodyCancelsTheTasksAndIsThrown) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(watched(ended, why));
    auto body = [&](CompletionStream<int>&) -> Task<int> {
      co_await sleep_for(1s);
      throw std::runtime_error("body");
    };
    const auto result = co_await as_result(as_completed(std::move(tasks), body));
    EXPECT_EQ(what_of(result.error()), "body");
    EXPECT_TRUE(ended);
  });
}

TEST_ON_THREADS(AsCompleted, ACallableThatThrowsStartsNothing) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(started(ran));
    auto plain = [&](CompletionStream<int>&) -> Task<int> {
      throw std::runtime_error("no body");
    };  // no coroutine
    const auto refused = co_await as_result(as_completed(std::move(tasks), plain));
    EXPECT_EQ(what_of(refused.error()), "no body");
    co_await sleep_for(1s);
  });
  EXPECT_FALSE(ran);
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(AsCompleted, InACancelledScopeItStartsNothing) {
  bool ran = false;
  bool body_ran = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      std::vector<Task<int>> tasks;
      tasks.push_back(started(ran));
      auto body = [&](CompletionStream<int>&) -> Task<> {
        body_ran = true;
        co_return;
      };
      const auto result = co_await as_result(as_completed(std::move(tasks), body));
      EXPECT_EQ(reason_of(result.error()).message, "before");
      std::vector<Task<int>> none;
      auto asks = [&](CompletionStream<int>& stream) -> Task<int> {
        const auto next = co_await as_result(stream.next());
        EXPECT_TRUE(next.is_cancelled());  // next() is a cancellation point; as_completed of
                                           // nothing is none
        co_return 3;
      };
      const int three = co_await as_completed(std::move(none), asks);
      EXPECT_EQ(three, 3);
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
  EXPECT_FALSE(ran);
  EXPECT_FALSE(body_ran);
}

TEST_ON_THREADS(AsCompleted, CancelledFromOutsideCancelsTasksAndBody) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(watched(ended, why));
    auto body = [&](CompletionStream<int>& stream) -> Task<> { (void)co_await stream.next(); };
    const auto result = co_await try_timeout(as_completed(std::move(tasks), body), 1s);
    EXPECT_TRUE(result.is_timeout());
    EXPECT_TRUE(ended);
    EXPECT_EQ(why, CancelKind::timeout);
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(AsCompleted, ABodyBehindAMaskStillGetsWhatEnded) {
  machine.run([&]() -> Task<> {
    CancellationSource source;
    std::vector<Task<int>> tasks;
    tasks.push_back(never());
    tasks.push_back(stubborn(2s, 7));
    int cancelled = 0;
    int values = 0;
    auto drain = [&](CompletionStream<int>& stream) -> Task<> {
      for (auto next = co_await stream.next(); next; next = co_await stream.next()) {
        if (next->value.is_cancelled()) ++cancelled;
        if (next->value.has_value()) values += next->value.value();
      }
    };
    auto body = [&](CompletionStream<int>& stream) -> Task<int> {
      co_await uncancellable(drain(stream));
      co_return 9;
    };
    auto cancel_later = [&]() -> Task<> {
      co_await sleep_for(1s);
      source.cancel();
    };
    JoinHandle<void> canceller = executor.spawn(cancel_later());
    const int nine = co_await with_token(source.token(), as_completed(std::move(tasks), body));
    EXPECT_EQ(nine, 9);
    EXPECT_EQ(cancelled, 1);
    EXPECT_EQ(values, 7);
    co_await canceller;
  });
}

TEST_ON_THREADS(AsCompleted, NextTakesNothingWhenItLosesARaceOrIsCancelled) {  // B128
  machine.run([&]() -> Task<> {
    co_await as_completed(after(2, 1), [&](CompletionStream<int>& stream) -> Task<> {
      auto first = co_await race(stream.next(), sleep_for(500ms));
      EXPECT_EQ(first.index, 1u);
      const auto timed = co_await try_timeout(stream.next(), 100ms);
      EXPECT_TRUE(timed.is_timeout());
      auto second = co_await race(sleep_for(5s), stream.next());
      EXPECT_EQ(second.index, 1u);
      EXPECT_EQ(std::get<1>(second.value)->index, 1u);
      int seen = 0;
      for (auto next = co_await stream.next(); next; next = co_await stream.next()) ++seen;
      EXPECT_EQ(seen, 1);
    });
  });
}

}  // namespace
}  // namespace magpie
