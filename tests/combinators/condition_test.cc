// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// Condition: what api.md, sections 0 and 7, says of it. In every order, and across threads:
// condition_order_test.cc.

#include <magpie/condition.h>

#include <sstream>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class ConditionTest : public OnMachine {
 protected:
  Mutex mutex;
  Condition condition;

  /// Waits once and notes who it was, holding the mutex.
  Task<> wait_and_note(int name, std::vector<int>& order) {
    Mutex::Lock lock = co_await mutex.lock();
    co_await condition.wait(lock);
    EXPECT_TRUE(static_cast<bool>(lock));
    EXPECT_FALSE(is_free());
    order.push_back(name);
  }
  bool is_free() { return mutex.try_lock().has_value(); }
};

TEST_ON_THREADS(ConditionTest, WaitsUntilNotifiedWithTheMutexFree) {
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    JoinHandle<void> waiter = executor.spawn(wait_and_note(1, order));
    co_await sleep_for(1ms);
    EXPECT_FALSE(waiter.done());
    EXPECT_TRUE(is_free());
    condition.notify_one();
    co_await waiter;
    EXPECT_TRUE(is_free());
    condition.notify_one();  // nobody waits
    condition.notify_all();
  });
  EXPECT_EQ(order, std::vector<int>{1});
}

TEST_ON_THREADS(ConditionTest, FirstInFirstOut) {
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    std::vector<JoinHandle<void>> handles;
    for (int i = 0; i < 12; ++i) {
      handles.push_back(executor.spawn(wait_and_note(i, order)));
      co_await sleep_for(1us);
    }
    for (int i = 0; i < 3; ++i) condition.notify_one();
    co_await handles[2];
    EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
    co_await sleep_for(1ms);
    EXPECT_EQ(order.size(), 3u);  // nobody wakes without being notified
    Mutex::Lock lock = co_await mutex.lock();
    condition.notify_all();
    EXPECT_EQ(order.size(), 3u);
    lock.unlock();
    for (auto& h : handles) co_await h;
  });
  std::vector<int> expected;
  for (int i = 0; i < 12; ++i) expected.push_back(i);
  EXPECT_EQ(order, expected);
}

// Who is notified has a place in the mutex's queue from that moment on.
TEST_ON_THREADS(ConditionTest, NobodyOvertakesAWaiterThatWasNotified) {
  bool noted = false;
  machine.run([&]() -> Task<> {
    auto wait_and_hold = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock);
      noted = true;
      co_await sleep_for(1ms);
    };
    JoinHandle<void> waiter = executor.spawn(wait_and_hold());
    co_await sleep_for(1ms);
    Mutex::Lock mine = co_await mutex.lock();
    condition.notify_one();
    mine.unlock();
    EXPECT_FALSE(mutex.try_lock().has_value());
    mine = co_await mutex.lock();
    EXPECT_TRUE(noted);
    co_await waiter;
  });
}

TEST_ON_THREADS(ConditionTest, ThePredicateDecides) {
  std::vector<int> seen;
  machine.run([&]() -> Task<> {
    int value = 0;
    int asked = 0;
    auto consumer = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      auto ready = [&] {
        ++asked;
        EXPECT_TRUE(static_cast<bool>(lock));
        return value >= 3;
      };
      co_await condition.wait(lock, ready);
      seen.push_back(value);
      co_await condition.wait(lock, ready);  // true already: does not wait
      EXPECT_TRUE(static_cast<bool>(lock));
    };
    JoinHandle<void> waiter = executor.spawn(consumer());
    for (int i = 0; i < 4; ++i) {
      co_await sleep_for(1ms);
      Mutex::Lock lock = co_await mutex.lock();
      EXPECT_EQ(asked, i == 3 ? 5 : i + 1);
      if (i == 3) break;
      ++value;
      condition.notify_one();
    }
    co_await waiter;
    EXPECT_EQ(asked, 5);
  });
  EXPECT_EQ(seen, std::vector<int>{3});
}

