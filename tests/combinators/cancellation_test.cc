// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// with_token, uncancellable, tokens of scopes, and section 9's decisions about cancellation: what
// api.md says of them.

#include <magpie/cancellation.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class Cancellation : public OnMachine {};

// --- with_token ----------------------------------------------------------------------------------

TEST_ON_THREADS(Cancellation, TokenCancelsTheTask) {
  CancellationSource source;
  machine.run([&]() -> Task<> {
    auto cancel_soon = [&]() -> Task<> {
      co_await sleep_for(1ms);
      EXPECT_TRUE(source.cancel("by token"));
      EXPECT_FALSE(source.cancel("again"));  // the first reason wins
    };
    JoinHandle<void> other = executor.spawn(cancel_soon());
    Result<int> r = co_await as_result(with_token(source.token(), never()));
    EXPECT_EQ(reason_of(r.error()).message, "by token");
    EXPECT_EQ(reason_of(r.error()).kind, CancelKind::requested);
    co_await this_task::checkpoint();  // only the inner scope
    co_await other;
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(Cancellation, TokenThatIsCancelledAlreadyStartsNothing) {  // B062
  CancellationSource source;
  source.cancel("early");
  bool ran = false;
  machine.run([&]() -> Task<> {
    Result<int> r = co_await as_result(with_token(source.token(), started(ran)));
    EXPECT_EQ(reason_of(r.error()).message, "early");
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Cancellation, WithTokenInACancelledScopeStartsNothing) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("scope");
      Result<int> r = co_await as_result(with_token(CancellationToken(), started(ran)));
      EXPECT_EQ(reason_of(r.error()).message, "scope");
    };
    co_await cancel_scope(block);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Cancellation, TokenThatNeverCancelsChangesNothing) {
  machine.run([&]() -> Task<> {
    const int a = co_await with_token(CancellationToken(), give_after(1ms, 4));
    EXPECT_EQ(a, 4);
    std::optional<CancellationSource> source{std::in_place};
    CancellationToken token = source->token();
    source.reset();
    const int b = co_await with_token(token, give_after(1ms, 5));
    EXPECT_EQ(b, 5);
    CancellationSource late;
    Result<int> error = co_await as_result(with_token(late.token(), fail("e")));
    EXPECT_EQ(what_of(error.error()), "e");
    EXPECT_TRUE(late.cancel());  // the task is gone: nothing happens
  });
}

TEST_ON_THREADS(Cancellation, ValueGivenInSpiteOfTheTokenWins) {
  CancellationSource source;
  machine.run([&]() -> Task<> {
    auto cancel_itself_through_the_token = [&]() -> Task<int> {
      source.cancel();
      co_return 3;  // self-cancel, then a value: the value wins
    };
    const int value = co_await with_token(source.token(), cancel_itself_through_the_token());
    EXPECT_EQ(value, 3);
  });
}

TEST_ON_THREADS(Cancellation, TokenOfAnyOfSeveral) {
  CancellationSource a;
  CancellationSource b;
  machine.run([&]() -> Task<> {
    auto cancel_b = [&]() -> Task<> {
      co_await sleep_for(1ms);
      b.cancel("b");
    };
    auto waiting = with_token(any_of(a.token(), b.token()), never());
    auto results = co_await gather(return_exceptions, std::move(waiting), cancel_b());
    EXPECT_EQ(reason_of(std::get<0>(results).error()).message, "b");
  });
}

// --- uncancellable -------------------------------------------------------------------------------

TEST_ON_THREADS(Cancellation, MaskHidesTheOuterCancellationWhichIsSeenAfter) {  // B032, B170
  machine.run([&]() -> Task<> {
    bool inside = false;
    auto masked = [&]() -> Task<int> {
      co_await sleep_for(10ms);
      co_await this_task::checkpoint();
      inside = true;
      co_return 2;
    };
    auto body = [&]() -> Task<int> {
      const int value = co_await uncancellable(masked());
      Result<void> after = co_await as_result(this_task::checkpoint());
      EXPECT_TRUE(after.is_cancelled());
      co_return value;
    };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 2);
    EXPECT_TRUE(inside);
  });
  EXPECT_EQ(machine.elapsed(), 10ms);
}

TEST_ON_THREADS(Cancellation, EnteringAMaskIsNoCancellationPoint) {
  machine.run([&]() -> Task<> {
    bool ran = false;
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      const int value = co_await uncancellable(started(ran, 4));
      EXPECT_EQ(value, 4);
    };
    co_await cancel_scope(block);
    EXPECT_TRUE(ran);
  });
}

TEST_ON_THREADS(Cancellation, ScopesInsideAMaskWorkAsEver) {  // B170
  machine.run([&]() -> Task<> {
    auto inner = [&]() -> Task<> {
      Result<int> late = co_await as_result(timeout(never(), 1ms));
      EXPECT_TRUE(late.is_timeout());
      auto block = [](CancelScope& scope) -> Task<> {
        scope.cancel();
        co_await sleep_for(1h);
      };
      auto ended = co_await cancel_scope(block);
      EXPECT_TRUE(ended.is_cancelled());
      auto first = co_await race(never(), give_after(1ms, 1));
      EXPECT_EQ(first.index, 1u);
    };
    auto outer = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await uncancellable(inner());
    };
    co_await cancel_scope(outer);
  });
  EXPECT_EQ(machine.elapsed(), 2ms);
}

