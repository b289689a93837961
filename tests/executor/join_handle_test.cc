// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// JoinHandle: waiting, results, cancelling, and how long it lives.

#include <magpie/join_handle.h>

#include <atomic>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/event.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::MoveOnly;
using test::NoDefault;
using test::ThrowsOnCopy;
using test::Tracked;

Task<int> give(int value) {
  co_return value;
}
Task<> do_nothing() {
  co_return;
}
Task<MoveOnly> give_move_only(int value) {
  co_return MoveOnly(value);
}
Task<NoDefault> give_no_default(int value) {
  co_return NoDefault(value);
}
Task<std::string> give_text() {
  co_return std::string(100, 'x');
}
Task<int> fail() {
  throw std::runtime_error("failed");
  co_return 0;
}
Task<> sleep_long() {
  co_await sleep_for(1h);
}

/// Holds tasks at a place.
class Gate {
 public:
  void open() { event_.set(); }
  Task<> pass() { co_await event_.wait(); }

 private:
  Event event_;
};

Task<int> give_behind(Gate& gate, int value) {
  co_await gate.pass();
  co_return value;
}

class JoinHandleTest : public ::testing::Test {
 protected:
  std::optional<WorkStealingExecutor> slot_{std::in_place, ExecutorOptions{.threads = 2}};
  WorkStealingExecutor& executor = *slot_;
};

TEST_F(JoinHandleTest, LvalueAwaitCopiesForAnyNumberOfWaiters) {
  auto handle = executor.spawn(give_text());
  auto waiter = [](JoinHandle<std::string> h) -> Task<std::size_t> {
    std::string first = co_await h;
    std::string second = co_await h;
    co_return first.size() + second.size();
  };
  std::vector<JoinHandle<std::size_t>> waiters;
  for (int i = 0; i < 20; ++i) waiters.push_back(executor.spawn(waiter(handle)));
  for (auto& w : waiters) EXPECT_EQ(w.wait().value(), 200U);
  EXPECT_EQ(handle.result().value().size(), 100U);
}

TEST_F(JoinHandleTest, RvalueAwaitMovesTheValueOut) {
  auto handle = executor.spawn(give_move_only(5));
  auto copy = handle;
  auto body = [](JoinHandle<MoveOnly> h) -> Task<int> {
    MoveOnly value = co_await std::move(h);
    co_return value.value();
  };
  EXPECT_EQ(executor.run(body(std::move(handle))), 5);
  EXPECT_TRUE(copy.done());
  EXPECT_THROW(copy.result(), InvalidStateError);
  EXPECT_THROW(copy.wait(), InvalidStateError);
  auto second = [](JoinHandle<MoveOnly> h) -> Task<> {
    MoveOnly value = co_await std::move(h);
    (void)value;
  };
  EXPECT_THROW(executor.run(second(copy)), InvalidStateError);
}

TEST_F(JoinHandleTest, MoverGetsTheValueAfterThoseWhoWaitedBeforeHaveTheirs) {
  for (int round = 0; round < 200; ++round) {
    Gate gate;
    const auto parked = [&](const std::string& what) {
      std::ostringstream out;
      executor.dump_tasks(out);
      const std::string dump = out.str();
      int count = 0;
      for (std::size_t at = dump.find(what); at != std::string::npos; at = dump.find(what, at + 1))
        ++count;
      return count;
    };
    auto text = [](Gate& g) -> Task<std::string> {
      co_await g.pass();
      co_return std::string(64, 'y');
    };
    auto handle = executor.spawn(text(gate));
    std::atomic<int> waiting{0};
    auto copier = [&](JoinHandle<std::string> h) -> Task<std::size_t> {
      ++waiting;
      std::string value = co_await h;
      co_return value.size();
    };
    auto mover = [&](JoinHandle<std::string> h) -> Task<std::size_t> {
      ++waiting;
      std::string value = co_await std::move(h);
      co_return value.size();
    };
    std::vector<JoinHandle<std::size_t>> all;
    for (int i = 0; i < 3; ++i) all.push_back(executor.spawn(copier(handle)));
    ASSERT_TRUE(
        eventually([&] { return waiting.load() == 3 && parked("waiting for a task") == 3; }));
    all.push_back(executor.spawn(mover(std::move(handle))));
    gate.open();
    for (auto& h : all) ASSERT_EQ(h.wait().value(), 64U);
  }
}

