// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Promise and Future: what api.md, sections 0 and 7, says of them.

#include <magpie/promise.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class PromiseTest : public OnMachine {};

template <class T>
Task<T> copy_from(Future<T> future) {
  co_return co_await future;
}
template <class T>
Task<T> move_from(Future<T> future) {
  co_return co_await std::move(future);
}

TEST_ON_THREADS(PromiseTest, ManyWaitersGetCopies) {
  Promise<std::string> promise;
  Future<std::string> future = promise.future();
  std::vector<JoinHandle<std::string>> waiters;
  for (int i = 0; i < 20; ++i) waiters.push_back(executor.spawn(copy_from(future)));
  machine.run([&]() -> Task<> {
    co_await sleep_for(1ms);
    EXPECT_FALSE(future.done());
    EXPECT_THROW(future.result(), InvalidStateError);
    promise.set_value(std::string(100, 'x'));
    EXPECT_TRUE(future.done());
    for (auto& w : waiters) EXPECT_EQ((co_await w).size(), 100u);
    EXPECT_EQ((co_await future).size(), 100u);
    EXPECT_EQ(future.result().value().size(), 100u);
  });
  EXPECT_EQ(future.wait().value().size(), 100u);
}

TEST_ON_THREADS(PromiseTest, AnRvalueMovesTheValueOut) {
  machine.run([&]() -> Task<> {
    Promise<MoveOnly> promise;
    Future<MoveOnly> future = promise.future();
    Future<MoveOnly> copy = future;
    promise.set_value(5);  // constructed in place
    MoveOnly value = co_await std::move(future);
    EXPECT_EQ(value.value(), 5);
    EXPECT_TRUE(copy.done());
    EXPECT_THROW(copy.result(), InvalidStateError);
    const Result<MoveOnly> second = co_await as_result(std::move(copy));
    EXPECT_TRUE(is<InvalidStateError>(second.error()));
  });
}

TEST_ON_THREADS(PromiseTest, AMoverComesAfterThoseWhoWaitedBefore) {
  machine.run([&]() -> Task<> {
    Promise<std::string> promise;
    std::vector<JoinHandle<std::string>> copiers;
    JoinHandle<std::string> mover = executor.spawn(move_from(promise.future()));
    co_await sleep_for(1ms);
    for (int i = 0; i < 5; ++i) copiers.push_back(executor.spawn(copy_from(promise.future())));
    co_await sleep_for(1ms);
    promise.set_value("text");
    EXPECT_EQ(co_await mover, "text");
    for (auto& c : copiers) EXPECT_EQ(co_await c, "text");
  });
}

TEST_ON_THREADS(PromiseTest, ValuesOfAwkwardTypes) {
  int number = 4;
  Promise<std::vector<int>> braces;
  braces.set_value({1, 2});
  EXPECT_EQ(braces.future().wait().value().size(), 2u);
  machine.run([&]() -> Task<> {
    Promise<> nothing;
    nothing.set_value();
    co_await nothing.future();
    Promise<int&> reference;
    reference.set_value(number);
    int& there = co_await reference.future();
    EXPECT_EQ(&there, &number);
    Promise<NoDefault> no_default;
    no_default.set_value(NoDefault(3));
    NoDefault kept = co_await no_default.future();
    EXPECT_EQ(kept.value, 3);
    Promise<std::vector<int>> several;
    several.set_value(std::size_t{3}, 7);
    const std::vector<int> sevens = co_await several.future();
    EXPECT_EQ(sevens, std::vector<int>(3, 7));
    Promise<std::string> empty;
    empty.set_value();
    EXPECT_EQ(co_await empty.future(), "");
    struct alignas(64) Aligned {
      int x = 0;
    };
    Promise<Aligned> aligned;
    aligned.set_value();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&aligned.future().result().value()) % 64, 0u);
    Promise<std::unique_ptr<int>> pointer;
    pointer.set_value(std::make_unique<int>(9));
    auto unique = co_await pointer.future();
    EXPECT_EQ(*unique, 9);
  });
}