TEST_ON_THREADS(Cancellation, DeadlinesOutsideAMaskDoNotReachIn) {
  machine.run([&]() -> Task<> {
    const int value = co_await timeout(uncancellable(give_after(10ms, 7)), 1ms);
    EXPECT_EQ(value, 7);
  });
}

TEST_ON_THREADS(Cancellation, MaskInOneChildDoesNotProtectItsSiblings) {  // B171
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> {
      co_await gather(uncancellable(nothing_after(5ms)), watched(ended, why));
    };
    Result<void> r = co_await as_result(timeout(body(), 1ms));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_TRUE(ended);
}

// --- decisions (api.md, section 9) ---------------------------------------------------------------

TEST_ON_THREADS(Cancellation, TaskCancelledBeforeItsFirstStepNeverRuns) {  // B004
  Ledger ledger;
  bool ran = false;
  auto hold = [](Tracked tracked, bool& flag) -> Task<> {
    flag = true;
    tracked.touch();
    co_return;
  };
  machine.run([&]() -> Task<> {
    CancellationSource source;
    source.cancel("born so");
    JoinHandle<void> handle =
        executor.spawn(hold(Tracked(ledger), ran), SpawnOptions().token(source.token()));
    Result<void> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "born so");
    EXPECT_EQ(ledger.alive(), 0);  // its arguments are gone before the joiner goes on
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Cancellation, SelfCancelThenAValueIsTheValue) {  // B024, B025
  machine.run([&]() -> Task<> {
    auto r = co_await cancel_scope([](CancelScope& scope) -> Task<int> {
      scope.cancel();
      co_return 1;
    });
    EXPECT_EQ(r.value(), 1);
  });
}

TEST_ON_THREADS(Cancellation, SwallowedCancellationLeavesTheScopeCancelled) {  // B020, B021
  machine.run([&]() -> Task<> {
    int thrown = 0;
    auto deaf = [&]() -> Task<int> {
      for (int i = 0; i < 3; ++i) {
        try {
          co_await sleep_for(1h);
        } catch (const CancelledError&) {
          ++thrown;
        }
      }
      co_return 6;
    };
    JoinHandle<int> handle = executor.spawn(deaf());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 6);
    EXPECT_EQ(thrown, 3);
    EXPECT_FALSE(handle.cancelled());
  });
}

TEST_ON_THREADS(Cancellation, TaskCancelledElsewhereDoesNotTouchTheWaitersScope) {  // B028
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(never());
    handle.cancel("elsewhere");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "elsewhere");
    co_await this_task::checkpoint();
    co_await sleep_for(1ms);
  });
}

TEST_ON_THREADS(Cancellation, TwoCancelsTheSecondChangesNothing) {  // B019, B036
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(never());
    co_await sleep_for(1ms);
    EXPECT_TRUE(handle.cancel("first"));
    EXPECT_FALSE(handle.cancel("second"));
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "first");
    EXPECT_FALSE(handle.cancel("late"));
  });
}