TEST_ON_THREADS(ConditionTest, APredicateThatThrowsLeavesTheLockHeld) {
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    auto throws = [&]() -> bool { throw std::runtime_error("predicate"); };
    const Result<void> at_once = co_await as_result(condition.wait(lock, throws));
    EXPECT_EQ(what_of(at_once.error()), "predicate");
    EXPECT_TRUE(static_cast<bool>(lock));
    int calls = 0;
    auto throws_later = [&]() -> bool {
      if (++calls == 1) return false;
      throw std::runtime_error("later");
    };
    auto notify = [&]() -> Task<> {
      Mutex::Lock theirs = co_await mutex.lock();
      condition.notify_one();
    };
    JoinHandle<void> notifying = executor.spawn(notify());
    const Result<void> after = co_await as_result(condition.wait(lock, throws_later));
    EXPECT_EQ(what_of(after.error()), "later");
    EXPECT_TRUE(static_cast<bool>(lock));
    EXPECT_FALSE(is_free());
    co_await notifying;
  });
  EXPECT_TRUE(is_free());
}

TEST_ON_THREADS(ConditionTest, ThePredicateSeesTheTaskLocalsOfItsTask) {
  TaskLocal<int> local{0};
  machine.run([&]() -> Task<> {
    bool go = false;
    auto consumer = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      int seen = 0;
      JoinHandle<int> spawned;
      auto ask = [&]() -> Task<int> { co_return co_await local.get(); };
      auto ready = [&] {
        if (go) spawned = spawn(ask());
        return go;
      };
      co_await condition.wait(lock, ready);
      seen = co_await spawned;
      EXPECT_EQ(seen, 7);
    };
    JoinHandle<void> waiter = executor.spawn(local.with(7, consumer()));
    co_await sleep_for(1ms);
    Mutex::Lock lock = co_await mutex.lock();
    go = true;
    condition.notify_all();
    lock.unlock();
    co_await waiter;
  });
}

// The mutex is taken back first, whatever else is going on; the lock is held when the cancellation
// is seen.
TEST_ON_THREADS(ConditionTest, ACancelledWaitThrowsHoldingTheLock) {  // B038
  machine.run([&]() -> Task<> {
    bool seen = false;
    auto waiter = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      try {
        co_await condition.wait(lock);
        ADD_FAILURE() << "nobody notified it";
      } catch (const CancelledError& error) {
        seen = true;
        EXPECT_TRUE(static_cast<bool>(lock));
        EXPECT_FALSE(is_free());
        EXPECT_EQ(error.reason().message, "the first");
        throw;
      }
    };
    JoinHandle<void> handle = executor.spawn(waiter());
    co_await sleep_for(1ms);
    Mutex::Lock mine = co_await mutex.lock();
    handle.cancel("the first");
    co_await sleep_for(1ms);
    EXPECT_FALSE(seen);  // it waits for the mutex, and nothing cancels that
    EXPECT_FALSE(handle.cancel("the second"));
    co_await sleep_for(1ms);
    EXPECT_FALSE(handle.done());
    mine.unlock();
    const Result<void> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "the first");
    EXPECT_TRUE(seen);
  });
  EXPECT_TRUE(is_free());
}

// They end singly, as each takes its mutex back first: a row that went on with the first of them
// only lost the others.
TEST_ON_THREADS(ConditionTest, WaitsOfOneJoinThatAreCancelledTogetherAllTakeTheirMutexesBack) {
  Mutex others[2];
  Condition conditions[2];
  const auto never = [] { return false; };
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    Mutex::Lock lock0 = co_await others[0].lock();
    Mutex::Lock lock1 = co_await others[1].lock();
    auto all = timeout(gather(condition.wait(lock), conditions[0].wait(lock0, never),
                              conditions[1].wait(lock1, never)),
                       1ms);
    const auto result = co_await as_result(std::move(all));
    EXPECT_TRUE(result.is_timeout());
    EXPECT_TRUE(lock && lock0 && lock1);
    auto notify = [&]() -> Task<> {
      co_await sleep_for(1ms);
      condition.notify_one();
    };
    JoinHandle<void> notifier = executor.spawn(notify());
    co_await race(conditions[0].wait(lock0), condition.wait(lock), conditions[1].wait(lock1));
    EXPECT_TRUE(lock && lock0 && lock1);
    co_await notifier;
  });
  EXPECT_TRUE(is_free());
}

TEST_ON_THREADS(ConditionTest, TheCancellationThatEndedTheWaitIsTheOneThrown) {  // B038
  machine.run([&]() -> Task<> {
    CancellationSource inner;
    CancellationSource outer;
    CancelReason reason;
    auto waiter = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock);
    };
    auto observe = [&]() -> Task<> {
      const Result<void> r = co_await as_result(waiter());
      reason = reason_of(r.error());
    };
    JoinHandle<void> handle =
        executor.spawn(with_token(outer.token(), with_token(inner.token(), observe())));
    co_await sleep_for(1ms);
    Mutex::Lock mine = co_await mutex.lock();
    inner.cancel("inner");
    co_await sleep_for(1ms);
    outer.cancel("outer");  // while it waits for the mutex
    co_await sleep_for(1ms);
    mine.unlock();
    co_await as_result(handle);
    EXPECT_EQ(reason.message, "inner");
  });
}