// What asyncio's users write as a dict of pending tasks.
TEST(Handle, HandlesAndFuturesCanBeKeys) {
  testing::SimulatedExecutor executor;
  auto number = []() -> Task<int> { co_return 1; };
  JoinHandle<int> first = executor.spawn(number());
  JoinHandle<int> second = executor.spawn(number());
  std::unordered_map<JoinHandle<int>, std::string> names{{first, "first"}, {second, "second"}};
  JoinHandle<int> copy = second;
  EXPECT_EQ(names.at(copy), "second");
  EXPECT_FALSE(names.contains(JoinHandle<int>()));

  Promise<void> promise;
  std::unordered_map<Future<void>, int> numbers{{promise.future(), 1}, {Future<void>(), 2}};
  EXPECT_EQ(numbers.at(promise.future()), 1);
  EXPECT_EQ(numbers.at({}), 2);
}

TEST_ON_THREADS(PromiseTest, FailuresCanBeAskedForAnyNumberOfTimes) {
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    Future<int> future = promise.future();
    promise.set_exception(std::make_exception_ptr(std::runtime_error("failed")));
    for (int i = 0; i < 2; ++i) {
      const Result<int> copied = co_await as_result(future);
      const Result<int> moved = co_await as_result(promise.future());
      EXPECT_EQ(what_of(copied.error()), "failed");
      EXPECT_EQ(what_of(moved.error()), "failed");
    }
    EXPECT_TRUE(future.result().is_error());
  });
}

TEST_ON_THREADS(PromiseTest, ACancelledErrorIsACancellation) {
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    promise.set_exception(std::make_exception_ptr(
        CancelledError(CancelReason{CancelKind::requested, "by the library"})));
    EXPECT_TRUE(promise.future().result().is_cancelled());
    bool caught = false;
    try {
      co_await promise.future();
    } catch (const CancelledError& error) {
      caught = true;
      EXPECT_EQ(error.reason().message, "by the library");
    }
    EXPECT_TRUE(caught);
    co_await this_task::checkpoint();  // its own scope is untouched
  });
}

TEST_ON_THREADS(PromiseTest, ATimeoutErrorIsATimeout) {
  Promise<int> promise;
  promise.set_exception(std::make_exception_ptr(TimeoutError()));
  EXPECT_TRUE(promise.future().result().is_timeout());
}

TEST_ON_THREADS(PromiseTest, ItIsSetOnce) {
  Promise<int> promise;
  EXPECT_THROW(promise.set_exception(nullptr), std::invalid_argument);
  promise.set_value(1);
  EXPECT_THROW(promise.set_value(2), InvalidStateError);
  EXPECT_THROW(promise.set_exception(std::make_exception_ptr(1)), InvalidStateError);
  EXPECT_EQ(promise.future().wait().value(), 1);
  Promise<int> failed;
  failed.set_exception(std::make_exception_ptr(std::runtime_error("first")));
  EXPECT_THROW(failed.set_value(2), InvalidStateError);
  EXPECT_EQ(what_of(failed.future().result().error()), "first");
}

TEST_ON_THREADS(PromiseTest, AValueThatCannotBeMadeLeavesItUnset) {
  struct Picky {
    explicit Picky(int v) : value(v) {
      if (v < 0) throw std::invalid_argument("negative");
    }
    int value;
  };
  Promise<Picky> promise;
  EXPECT_THROW(promise.set_value(-1), std::invalid_argument);
  EXPECT_FALSE(promise.future().done());
  promise.set_value(2);
  EXPECT_EQ(promise.future().wait().value().value, 2);
}

TEST_ON_THREADS(PromiseTest, DyingUnsetBreaksIt) {  // B065
  machine.run([&]() -> Task<> {
    auto promise = std::make_unique<Promise<int>>();
    Future<int> future = promise->future();
    JoinHandle<int> waiter = executor.spawn(copy_from(future));
    co_await sleep_for(1ms);
    promise.reset();
    const Result<int> waited = co_await as_result(waiter);
    EXPECT_TRUE(is<BrokenPromiseError>(waited.error()));
    const Result<int> late = co_await as_result(future);
    EXPECT_TRUE(is<BrokenPromiseError>(late.error()));
    Promise<int> replaced;
    Future<int> lost = replaced.future();
    replaced = Promise<int>();
    EXPECT_TRUE(is<BrokenPromiseError>(lost.result().error()));
    Promise<int> set;
    Future<int> kept = set.future();
    set.set_value(1);
    set = Promise<int>();
    EXPECT_EQ(kept.result().value(), 1);
  });
}