// Nobody makes a copy of a number for those who wait: they read it when they go on.
TEST(JoinHandleOrders, ANumberIsThereForWhoWaitedAlsoWhenAMoverGoesOnFirst) {
  bool mover_was_first = false;
  testing::explore(1000, [&](testing::SimulatedExecutor& simulator) {
    auto body = [&]() -> Task<> {
      Gate gate;
      JoinHandle<int> handle = spawn(give_behind(gate, 7));
      int waiting = 0;
      bool moved = false;
      const auto copier = [&](JoinHandle<int> h) -> Task<int> {
        ++waiting;
        const int value = co_await h;
        mover_was_first |= moved;
        co_return value;
      };
      const auto mover = [&](JoinHandle<int> h) -> Task<int> {
        ++waiting;
        const int value = co_await std::move(h);
        moved = true;
        co_return value;
      };
      auto first = spawn(copier(handle));
      auto second = spawn(mover(handle));
      while (waiting != 2) co_await this_task::yield();
      gate.open();
      EXPECT_EQ(co_await first, 7);
      EXPECT_EQ(co_await second, 7);
      EXPECT_THROW(co_await handle, InvalidStateError);  // came later
    };
    simulator.run(body());
  });
  EXPECT_TRUE(mover_was_first);
}

TEST_F(JoinHandleTest, OfTwoMoversOneGetsTheValue) {
  for (int round = 0; round < 200; ++round) {
    auto handle = executor.spawn(give_text());
    auto mover = [](JoinHandle<std::string> h) -> Task<std::size_t> {
      std::string value = co_await std::move(h);
      co_return value.size();
    };
    auto a = executor.spawn(mover(handle));
    auto b = executor.spawn(mover(handle));
    int values = 0;
    int refused = 0;
    for (auto* h : {&a, &b}) {
      try {
        values += h->wait().value() == 100 ? 1 : 0;
      } catch (const InvalidStateError&) {
        ++refused;
      }
    }
    ASSERT_EQ(values, 1);
    ASSERT_EQ(refused, 1);
  }
}

TEST_F(JoinHandleTest, FailuresCanBeAskedForAnyNumberOfTimes) {
  auto handle = executor.spawn(fail());
  auto lvalue = [](JoinHandle<int> h) -> Task<int> { co_return co_await h; };
  auto rvalue = [](JoinHandle<int> h) -> Task<int> { co_return co_await std::move(h); };
  for (int i = 0; i < 2; ++i) {
    EXPECT_THROW(executor.run(rvalue(handle)), std::runtime_error);
    EXPECT_THROW(executor.run(lvalue(handle)), std::runtime_error);
    EXPECT_THROW(executor.run(handle), std::runtime_error);
  }
  EXPECT_TRUE(handle.result().is_error());
}

TEST_F(JoinHandleTest, ResultsOfAwkwardTypes) {
  int number = 4;
  auto reference = [](int& n) -> Task<int&> { co_return n; };
  auto body = [&]() -> Task<> {
    auto a = spawn(reference(number));
    int& there = co_await a;
    EXPECT_EQ(&there, &number);
    auto b = spawn(give_no_default(2));
    NoDefault value = co_await b;
    EXPECT_EQ(value.value, 2);
    auto c = spawn(do_nothing());
    co_await c;
    co_await std::move(c);
  };
  executor.run(body());
  auto d = executor.spawn(reference(number));
  EXPECT_EQ(&d.wait().value(), &number);
}

TEST_F(JoinHandleTest, AThrowingCopyReachesItsWaiterAlone) {
  Gate gate;
  auto make = [](Gate& g) -> Task<ThrowsOnCopy> {
    co_await g.pass();
    co_return ThrowsOnCopy(3);
  };
  auto handle = executor.spawn(make(gate));
  auto copier = [](JoinHandle<ThrowsOnCopy> h) -> Task<int> {
    ThrowsOnCopy value = co_await h;
    co_return value.value;
  };
  auto parked = executor.spawn(copier(handle));
  executor.run(sleep_for(1ms));
  gate.open();
  EXPECT_THROW(parked.wait().value(), std::runtime_error);
  EXPECT_THROW(executor.run(copier(handle)), std::runtime_error);
  EXPECT_EQ(handle.wait().value().value, 3);
}

TEST_F(JoinHandleTest, ResultBeforeTheEndIsAnError) {
  Gate gate;
  auto handle = executor.spawn(give_behind(gate, 1));
  EXPECT_FALSE(handle.done());
  EXPECT_FALSE(handle.cancelled());
  EXPECT_THROW(handle.result(), InvalidStateError);
  gate.open();
  EXPECT_EQ(handle.wait().value(), 1);
  EXPECT_TRUE(handle.done());
  EXPECT_EQ(handle.result().value(), 1);
}