TEST_ON_THREADS(Cancellation,
                TheOutermostCancelledScopeCatchesWhicheverWasCancelledFirst) {  // B046
  machine.run([&]() -> Task<> {
    for (const bool inner_first : {false, true}) {
      bool entered = false;
      auto outer = [&](CancelScope& around) -> Task<> {
        auto inner = [&](CancelScope& scope) -> Task<int> {
          entered = true;
          co_await sleep_for(1ms);  // below which somebody has waited: it is reached at once
          if (inner_first) scope.cancel("inner");
          around.cancel("outer");
          scope.cancel("inner");
          Result<int> waited = co_await as_result(never());
          // Inside it is the one that came first, and no later one changes that.
          EXPECT_EQ(reason_of(waited.error()).message, inner_first ? "inner" : "outer");
          co_return std::move(waited).value();
        };
        auto block = cancel_scope(inner);
        Result<Result<int>> r = co_await as_result(std::move(block));
        EXPECT_EQ(reason_of(r.error()).message, "outer");
        co_await this_task::checkpoint();
      };
      const Result<void> caught = co_await cancel_scope(outer);
      EXPECT_EQ(reason_of(caught.error()).message, "outer");
      EXPECT_TRUE(entered);
    }
  });
}

TEST_ON_THREADS(Cancellation, CancellationPointsInACancelledScopeHaveNoSideEffect) {
  Semaphore semaphore(1);
  Event event;
  event.set();
  machine.run([&]() -> Task<> {
    JoinHandle<int> done = executor.spawn(give(1));
    co_await as_result(done);
    bool ran = false;
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("x");
      Result<Permit> a = co_await as_result(semaphore.acquire());
      EXPECT_TRUE(a.is_cancelled());
      EXPECT_EQ(semaphore.available(), 1u);
      Result<Permit> zero = co_await as_result(semaphore.acquire(0));
      EXPECT_TRUE(zero.is_cancelled());
      Result<void> b = co_await as_result(event.wait());
      EXPECT_TRUE(b.is_cancelled());
      Result<int> c = co_await as_result(done);
      EXPECT_TRUE(c.is_cancelled());
      Result<void> d = co_await as_result(this_task::yield());
      EXPECT_TRUE(d.is_cancelled());
      Result<void> e = co_await as_result(sleep_for(0s));
      EXPECT_TRUE(e.is_cancelled());
      Result<void> f = co_await as_result(this_task::checkpoint());
      EXPECT_TRUE(f.is_cancelled());
      auto pair = gather(started(ran), started(ran));
      auto g = co_await as_result(std::move(pair));
      EXPECT_TRUE(g.is_cancelled());
      auto results = gather(return_exceptions, started(ran));
      auto h = co_await as_result(std::move(results));
      EXPECT_TRUE(h.is_cancelled());
      // Not cancellation points: a plain call, and combinators over nothing.
      const int plain = co_await give(5);
      EXPECT_EQ(plain, 5);
      co_await gather();
      auto none = co_await gather(std::vector<Task<int>>());
      EXPECT_TRUE(none.empty());
    };
    auto r = co_await cancel_scope(block);
    EXPECT_TRUE(r.has_value());
    EXPECT_FALSE(ran);
  });
  EXPECT_EQ(machine.elapsed(), 0ms);
}

// --- tokens of scopes ----------------------------------------------------------------------------

TEST_ON_THREADS(Cancellation, TokenOfAScopeFollowsItAndWhatEnclosesIt) {
  machine.run([&]() -> Task<> {
    CancellationToken inner;
    auto block = [&](CancelScope& scope) -> Task<> {
      inner = co_await this_task::token();
      EXPECT_TRUE(inner.can_be_cancelled());
      EXPECT_FALSE(inner.cancelled());
      std::atomic<int> called{0};
      CancellationCallback callback(inner, [&] { called.fetch_add(1); });
      scope.cancel("with a callback");
      EXPECT_TRUE(inner.cancelled());
      EXPECT_EQ(called.load(), 1);
      CancellationToken again = co_await this_task::token();
      EXPECT_TRUE(again.cancelled());
    };
    co_await cancel_scope(block);
    EXPECT_TRUE(inner.cancelled());
    const CancellationToken own = co_await this_task::token();
    EXPECT_FALSE(own.cancelled());
  });
}

