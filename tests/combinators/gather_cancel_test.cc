// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (more of what gather_test shows)

// gather: every policy when a child fails or ends cancelled, and cancellations from outside.

#include <magpie/gather.h>

#include <atomic>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/latch.h>
#include <magpie/race.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::scaled;
using test::Tracked;

Task<int> give(int value) {
  co_return value;
}
Task<int> give_later(int value) {
  co_await sleep_for(100us);
  co_return value;
}
Task<> do_nothing() {
  co_return;
}
Task<int> fail(const char* what) {
  throw std::runtime_error(what);
  co_return 0;
}
// A child of a cancelled scope is never started: who wants to see siblings cancelled waits for
// them.
Task<int> fail_once_started(Latch& siblings, const char* what) {
  co_await siblings.wait();
  throw std::runtime_error(what);
}
Task<int> cancel_itself(const char* message) {
  throw CancelledError(CancelReason{CancelKind::requested, message});
  co_return 0;
}
Task<int> sleep_long(std::atomic<int>& cancelled, Latch* started = nullptr) {
  if (started != nullptr) started->count_down();
  Result<void> slept = co_await as_result(sleep_for(1h));
  if (slept.is_cancelled()) {
    ++cancelled;
    slept.value();  // on with it
  }
  co_return 0;
}
Task<int> stubborn(int value, std::atomic<int>* started = nullptr) {
  if (started != nullptr) ++*started;
  co_await as_result(sleep_for(1h));
  co_return value;
}
Task<int> fails_when_cancelled(const char* what, Latch* started = nullptr) {
  if (started != nullptr) started->count_down();
  co_await as_result(sleep_for(1h));
  throw std::runtime_error(what);
}

class GatherTest : public testing::Test {
 protected:
  /// Runs the gather in a task that is cancelled once `ready` says so; gives the task's handle,
  /// ended.
  template <class F>
  auto cancelled_when(F&& make, std::function<bool()> ready) {
    auto handle = executor.spawn(make());
    EXPECT_TRUE(eventually(ready));
    handle.cancel("from outside");
    handle.wait();
    return handle;
  }

  WorkStealingExecutor executor{ExecutorOptions{.threads = 2}};
};

// --- fail fast -----------------------------------------------------------------------------------

TEST_F(GatherTest, FirstFailureCancelsTheSiblingsAndIsRethrownAfterThem) {
  std::atomic<int> cancelled{0};
  Latch siblings(2);
  auto body = [&]() -> Task<int> {
    try {
      co_await gather(sleep_long(cancelled, &siblings), fail_once_started(siblings, "first"),
                      sleep_long(cancelled, &siblings));
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "first");
      co_return cancelled.load();
    }
    co_return -1;
  };
  EXPECT_EQ(executor.run(body()), 2);
}

TEST_F(GatherTest, SiblingsNotYetStartedNeverRun) {
  WorkStealingExecutor one({.threads = 1});
  std::atomic<int> ran{0};
  Ledger ledger;
  auto child = [](std::atomic<int>& count, Tracked tracked) -> Task<int> {
    ++count;
    tracked.touch();
    co_return 0;
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<int>> tasks;
    tasks.push_back(fail("at once"));
    for (int i = 0; i < 100; ++i) tasks.push_back(child(ran, Tracked(ledger)));
    try {
      co_await gather(std::move(tasks));
      ADD_FAILURE();
    } catch (const std::runtime_error&) {
      EXPECT_EQ(ledger.alive(), 0);
    }
  };
  one.run(body());
  EXPECT_EQ(ran.load(), 0);  // one worker, children in order
}

TEST_F(GatherTest, ASiblingsReasonNamesTheFailure) {
  std::string message;
  CancelKind kind{};
  Latch started(1);
  auto curious = [&]() -> Task<int> {
    started.count_down();
    try {
      co_await sleep_for(1h);
    } catch (const CancelledError& error) {
      message = error.reason().message;
      kind = error.reason().kind;
      throw;
    }
    co_return 0;
  };
  auto body = [&]() -> Task<> {
    try {
      co_await gather(curious(), fail_once_started(started, "the cause"));
    } catch (const std::runtime_error&) {
    }
  };
  executor.run(body());
  EXPECT_EQ(kind, CancelKind::sibling_failed);
  EXPECT_NE(message.find("the cause"), std::string::npos) << message;
}