TEST_ON_THREADS(PromiseTest, EmptyOnesRefuseEveryUse) {
  Future<int> empty;
  EXPECT_THROW((void)empty.done(), InvalidStateError);
  EXPECT_THROW(empty.result(), InvalidStateError);
  EXPECT_THROW(empty.wait(), InvalidStateError);
  EXPECT_THROW(executor.run(empty), InvalidStateError);
  EXPECT_THROW(executor.run(Future<int>()), InvalidStateError);
  EXPECT_EQ(empty, Future<int>());
  Promise<int> from;
  Promise<int> to = std::move(from);
  EXPECT_THROW((void)from.future(), InvalidStateError);
  EXPECT_THROW(from.set_value(1), InvalidStateError);
  EXPECT_THROW(from.set_exception(std::make_exception_ptr(1)), InvalidStateError);
  from = std::move(to);
  from.set_value(3);
  EXPECT_EQ(from.future().wait().value(), 3);
}

TEST_ON_THREADS(PromiseTest, CopiesNameTheSameResult) {
  Promise<int> a;
  Promise<int> b;
  Future<int> first = a.future();
  Future<int> second = first;
  EXPECT_EQ(first, second);
  EXPECT_EQ(first, a.future());
  EXPECT_NE(first, b.future());
  EXPECT_NE(first, Future<int>());
}

TEST_ON_THREADS(PromiseTest, ACancelledWaiterLeavesTheOthers) {  // B007, B066
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    JoinHandle<int> first = executor.spawn(copy_from(promise.future()));
    JoinHandle<int> second = executor.spawn(copy_from(promise.future()));
    JoinHandle<int> mover = executor.spawn(move_from(promise.future()));
    co_await sleep_for(1ms);
    first.cancel();
    mover.cancel();
    co_await as_result(mover);
    promise.set_value(6);
    const Result<int> r = co_await as_result(first);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(co_await second, 6);
    EXPECT_EQ(promise.future().result().value(), 6);  // the cancelled mover has taken nothing
  });
}

TEST_ON_THREADS(PromiseTest, AValueThatCameFirstWinsOverTheCancellation) {  // B064
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    JoinHandle<int> waiter = executor.spawn(copy_from(promise.future()));
    co_await sleep_for(1ms);
    promise.set_value(6);
    waiter.cancel();
    const Result<int> r = co_await as_result(waiter);
    EXPECT_TRUE(r.has_value());
  });
}

TEST_ON_THREADS(PromiseTest, AwaitingOneThatIsSetIsACancellationPoint) {
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    promise.set_value(1);
    auto block = [&](CancelScope& scope) -> Task<int> {
      scope.cancel();
      co_return co_await promise.future();
    };
    const Result<int> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(promise.future().result().value(), 1);
  });
}

TEST_ON_THREADS(PromiseTest, GivenToCombinatorsDirectly) {
  machine.run([&]() -> Task<> {
    Promise<int> a;
    Promise<std::string> b;
    Future<int> fa = a.future();
    auto set = [&]() -> Task<> {
      co_await sleep_for(1ms);
      a.set_value(1);
      co_await sleep_for(1ms);
      b.set_value("two");
    };
    JoinHandle<void> setting = executor.spawn(set());
    auto first = co_await race(fa, b.future());
    EXPECT_EQ(first.index, 0u);
    auto [x, y] = co_await gather(fa, b.future());
    EXPECT_EQ(x, 1);
    EXPECT_EQ(y, "two");
    EXPECT_THROW((void)b.future().result(), InvalidStateError);  // an rvalue was moved out of
    std::vector<Future<int>> many(10, fa);
    std::vector<int> all = co_await gather(many);
    EXPECT_EQ(all, std::vector<int>(10, 1));
    Promise<int> never_set;
    const Result<int> r = co_await try_timeout(never_set.future(), 1ms);
    EXPECT_TRUE(r.is_timeout());
    EXPECT_EQ(co_await timeout(fa, 0s), 1);  // done: its result
    EXPECT_EQ(co_await shield(fa), 1);
    JoinHandle<int> spawned = executor.spawn(fa);
    EXPECT_EQ(co_await spawned, 1);
    co_await setting;
  });
  Promise<int> outside;
  outside.set_value(8);
  EXPECT_EQ(executor.run(outside.future()), 8);
}