// Were the task woken first, it would end and take its callback back, called or not.
TEST_ON_THREADS(Cancellation, ACallbackOfATasksOwnTokenHasBeenCalledBeforeTheTaskGoesOn) {
  std::atomic<int> called{0};
  std::atomic<bool> gone_on{false};
  std::atomic<bool> overtaken{false};
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> {
      const CancellationToken own = co_await this_task::token();
      CancellationCallback last(own, [&] { called.fetch_add(1); });
      CancellationCallback first(own, [&] {  // real time: for others to do what they should not
        const auto end = std::chrono::steady_clock::now() + 20ms;
        while (!gone_on.load() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        overtaken = gone_on.load();
        called.fetch_add(1);
      });
      const Result<void> slept = co_await as_result(sleep_for(1h));
      gone_on = true;
      EXPECT_TRUE(slept.is_cancelled());
      EXPECT_EQ(called.load(), 2);
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    co_await as_result(handle);
  });
  EXPECT_FALSE(overtaken.load());
  EXPECT_EQ(called.load(), 2);
}

TEST_ON_THREADS(Cancellation, TokenKeptBeyondItsScopeFollowsTheEnclosingOnes) {
  CancellationToken kept;
  CancellationToken masked;
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> {
      auto block = [&](CancelScope&) -> Task<> { kept = co_await this_task::token(); };
      co_await cancel_scope(block);
      auto ask = [&]() -> Task<> { masked = co_await this_task::token(); };
      co_await uncancellable(ask());
      EXPECT_FALSE(kept.cancelled());
      co_await sleep_for(1h);
    };
    JoinHandle<void> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel("later");
    co_await as_result(handle);
    EXPECT_TRUE(kept.cancelled());
    EXPECT_TRUE(masked.cancelled());  // a mask that has ended no longer shields it
    EXPECT_THROW(kept.throw_if_cancelled(), CancelledError);
  });
}

TEST_ON_THREADS(Cancellation, TokenOfATaskThatEndedCannotBeCancelled) {
  CancellationToken kept;
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<> { kept = co_await this_task::token(); };
    co_await executor.spawn(body());
  });
  EXPECT_FALSE(kept.cancelled());
  EXPECT_FALSE(kept.can_be_cancelled());
}

TEST_ON_THREADS(Cancellation, MaskedTokenDoesNotFollowTheOuterScope) {
  machine.run([&]() -> Task<> {
    auto ask = [](CancelScope& scope) -> Task<> {
      CancellationToken token = co_await this_task::token();
      scope.cancel();
      EXPECT_FALSE(token.cancelled());
      token = co_await this_task::token();
      EXPECT_FALSE(token.cancelled());
    };
    auto outer = [&](CancelScope& scope) -> Task<> { co_await uncancellable(ask(scope)); };
    co_await cancel_scope(outer);
  });
}

// Cancellations of nested scopes cross from several threads while the tasks end: no crash, no hang,
// every task ends.
TEST(CancellationAcrossThreads, SourcesCrossWithTheEndsOfTasks) {
  WorkStealingExecutor workers({.threads = 2});
  for (int round = 0; round < 300; ++round) {
    CancellationSource outer;
    CancellationSource inner;
    auto leaf = [](int n) -> Task<int> {
      for (int i = 0; i < n; ++i) co_await this_task::yield();
      co_return n;
    };
    auto middle = [&]() -> Task<int> {
      auto results =
          co_await gather(leaf(round % 7), with_token(inner.token(), leaf(round % 11)), leaf(3));
      co_return std::get<0>(results);
    };
    JoinHandle<int> handle = workers.spawn(with_token(outer.token(), middle()));
    std::thread a([&] { inner.cancel("a"); });
    std::thread b([&] { outer.cancel("b"); });
    handle.cancel("c");
    a.join();
    b.join();
    const Result<int>& r = handle.wait();
    EXPECT_TRUE(r.has_value() || r.is_cancelled());
  }
  EXPECT_TRUE(eventually([&] { return workers.stats().live_tasks == 0; }));
}

auto long_sleeps(std::size_t n) {
  std::vector<decltype(sleep_for(1h))> sleeps;
  for (std::size_t i = 0; i < n; ++i) sleeps.push_back(sleep_for(1h));
  return sleeps;
}