TEST_ON_THREADS(ConditionTest, ATimeoutEndsTheWaitWithTheLockHeld) {
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    const Result<void> r = co_await as_result(timeout(condition.wait(lock), 5ms));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_TRUE(static_cast<bool>(lock));
    const Result<void> p = co_await try_timeout(condition.wait(lock, [] { return false; }), 5ms);
    EXPECT_TRUE(p.is_timeout());
    EXPECT_TRUE(static_cast<bool>(lock));
    EXPECT_FALSE(is_free());
  });
  EXPECT_EQ(machine.elapsed(), 10ms);
  EXPECT_TRUE(is_free());
}

TEST_ON_THREADS(ConditionTest, InACancelledScopeTheMutexIsNotReleased) {
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    bool asked = false;
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await as_result(condition.wait(lock));
      EXPECT_FALSE(is_free());
      auto ask = [&] { return asked = true; };
      co_await condition.wait(lock, ask);
    };
    const Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_FALSE(asked);
    EXPECT_TRUE(static_cast<bool>(lock));
  });
}

TEST_ON_THREADS(ConditionTest, ANotificationThatMeetsACancelledWaiterGoesToTheNext) {  // B192
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    JoinHandle<void> first = executor.spawn(wait_and_note(1, order));
    co_await sleep_for(1ms);
    JoinHandle<void> second = executor.spawn(wait_and_note(2, order));
    co_await sleep_for(1ms);
    first.cancel();
    condition.notify_one();
    co_await second;
    EXPECT_EQ(order, std::vector<int>{2});
    const Result<void> r = co_await as_result(first);
    EXPECT_TRUE(r.is_cancelled());
  });
}

TEST_ON_THREADS(ConditionTest, ANotificationThatCameBeforeTheCancellationIsDelivered) {  // B192
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    auto waiter = [&]() -> Task<> {
      co_await wait_and_note(1, order);
      co_await this_task::checkpoint();
    };
    JoinHandle<void> first = executor.spawn(waiter());
    co_await sleep_for(1ms);
    JoinHandle<void> second = executor.spawn(wait_and_note(2, order));
    co_await sleep_for(1ms);
    Mutex::Lock mine = co_await mutex.lock();
    condition.notify_one();
    first.cancel();
    mine.unlock();
    const Result<void> r = co_await as_result(first);
    EXPECT_TRUE(r.is_cancelled());  // at the checkpoint
    EXPECT_EQ(order, std::vector<int>{1});
    EXPECT_FALSE(second.done());
    condition.notify_one();
    co_await second;
  });
}

TEST_ON_THREADS(ConditionTest, ALoserOfARaceTakesNoNotification) {  // B138, B192
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    Mutex::Lock lock = co_await mutex.lock();
    auto first = co_await race(condition.wait(lock), sleep_for(1ms));
    EXPECT_EQ(first.index, 1u);
    EXPECT_TRUE(static_cast<bool>(lock));  // a loser takes the mutex back, too
    lock.unlock();
    JoinHandle<void> other = executor.spawn(wait_and_note(2, order));
    co_await sleep_for(1ms);
    condition.notify_one();
    co_await other;
    lock = co_await mutex.lock();
    auto notify = [&]() -> Task<> {
      co_await sleep_for(1ms);
      condition.notify_one();
    };
    JoinHandle<void> notifying = executor.spawn(notify());
    auto won = co_await race(condition.wait(lock), sleep_for(1h));
    EXPECT_EQ(won.index, 0u);
    EXPECT_TRUE(static_cast<bool>(lock));
    co_await notifying;
  });
  EXPECT_TRUE(is_free());
}