TEST_ON_THREADS(PromiseTest, ALoserOfARaceLeavesTheValue) {  // B138
  machine.run([&]() -> Task<> {
    Promise<MoveOnly> a;
    Promise<MoveOnly> b;
    a.set_value(1);
    b.set_value(2);
    auto first = co_await race(a.future(), b.future());
    const bool a_won = first.index == 0;
    EXPECT_EQ(first.value.value(), a_won ? 1 : 2);
    MoveOnly left = co_await (a_won ? b : a).future();
    EXPECT_EQ(left.value(), a_won ? 2 : 1);
  });
}

TEST_ON_THREADS(PromiseTest, AThrowingCopyReachesItsWaiterAlone) {
  machine.run([&]() -> Task<> {
    Promise<ThrowsOnCopy> promise;
    Future<ThrowsOnCopy> future = promise.future();
    JoinHandle<ThrowsOnCopy> parked = executor.spawn(copy_from(future));
    co_await sleep_for(1ms);
    promise.set_value(3);
    const Result<ThrowsOnCopy> first = co_await as_result(std::move(parked));
    EXPECT_EQ(what_of(first.error()), "copied");
    const Result<ThrowsOnCopy> second = co_await as_result(future);
    EXPECT_EQ(what_of(second.error()), "copied");
    EXPECT_EQ(future.result().value().value, 3);
  });
}

TEST_ON_THREADS(PromiseTest, WaitOnAWorkerIsALogicErrorAlsoWhenDone) {
  Promise<int> promise;
  promise.set_value(1);
  machine.run([&]() -> Task<> {
    EXPECT_THROW(promise.future().wait(), std::logic_error);
    co_return;
  });
}

// The thread that waits belongs to no executor, and virtual time goes on for it.
TEST_ON_THREADS(PromiseTest, VirtualTimeMovesForAThreadThatWaits) {
  Promise<int> promise;
  Future<int> future = promise.future();
  auto set_later = [&]() -> Task<> {
    co_await sleep_for(10h);
    promise.set_value(5);
    co_await sleep_for(24h);  // nobody waits for this
  };
  JoinHandle<void> setting = executor.spawn(set_later());
  EXPECT_EQ(future.wait().value(), 5);
  EXPECT_EQ(machine.elapsed(), 10h);
  EXPECT_FALSE(setting.done());
  setting.cancel();
}

TEST(PromiseAcrossThreads, VirtualTimeMovesAlsoOnAClockThatComesLater) {
  for (std::size_t round = 0; round < scaled(200); ++round) {
    Promise<int> promise;
    Future<int> future = promise.future();
    std::thread later([&] {
      Machine machine(2);
      auto set_later = [&]() -> Task<> {
        co_await sleep_for(1h);
        promise.set_value(5);
      };
      JoinHandle<void> setting = machine.executor.spawn(set_later());
      while (!setting.done())
        std::this_thread::yield();  // not wait(): that would move the time by itself
    });
    EXPECT_EQ(future.wait().value(), 5);
    later.join();
  }
}

TEST_ON_THREADS(PromiseTest, AHundredThousandWaiters) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    Promise<int> promise;
    Future<int> future = promise.future();
    std::vector<Future<int>> futures(n, future);
    JoinHandle<std::vector<int>> all = executor.spawn(gather(futures));
    co_await sleep_for(1ms);
    promise.set_value(3);
    std::vector<int> values = co_await std::move(all);
    EXPECT_EQ(values, std::vector<int>(n, 3));
  });
}

TEST(PromiseOutlives, EveryExecutor) {
  Promise<std::string> promise;
  Future<std::string> future = promise.future();
  {
    WorkStealingExecutor executor({.threads = 1});
    JoinHandle<std::string> waiter = executor.spawn(copy_from(future));
    executor.run(sleep_for(1ms));
  }  // cancels the waiter
  promise.set_value("late");
  EXPECT_EQ(future.wait().value(), "late");
  WorkStealingExecutor executor({.threads = 1});
  EXPECT_EQ(executor.run(future), "late");
}

TEST(PromiseOutlives, TheLastOfPromiseAndFuturesFreesTheValue) {
  Ledger ledger;
  {
    std::optional<Promise<Tracked>> promise(std::in_place);
    Future<Tracked> future = promise->future();
    promise->set_value(ledger);
    promise.reset();
    EXPECT_EQ(ledger.alive(), 1);
    Future<Tracked> copy = future;
    future = Future<Tracked>();
    EXPECT_EQ(ledger.alive(), 1);
    copy = Future<Tracked>();
    EXPECT_EQ(ledger.alive(), 0);
  }
  Promise<Tracked> nobody_asks;
  nobody_asks.set_value(ledger);
  EXPECT_EQ(ledger.alive(), 1);
}