TEST_F(JoinHandleTest, EmptyHandleRefusesEveryUse) {
  JoinHandle<int> empty;
  EXPECT_THROW((void)empty.done(), InvalidStateError);
  EXPECT_THROW((void)empty.cancelled(), InvalidStateError);
  EXPECT_THROW(empty.result(), InvalidStateError);
  EXPECT_THROW(empty.wait(), InvalidStateError);
  EXPECT_THROW(empty.cancel(), InvalidStateError);
  EXPECT_THROW((void)empty.id(), InvalidStateError);
  EXPECT_THROW((void)empty.name(), InvalidStateError);
  EXPECT_THROW(empty.set_name("x"), InvalidStateError);
  EXPECT_THROW(empty.on_done([](const Result<int>&) {}), InvalidStateError);
  EXPECT_THROW(executor.run(empty), InvalidStateError);
  auto body = [](JoinHandle<int> h) -> Task<int> { co_return co_await h; };
  EXPECT_THROW(executor.run(body(empty)), InvalidStateError);
  EXPECT_EQ(empty, JoinHandle<int>());
}

TEST_F(JoinHandleTest, CopiesNameTheSameTask) {
  auto a = executor.spawn(give(1), "first");
  auto b = a;
  auto c = executor.spawn(give(1));
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_EQ(a.id(), b.id());
  EXPECT_NE(a.id(), c.id());
  EXPECT_EQ(b.name(), "first");
  EXPECT_EQ(c.name(), "task-" + std::to_string(static_cast<std::uint64_t>(c.id())));
  c.set_name("renamed");
  EXPECT_EQ(c.name(), "renamed");
}

TEST_F(JoinHandleTest, DoneShowsEverythingThatTheTaskWrote) {
  for (int round = 0; round < 300; ++round) {
    std::vector<int> written;
    auto body = [&]() -> Task<int> {
      for (int i = 0; i < 50; ++i) written.push_back(i);
      co_return 7;
    };
    auto handle = executor.spawn(body());
    while (!handle.done()) std::this_thread::yield();
    ASSERT_EQ(written.size(), 50U);
    ASSERT_EQ(handle.result().value(), 7);
  }
}

TEST_F(JoinHandleTest, CancelIsTrueForTheFirstRequestOnly) {
  auto handle = executor.spawn(sleep_long());
  EXPECT_TRUE(handle.cancel("because"));
  EXPECT_FALSE(handle.cancel("later"));
  EXPECT_TRUE(handle.wait().is_cancelled());
  EXPECT_TRUE(handle.cancelled());
  EXPECT_FALSE(handle.cancel());
  try {
    handle.result().value();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().kind, CancelKind::requested);
    EXPECT_EQ(error.reason().message, "because");
  }
  auto done = executor.spawn(give(2));
  done.wait();
  EXPECT_FALSE(done.cancel());
  EXPECT_EQ(done.result().value(), 2);
}

TEST_F(JoinHandleTest, CancelBeforeTheStartSkipsTheBodyAndDestroysTheArgumentsOnce) {
  WorkStealingExecutor one({.threads = 1});
  for (int round = 0; round < 100; ++round) {
    Ledger ledger;
    std::atomic<bool> hold{true};
    std::atomic<bool> held{false};
    std::atomic<bool> ran{false};
    one.post([&] {
      held = true;
      while (hold.load()) std::this_thread::yield();
    });
    ASSERT_TRUE(eventually([&] { return held.load(); }));
    auto body = [](Tracked tracked, std::atomic<bool>& flag) -> Task<> {
      flag = true;
      tracked.touch();
      co_return;
    };
    auto handle = one.spawn(body(Tracked(ledger), ran));
    std::atomic<long> alive_at_end{-1};
    handle.on_done([&](const Result<void>& result) {
      EXPECT_TRUE(result.is_cancelled());
      alive_at_end = ledger.alive();
    });
    EXPECT_EQ(ledger.alive(), 1);
    EXPECT_TRUE(handle.cancel());
    EXPECT_EQ(ledger.alive(), 1);
    hold = false;
    EXPECT_TRUE(handle.wait().is_cancelled());
    EXPECT_FALSE(ran.load());
    EXPECT_EQ(ledger.alive(), 0);
    ASSERT_TRUE(eventually([&] { return alive_at_end.load() == 0; }));
  }
}

TEST_F(JoinHandleTest, LocalsAndFrameAreGoneBeforeAJoinerGoesOn) {
  Ledger ledger;
  for (int round = 0; round < 500; ++round) {
    auto worker = [](Tracked argument, bool fails) -> Task<int> {
      Tracked local(argument);
      co_await this_task::yield();
      if (fails) throw std::runtime_error("x");
      co_return 1;
    };
    auto body = [&]() -> Task<long> {
      auto task = worker(Tracked(ledger), round % 2 == 0);
      auto handle = spawn(std::move(task));
      Result<int> result = co_await as_result(handle);
      (void)result;
      co_return ledger.alive();
    };
    ASSERT_EQ(executor.run(body()), 0);
  }
}