TEST_F(GatherTest, FailureBeatsTheValueOfASiblingThatFinishedAnyway) {
  auto body = []() -> Task<> {
    bool thrown = false;
    try {
      co_await gather(stubborn(1), fail("wins"));
    } catch (const std::runtime_error& error) {
      thrown = true;
      EXPECT_STREQ(error.what(), "wins");
    }
    EXPECT_TRUE(thrown);
  };
  executor.run(body());
}

TEST_F(GatherTest, OfSeveralErrorsTheFirstToCompleteIsThrown) {
  Latch siblings(2);
  auto body = [&]() -> Task<> {
    std::string what;
    try {
      co_await gather(fails_when_cancelled("second", &siblings),
                      fail_once_started(siblings, "first"),
                      fails_when_cancelled("third", &siblings));
    } catch (const std::runtime_error& error) {
      what = error.what();
    }
    EXPECT_EQ(what, "first");
  };
  executor.run(body());
}

TEST_F(GatherTest, AChildThatEndsCancelledOnItsOwnCountsAsAFailure) {
  std::atomic<int> cancelled{0};
  auto body = [&]() -> Task<> {
    std::string message;
    try {
      co_await gather(sleep_long(cancelled), cancel_itself("mine"));
    } catch (const CancelledError& error) {
      message = error.reason().message;
    }
    EXPECT_EQ(message, "mine");
    EXPECT_LE(cancelled.load(), 1);    // none if it was cancelled before it started
    co_await this_task::checkpoint();  // the caller itself is not cancelled
  };
  executor.run(body());
}

TEST_F(GatherTest, ASiblingsReasonNamesTheOneThatWasCancelledToo) {
  std::string message;
  Event started;
  auto curious = [&]() -> Task<int> {
    started.set();  // or it might never run
    try {
      co_await sleep_for(1h);
    } catch (const CancelledError& error) {
      message = error.reason().message;
      throw;
    }
    co_return 0;
  };
  auto ends = [&]() -> Task<int> {
    co_await started.wait();
    co_return co_await cancel_itself("mine");
  };
  auto body = [&]() -> Task<> {
    auto both = gather(curious(), ends());
    auto result = co_await as_result(std::move(both));
    EXPECT_TRUE(result.is_cancelled());
  };
  executor.run(body());
  EXPECT_EQ(message, "cancelled because child 1 of a gather was cancelled: mine");
}

TEST_F(GatherTest, ACancelledHandleCountsAsAFailureToo) {
  auto target = executor.spawn(sleep_for(1h));
  std::atomic<int> cancelled{0};
  auto body = [&]() -> Task<bool> {
    try {
      co_await gather(sleep_long(cancelled), target);
    } catch (const CancelledError&) {
      co_return true;
    }
    co_return false;
  };
  auto handle = executor.spawn(body());
  target.cancel();
  EXPECT_TRUE(handle.wait().value());
}

TEST_F(GatherTest, ARealErrorBeatsACancellationThatCameBefore) {
  Event started;  // a child that is cancelled before it starts has no error
  auto fails = [&]() -> Task<> {
    started.set();
    co_await fails_when_cancelled("real");
  };
  auto cancels = [&]() -> Task<> {
    co_await started.wait();
    co_await cancel_itself("first");
  };
  auto body = [&]() -> Task<> {
    bool error = false;
    try {
      co_await gather(fails(), cancels());
    } catch (const std::runtime_error&) {
      error = true;
    }
    EXPECT_TRUE(error);
  };
  executor.run(body());
}

// --- keep going ----------------------------------------------------------------------------------