TEST(PromiseInEveryOrder, ValuesMoversAndCancellations) {
  testing::explore(scaled(20'000), [](testing::SimulatedExecutor& simulator) {
    Ledger ledger;
    auto body = [&]() -> Task<> {
      Promise<Tracked> promise;
      JoinHandle<Tracked> copier = spawn(copy_from(promise.future()));
      JoinHandle<Tracked> mover = spawn(move_from(promise.future()));
      JoinHandle<Tracked> cancelled = spawn(move_from(promise.future()));
      auto contend = [](Future<Tracked> future) -> Task<bool> {
        auto first = co_await race(std::move(future), this_task::yield());
        co_return first.index == 0;
      };
      JoinHandle<bool> contest = spawn(contend(promise.future()));
      co_await this_task::yield();
      cancelled.cancel();
      co_await this_task::yield();
      promise.set_value(ledger);
      int moved = 0;
      // Whoever comes after a mover is refused; nobody else is, and one mover at most has the
      // value.
      for (const auto* handle : {&mover, &cancelled}) {
        const Result<Tracked> r = co_await as_result(*handle);
        moved += r.has_value() ? 1 : 0;
        if (r.is_error() && !is<InvalidStateError>(r.error()))
          throw std::logic_error("another error");
      }
      const Result<bool> raced = co_await as_result(contest);
      moved += raced.value_or(false) ? 1 : 0;
      if (moved != 1) throw std::logic_error(std::to_string(moved) + " movers have the value");
      co_await as_result(copier);
    };
    simulator.run(body());
    if (ledger.alive() != 0) throw std::logic_error("a value was lost");
  });
}

TEST(PromiseAcrossThreads, OneOfManySettersWins) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    Promise<std::size_t> promise;
    Future<std::size_t> future = promise.future();
    JoinHandle<std::size_t> waiter = workers.spawn(copy_from(future));
    std::atomic<int> refused{0};
    std::atomic<std::size_t> winner{0};
    const auto set = [&](std::size_t value) {
      try {
        value == 3 ? promise.set_exception(std::make_exception_ptr(std::runtime_error("three")))
                   : promise.set_value(value);
        winner += value;
      } catch (const InvalidStateError&) {
        ++refused;
      }
    };
    std::thread other([&] { set(1); });
    workers.post([&] { set(2); });
    set(3);
    other.join();
    const Result<std::size_t>& r = waiter.wait();
    EXPECT_TRUE(eventually([&] { return refused.load() == 2 && winner.load() != 0; }));
    EXPECT_EQ(r.value_or(3), winner.load());
  }
}

// Whoever sees the result may destroy the promise, while its setter is still on his way out.
TEST(PromiseAcrossThreads, ItsWaiterMayDestroyIt) {
  WorkStealingExecutor workers({.threads = 2});
  for (std::size_t round = 0; round < scaled(4000); ++round) {
    auto promise = std::make_unique<Promise<int>>();
    Future<int> future = promise->future();
    workers.post([raw = promise.get()] { raw->set_value(1); });
    if (round % 2 == 0) {
      EXPECT_EQ(future.wait().value(), 1);
    } else {
      EXPECT_EQ(workers.run(future), 1);
    }
    promise.reset();
  }
}

// Setting wakes tasks of an executor that ends at that moment.
TEST(PromiseAcrossThreads, AnExecutorEndsUnderItsWaiters) {
  for (std::size_t round = 0; round < scaled(500); ++round) {
    Promise<int> promise;
    std::optional<WorkStealingExecutor> there(std::in_place, ExecutorOptions{.threads = 2});
    std::vector<JoinHandle<int>> waiters;
    for (int i = 0; i < 3; ++i) waiters.push_back(there->spawn(copy_from(promise.future())));
    std::thread setter([&] { promise.set_value(4); });
    there.reset();
    for (auto& w : waiters) EXPECT_TRUE(w.done() && (w.cancelled() || w.result().value() == 4));
    setter.join();
  }
}

}  // namespace
}  // namespace magpie