TEST_F(JoinHandleTest, CancellingAWaiterEndsTheWaitNotTheTask) {
  Gate gate;
  auto handle = executor.spawn(give_behind(gate, 9));
  auto waiter = [](JoinHandle<int> h) -> Task<int> { co_return co_await h; };
  auto first = executor.spawn(waiter(handle));
  auto second = executor.spawn(waiter(handle));
  executor.run(sleep_for(1ms));
  first.cancel();
  EXPECT_TRUE(first.wait().is_cancelled());
  EXPECT_FALSE(handle.done());
  gate.open();
  EXPECT_EQ(second.wait().value(), 9);
  EXPECT_EQ(handle.wait().value(), 9);
}

TEST_F(JoinHandleTest, WaiterOfACancelledTaskIsNotCancelledItself) {
  auto handle = executor.spawn(sleep_long());
  auto waiter = [](JoinHandle<void> h) -> Task<int> {
    int caught = 0;
    try {
      co_await h;
    } catch (const CancelledError&) {
      ++caught;
    }
    co_await sleep_for(1us);  // its own scope is untouched
    co_await this_task::checkpoint();
    co_return caught;
  };
  auto joined = executor.spawn(waiter(handle));
  handle.cancel();
  EXPECT_EQ(joined.wait().value(), 1);
}

TEST_F(JoinHandleTest, AwaitingAHandleThatIsDoneIsACancellationPoint) {
  auto done = executor.spawn(give(1));
  done.wait();
  std::atomic<bool> started{false};
  auto body = [&]() -> Task<int> {
    started = true;
    co_await as_result(sleep_for(1h));
    int value = co_await done;
    co_return value;
  };
  auto handle = executor.spawn(body());
  ASSERT_TRUE(eventually([&] { return started.load(); }));
  handle.cancel();
  EXPECT_TRUE(handle.wait().is_cancelled());
}

TEST_F(JoinHandleTest, AwaitingOnesOwnHandleIsALogicError) {
  JoinHandle<int> self;
  std::atomic<bool> ready{false};
  auto body = [&]() -> Task<int> {
    while (!ready.load()) co_await this_task::yield();
    try {
      co_await self;
    } catch (const std::logic_error&) {
      co_return 1;
    }
    co_return 0;
  };
  self = executor.spawn(body());
  ready = true;
  EXPECT_EQ(self.wait().value(), 1);
  self = JoinHandle<int>();
}

TEST_F(JoinHandleTest, WaitOnAWorkerIsALogicErrorAlsoWhenDone) {
  auto done = executor.spawn(give(1));
  done.wait();
  auto body = [&]() -> Task<int> {
    int caught = 0;
    try {
      done.wait();
    } catch (const std::logic_error&) {
      ++caught;
    }
    co_return caught;
  };
  EXPECT_EQ(executor.run(body()), 1);
}

TEST_F(JoinHandleTest, HandlesOutliveTheirExecutor) {
  auto value = executor.spawn(give(3));
  auto sleeper = executor.spawn(sleep_long(), "sleeper");
  value.wait();
  slot_.reset();
  EXPECT_EQ(value.result().value(), 3);
  EXPECT_EQ(value.wait().value(), 3);
  EXPECT_TRUE(sleeper.cancelled());
  EXPECT_EQ(sleeper.name(), "sleeper");
  EXPECT_FALSE(sleeper.cancel());
  try {
    sleeper.result().value();
    FAIL();
  } catch (const CancelledError& error) {
    EXPECT_EQ(error.reason().kind, CancelKind::shutdown);
  }
  WorkStealingExecutor other({.threads = 1});
  auto body = [&]() -> Task<int> { co_return co_await value; };
  EXPECT_EQ(other.run(body()), 3);
}

TEST_F(JoinHandleTest, ManyThreadsWaitCancelAndDropAtOnce) {
  for (int round = 0; round < 100; ++round) {
    auto handle = executor.spawn(sleep_long());
    std::atomic<int> requests{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&, h = handle]() mutable {
        requests += h.cancel() ? 1 : 0;
        EXPECT_TRUE(h.wait().is_cancelled());
        h = JoinHandle<void>();
      });
    }
    handle = JoinHandle<void>();
    for (auto& thread : threads) thread.join();
    ASSERT_EQ(requests.load(), 1);
  }
}

}  // namespace
}  // namespace magpie