TEST_F(GatherTest, KeepGoingLetsTheSiblingsFinish) {
  // Virtual time: the second failure comes after the first however the threads run.
  test::Machine machine(2);
  std::atomic<int> finished{0};
  auto slow = [&]() -> Task<int> {
    co_await sleep_for(1ms);
    ++finished;
    co_return 1;
  };
  auto body = [&]() -> Task<> {
    std::string what;
    try {
      co_await gather(keep_going, slow(), fail("first"), slow(), test::fail_after(200us, "second"));
    } catch (const std::runtime_error& error) {
      what = error.what();
    }
    EXPECT_EQ(what, "first");
    EXPECT_EQ(finished.load(), 2);
    std::vector<Task<int>> tasks;
    tasks.push_back(slow());
    tasks.push_back(cancel_itself("gone"));
    bool cancelled = false;
    try {
      co_await gather(keep_going, std::move(tasks));
    } catch (const CancelledError&) {
      cancelled = true;
    }
    EXPECT_TRUE(cancelled);
    EXPECT_EQ(finished.load(), 3);
    auto [a, b] = co_await gather(keep_going, give(1), give(2));
    EXPECT_EQ(a + b, 3);
    std::vector<int> none = co_await gather(keep_going, std::vector<Task<int>>());
    EXPECT_TRUE(none.empty());
  };
  machine.run(body);
}

// --- return exceptions ---------------------------------------------------------------------------

TEST_F(GatherTest, ReturnExceptionsGivesEachOutcome) {
  auto body = []() -> Task<> {
    auto results =
        co_await gather(return_exceptions, give(1), fail("x"), cancel_itself("c"), do_nothing());
    static_assert(std::is_same_v<decltype(results),
                                 std::tuple<Result<int>, Result<int>, Result<int>, Result<void>>>);
    EXPECT_EQ(std::get<0>(results).value(), 1);
    EXPECT_TRUE(std::get<1>(results).is_error());
    EXPECT_TRUE(std::get<2>(results).is_cancelled());
    EXPECT_TRUE(std::get<3>(results));
    std::vector<Task<int>> tasks;
    tasks.push_back(fail("y"));
    tasks.push_back(give_later(2));
    std::vector<Result<int>> list = co_await gather(return_exceptions, std::move(tasks));
    EXPECT_TRUE(list[0].is_error());
    EXPECT_EQ(list[1].value(), 2);
    std::vector<Task<void>> voids;
    voids.push_back(do_nothing());
    std::vector<Result<void>> nothing = co_await gather(return_exceptions, std::move(voids));
    EXPECT_TRUE(nothing[0]);
    std::vector<Result<int>> none = co_await gather(return_exceptions, std::vector<Task<int>>());
    EXPECT_TRUE(none.empty());
  };
  executor.run(body());
}

TEST_F(GatherTest, ReturnExceptionsGivesResultsAlsoWhenTheCallerIsCancelledMeanwhile) {
  std::atomic<int> started{0};
  std::atomic<int> cancelled{0};
  auto mark = [&]() -> Task<int> {
    ++started;
    co_return 7;
  };
  auto body = [&]() -> Task<int> {
    auto results =
        co_await gather(return_exceptions, sleep_long(cancelled), mark(), stubborn(3, &started));
    int score = 0;
    if (std::get<0>(results).is_cancelled()) score += 1;
    if (std::get<1>(results).has_value()) score += 10;
    if (std::get<2>(results).value_or(0) == 3) score += 100;
    try {
      co_await this_task::checkpoint();
    } catch (const CancelledError& error) {
      if (error.reason().message == "from outside") score += 1000;
    }
    co_return score;
  };
  auto handle = cancelled_when(body, [&] { return started.load() == 2; });
  EXPECT_EQ(handle.result().value(), 1111);
}

// --- cancellation from outside -------------------------------------------------------------------

TEST_F(GatherTest, InACancelledScopeItStartsNothing) {
  std::atomic<bool> started{false};
  std::atomic<int> ran{0};
  Ledger ledger;
  auto child = [](std::atomic<int>& count, Tracked tracked) -> Task<int> {
    ++count;
    tracked.touch();
    co_return 0;
  };
  auto body = [&]() -> Task<int> {
    started = true;
    co_await as_result(sleep_for(1h));
    int refused = 0;
    try {
      co_await gather(child(ran, Tracked(ledger)), child(ran, Tracked(ledger)));
    } catch (const CancelledError& error) {
      if (error.reason().message == "from outside") ++refused;
    }
    try {
      co_await gather(keep_going, child(ran, Tracked(ledger)));
    } catch (const CancelledError&) {
      ++refused;
    }
    try {
      std::vector<Task<int>> tasks;
      tasks.push_back(child(ran, Tracked(ledger)));
      co_await gather(return_exceptions, std::move(tasks));
    } catch (const CancelledError&) {
      ++refused;
    }
    EXPECT_EQ(ledger.alive(), 0);
    std::vector<int> empty = co_await gather(std::vector<Task<int>>());  // no cancellation point
    EXPECT_TRUE(empty.empty());
    co_await gather();
    co_return refused;
  };
  auto handle = cancelled_when(body, [&] { return started.load(); });
  EXPECT_EQ(handle.result().value(), 3);
  EXPECT_EQ(ran.load(), 0);
}