TEST(CancelledRow, ChildrenWithoutFramesAreOnePieceOfWork) {
  WorkStealingExecutor worker({.threads = 1});
  constexpr std::size_t kChildren = 1'000;
  CancellationSource source;
  auto sleep = [&]() -> Task<> { co_await gather(long_sleeps(kChildren)); };
  auto both = [&]() -> Task<std::size_t> {
    auto cancel = [&]() -> Task<> {
      while (worker.stats().pending_timers < kChildren) co_await this_task::yield();
      source.cancel();
    };
    const std::size_t before = worker.stats().total.tasks_run;
    const auto [result, nothing] =
        co_await gather(as_result(with_token(source.token(), sleep())), cancel());
    EXPECT_TRUE(result.is_cancelled());
    co_return worker.stats().total.tasks_run - before;
  };
  EXPECT_LT(worker.run(both()), 20U);
}

TEST(CancelledRow, OthersHaveTheirTurnBeforeItsEnd) {
  WorkStealingExecutor worker({.threads = 1});
  CancellationSource source;
  bool over = false;
  std::size_t turns = 0;
  constexpr std::size_t kChildren = 1'000;
  auto sleep = [&]() -> Task<> { co_await gather(long_sleeps(kChildren)); };
  auto sleeper = [&]() -> Task<> {
    const auto result = co_await as_result(with_token(source.token(), sleep()));
    EXPECT_TRUE(result.is_cancelled());
    over = true;
  };
  auto other = [&]() -> Task<> {
    while (worker.stats().pending_timers < kChildren) co_await this_task::yield();
    source.cancel();
    while (!over) {
      ++turns;
      co_await this_task::yield();
    }
  };
  auto both = [&]() -> Task<> { co_await gather(sleeper(), other()); };
  worker.run(both());
  EXPECT_GT(turns, 10U);
}

TEST(CancelledRow, EndsBesideChildrenThatAreServed) {
  for (const std::size_t threads : {1U, 2U, 4U}) {
    WorkStealingExecutor workers({.threads = threads});
    for (std::size_t round = 0; round < scaled(100); ++round) {
      constexpr std::size_t kPermits = 10;
      Semaphore semaphore(0);
      CancellationSource source;
      auto acquire = [&]() -> Task<> {
        std::vector<decltype(semaphore.acquire())> all;
        for (int i = 0; i < 200; ++i) all.push_back(semaphore.acquire());
        co_await gather(std::move(all));
      };
      JoinHandle<void> handle = workers.spawn(with_token(source.token(), acquire()));
      std::thread canceller([&] { source.cancel(); });
      for (std::size_t i = 0; i < kPermits; ++i) semaphore.add_permits(1);
      canceller.join();
      EXPECT_TRUE(handle.wait().is_cancelled());
      EXPECT_EQ(semaphore.available(), kPermits);
    }
  }
}

// Who cancels is still in the call when the body sees it at a checkpoint, leaves, and is gone.
TEST(CancellationAcrossThreads, ABlockMayEndWhileTheCallThatCancelsItIsUnderWay) {
  WorkStealingExecutor workers({.threads = 1});
  std::atomic<CancelScope*> scope{nullptr};
  std::atomic<TaskGroup*> group{nullptr};
  std::atomic<bool> stop{false};
  auto until_cancelled = []() -> Task<> {
    for (;;) {
      std::this_thread::yield();  // there may be one processor
      co_await this_task::checkpoint();
    }
  };
  auto cancelled_scope = [&]() -> Task<> {
    auto body = [&](CancelScope& block) -> Task<> {
      scope = &block;
      co_await until_cancelled();
    };
    const auto result = co_await cancel_scope(body);
    EXPECT_TRUE(result.is_cancelled());
  };
  auto cancelled_group = [&]() -> Task<> {
    auto body = [&](TaskGroup& block) -> Task<> {
      group = &block;
      co_await until_cancelled();
    };
    co_await task_group(body);
  };
  std::thread canceller([&] {
    while (!stop.load()) {
      if (CancelScope* const s = scope.exchange(nullptr)) s->cancel();
      if (TaskGroup* const g = group.exchange(nullptr)) g->cancel();
      std::this_thread::yield();
    }
  });
  for (std::size_t round = 0; round < scaled(1000); ++round) {
    workers.run(cancelled_scope());
    workers.run(cancelled_group());
  }
  stop = true;
  canceller.join();
}

}  // namespace
}  // namespace magpie