// Winner and loser alike wait for the mutex when somebody else holds it.
TEST_ON_THREADS(ConditionTest, AContestantTakesTheMutexBackFromItsHolder) {
  for (const bool notified : {true, false}) {
    machine.run([&]() -> Task<> {
      auto contend = [&]() -> Task<std::size_t> {
        Mutex::Lock lock = co_await mutex.lock();
        auto first = co_await race(condition.wait(lock), sleep_for(10ms));
        EXPECT_TRUE(static_cast<bool>(lock));
        EXPECT_FALSE(is_free());
        co_return first.index;
      };
      JoinHandle<std::size_t> contestant = executor.spawn(contend());
      co_await sleep_for(1ms);
      Mutex::Lock lock = co_await mutex.lock();
      if (notified) condition.notify_one();
      co_await sleep_for(20ms);
      EXPECT_FALSE(contestant.done());
      lock.unlock();
      EXPECT_EQ(co_await contestant, notified ? 0u : 1u);
    });
    EXPECT_TRUE(is_free());
  }
}

TEST_ON_THREADS(ConditionTest, WhoLosesARaceAfterItWasNotifiedPassesTheNotificationOn) {  // B192
  machine.run([&]() -> Task<> {
    bool there = false;
    auto is_there = [&] { return there; };
    auto contend = [&]() -> Task<std::size_t> {
      Mutex::Lock lock = co_await mutex.lock();
      auto first = co_await race(condition.wait(lock, is_there), sleep_for(10ms));
      co_return first.index;
    };
    auto wait_for_it = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock, is_there);
    };
    JoinHandle<std::size_t> contestant = executor.spawn(contend());
    co_await sleep_for(1ms);
    JoinHandle<void> other = executor.spawn(timeout(wait_for_it(), 1h));
    co_await sleep_for(1ms);
    Mutex::Lock lock = co_await mutex.lock();
    there = true;
    condition.notify_one();  // the contestant, which needs the mutex before it can ask
    co_await sleep_for(20ms);
    lock.unlock();
    EXPECT_EQ(co_await contestant, 1u);
    co_await other;
  });
  EXPECT_LT(machine.elapsed(), 1h);
}

TEST_ON_THREADS(ConditionTest, MisuseIsAnErrorAndChangesNothing) {
  Mutex other;
  machine.run([&]() -> Task<> {
    Mutex::Lock none;
    const Result<void> unheld = co_await as_result(condition.wait(none));
    EXPECT_TRUE(is<std::logic_error>(unheld.error()));
    Mutex::Lock lock = co_await mutex.lock();
    const Result<void> waited = co_await try_timeout(condition.wait(lock), 1ms);
    EXPECT_TRUE(waited.is_timeout());
    Mutex::Lock wrong = co_await other.lock();
    const Result<void> two = co_await as_result(condition.wait(wrong));
    EXPECT_TRUE(is<std::invalid_argument>(two.error()));
    EXPECT_TRUE(static_cast<bool>(wrong));
    const Result<void> third = co_await as_result(condition.wait(wrong, [] { return true; }));
    EXPECT_TRUE(is<std::invalid_argument>(third.error()));
    auto direct = [&]() -> Task<> { co_await condition.wait(wrong); };
    const Result<void> thrown = co_await as_result(direct());
    EXPECT_TRUE(is<std::invalid_argument>(thrown.error()));
    EXPECT_TRUE(static_cast<bool>(lock));
  });
}

TEST_ON_THREADS(ConditionTest, DumpsTellTheStages) {
  std::vector<int> order;
  machine.run([&]() -> Task<> {
    const auto dump = [&] {
      std::ostringstream out;
      executor.dump_tasks(out);
      return out.str();
    };
    JoinHandle<void> waiter = executor.spawn(wait_and_note(1, order));
    co_await sleep_for(1ms);
    EXPECT_NE(dump().find("waiting for a condition,"), std::string::npos) << dump();
    Mutex::Lock mine = co_await mutex.lock();
    condition.notify_one();
    EXPECT_NE(dump().find("waiting for a condition's mutex"), std::string::npos) << dump();
    mine.unlock();
    co_await waiter;
  });
}

TEST_ON_THREADS(ConditionTest, AHundredThousandWaiters) {
  const std::size_t n = scaled(100'000);
  std::size_t woken = 0;
  machine.run([&]() -> Task<> {
    auto wait_one = [&]() -> Task<> {
      Mutex::Lock lock = co_await mutex.lock();
      co_await condition.wait(lock);
      ++woken;
    };
    std::vector<Task<>> tasks;
    for (std::size_t i = 0; i < n; ++i) tasks.push_back(wait_one());
    JoinHandle<void> all = executor.spawn(gather(std::move(tasks)));
    co_await sleep_for(1ms);
    condition.notify_all();
    co_await all;
  });
  EXPECT_EQ(woken, n);
}

}  // namespace
}  // namespace magpie