TEST_F(GatherTest, OneThatWasRefusedIsSpentAlsoWhereNothingIsCancelled) {
  std::atomic<int> ran{0};
  Ledger ledger;
  auto child = [](std::atomic<int>& count, Tracked tracked) -> Task<> {
    ++count;
    tracked.touch();
    co_return;
  };
  auto twice = [](auto all) -> Task<int> {
    auto by_reference = [](auto& given) -> Task<> { co_await given; };
    const Result<void> refused = co_await as_result(by_reference(all));
    EXPECT_TRUE(refused.is_cancelled());
    auto again = uncancellable(by_reference(all));
    const Result<void> spent = co_await as_result(std::move(again));
    EXPECT_THROW(spent.value(), std::logic_error);
    co_return 1;
  };
  std::atomic<bool> started{false};
  auto body = [&]() -> Task<int> {
    started = true;
    co_await as_result(sleep_for(1h));
    auto call = [&] { return child(ran, Tracked(ledger)); };
    auto plain = [&] { ++ran; };
    std::vector<Task<>> tasks;
    tasks.push_back(child(ran, Tracked(ledger)));
    int done = co_await twice(gather(child(ran, Tracked(ledger)), call, sleep_for(1h)));
    done += co_await twice(gather(call, plain));
    done += co_await twice(gather(sleep_for(1h), child(ran, Tracked(ledger))));
    done += co_await twice(gather(std::move(tasks)));
    done += co_await twice(race(child(ran, Tracked(ledger)), call));
    co_return done;
  };
  auto handle = cancelled_when(body, [&] { return started.load(); });
  EXPECT_EQ(handle.result().value(), 5);
  EXPECT_EQ(ran.load(), 0);
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_F(GatherTest, CancelledWhileItWaitsItCancelsTheChildrenAndThrowsTheOutersReason) {
  for (bool vector : {false, true}) {
    std::atomic<int> cancelled{0};
    std::atomic<int> started{0};
    auto child = [&]() -> Task<int> {
      ++started;
      int value = co_await sleep_long(cancelled);
      co_return value;
    };
    auto body = [&]() -> Task<> {
      if (vector) {
        std::vector<Task<int>> tasks;
        for (int i = 0; i < 3; ++i) tasks.push_back(child());
        co_await gather(std::move(tasks));
      } else {
        co_await gather(child(), child(), child(), sleep_for(1h));
      }
    };
    auto handle = cancelled_when(body, [&] { return started.load() == 3; });
    EXPECT_EQ(cancelled.load(), 3);
    try {
      handle.result().value();
      ADD_FAILURE();
    } catch (const CancelledError& error) {
      EXPECT_EQ(error.reason().message, "from outside");
    }
  }
}

TEST_F(GatherTest, CancelledFromOutsideButAllChildrenReturnedTheValuesAreReturned) {
  std::atomic<int> started{0};
  auto body = [&]() -> Task<int> {
    auto [a, b] = co_await gather(stubborn(1, &started), stubborn(2, &started));
    int sum = a + b;
    try {
      co_await this_task::checkpoint();
    } catch (const CancelledError&) {
      sum += 100;  // seen at the next point
    }
    co_return sum;
  };
  auto handle = cancelled_when(body, [&] { return started.load() == 2; });
  EXPECT_EQ(handle.result().value(), 103);
}

TEST_F(GatherTest, CancelledFromOutsideARealErrorIsNotHidden) {
  std::atomic<bool> started{false};
  auto mark = [&]() -> Task<int> {
    started = true;
    int value = co_await fails_when_cancelled("in the cleanup");
    co_return value;
  };
  std::atomic<int> cancelled{0};
  for (bool keep : {false, true}) {
    started = false;
    auto body = [&]() -> Task<int> {
      bool error = false;
      try {
        if (keep) {
          co_await gather(keep_going, sleep_long(cancelled), mark());
        } else {
          co_await gather(sleep_long(cancelled), mark());
        }
      } catch (const std::runtime_error&) {
        error = true;
      }
      bool pending = false;
      try {
        co_await this_task::yield();
      } catch (const CancelledError&) {
        pending = true;
      }
      co_return (error ? 1 : 0) + (pending ? 10 : 0);
    };
    auto handle = cancelled_when(body, [&] { return started.load(); });
    EXPECT_EQ(handle.result().value(), 11);
  }
}

TEST_F(GatherTest, CancelledAfterItsEndItKeepsItsValue) {
  std::atomic<bool> reached{false};
  auto body = [&]() -> Task<int> {
    auto [a, b] = co_await gather(give(1), give(2));
    reached = true;
    co_await as_result(sleep_for(1h));
    co_return a + b;
  };
  auto handle = cancelled_when(body, [&] { return reached.load(); });
  EXPECT_EQ(handle.result().value(), 3);
}

TEST_F(GatherTest, NestedGathersAreCancelledFromTheOutermost) {
  std::atomic<int> cancelled{0};
  std::atomic<int> started{0};
  auto leaf = [&]() -> Task<int> {
    ++started;
    int value = co_await sleep_long(cancelled);
    co_return value;
  };
  auto middle = [&]() -> Task<int> {
    auto [a, b] = co_await gather(leaf(), leaf());
    co_return a + b;
  };
  auto body = [&]() -> Task<> { co_await gather(middle(), middle(), leaf()); };
  auto handle = cancelled_when(body, [&] { return started.load() == 5; });
  EXPECT_TRUE(handle.cancelled());
  EXPECT_EQ(cancelled.load(), 5);
}

TEST_F(GatherTest, CancellingAGatherOfHandlesEndsTheWaitsNotTheTasks) {
  auto target = executor.spawn(sleep_for(1h));
  std::atomic<bool> started{false};
  auto body = [&]() -> Task<> {
    started = true;
    co_await gather(target, target);
  };
  auto handle = cancelled_when(body, [&] { return started.load(); });
  EXPECT_TRUE(handle.cancelled());
  EXPECT_FALSE(target.done());
  target.cancel();
  target.wait();
}

TEST_F(GatherTest, ATokenOfAChildsScopeIsCancelledWithTheGather) {
  std::atomic<bool> told{false};
  auto tell = [&] { told = true; };
  // Outlives the child, which may not sleep yet when it is cancelled, and end before it is called.
  std::optional<CancellationCallback<decltype(tell)>> callback;
  Latch registered(1);
  auto child = [&]() -> Task<int> {
    CancellationToken token = co_await this_task::token();
    callback.emplace(token, tell);
    registered.count_down();
    co_await sleep_for(1h);
    co_return 0;
  };
  auto body = [&]() -> Task<> {
    CancellationToken outer = co_await this_task::token();
    try {
      co_await gather(child(), fail_once_started(registered, "x"));
    } catch (const std::runtime_error&) {
    }
    EXPECT_FALSE(outer.cancelled());
  };
  executor.run(body());
  EXPECT_TRUE(told.load());
}

TEST_F(GatherTest, RacesOfFailureAndOuterCancellation) {
  for (std::size_t round = 0; round < scaled(2000); ++round) {
    Ledger ledger;
    auto child = [](Tracked tracked, Duration nap) -> Task<int> {
      tracked.touch();
      co_await sleep_for(nap);
      throw std::runtime_error("child");
    };
    auto body = [&]() -> Task<> {
      co_await gather(child(Tracked(ledger), 20us), child(Tracked(ledger), 21us),
                      child(Tracked(ledger), 1h));
    };
    auto handle = executor.spawn(body());
    if (round % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(round % 60));
    handle.cancel();
    const Result<void>& result = handle.wait();
    ASSERT_TRUE(result.is_cancelled() || result.is_error());
    ASSERT_EQ(ledger.alive(), 0);
  }
}

}  // namespace
}  // namespace magpie
