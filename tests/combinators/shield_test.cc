// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// shield: what api.md, section 5, says of it.

#include <magpie/cancellation.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Shield : public OnMachine {};

TEST_ON_THREADS(Shield, GivesWhatTheTaskGives) {  // B166, B168
  int number = 2;
  machine.run([&]() -> Task<> {
    const int value = co_await shield(give_after(1ms, 3));
    EXPECT_EQ(value, 3);
    Result<int> error = co_await as_result(shield(fail("inner")));
    EXPECT_EQ(what_of(error.error()), "inner");
    Result<int> cancelled = co_await as_result(shield(cancel_itself("mine")));
    EXPECT_EQ(reason_of(cancelled.error()).message, "mine");
    co_await this_task::checkpoint();
    auto move_only = []() -> Task<MoveOnly> { co_return MoveOnly(4); };
    MoveOnly moved = co_await shield(move_only());
    EXPECT_EQ(moved.value(), 4);
    auto refer = [&]() -> Task<int&> { co_return number; };
    int& same = co_await shield(refer());
    EXPECT_EQ(&same, &number);
    co_await shield(nothing());
  });
}

TEST_ON_THREADS(Shield, CallerIsCancelledAtOnceAndTheTaskGoesOn) {  // B165
  bool finished = false;
  machine.run([&]() -> Task<> {
    auto work = [&]() -> Task<int> {
      co_await sleep_for(10ms);
      co_await this_task::checkpoint();
      finished = true;
      co_return 1;
    };
    Result<int> r = co_await as_result(timeout(shield(work()), 1ms));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_EQ(machine.elapsed(), 1ms);
    EXPECT_FALSE(finished);
    co_await sleep_for(20ms);
    EXPECT_TRUE(finished);
  });
}

TEST_ON_THREADS(Shield, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await shield(started(ran));
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    co_await sleep_for(1ms);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Shield, InheritsNoDeadline) {
  machine.run([&]() -> Task<> {
    auto ask = []() -> Task<std::optional<Deadline>> { co_return co_await this_task::deadline(); };
    const auto seen = co_await timeout(shield(ask()), 1s);
    EXPECT_FALSE(seen.has_value());
  });
}

TEST_ON_THREADS(Shield, HandleIsJustWaitedFor) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(give_after(5ms, 2));
    Result<int> r = co_await as_result(timeout(shield(handle), 1ms));
    EXPECT_TRUE(r.is_timeout());
    const int value = co_await shield(handle);
    EXPECT_EQ(value, 2);
  });
}

TEST_ON_THREADS(Shield, InsideAGatherOnlyTheWaitIsCancelled) {  // B169
  std::atomic<int> finished{0};
  machine.run([&]() -> Task<> {
    auto work = [&]() -> Task<int> {
      co_await sleep_for(5ms);
      finished.fetch_add(1);
      co_return 1;
    };
    Result<std::tuple<int, int>> r =
        co_await as_result(timeout(gather(shield(work()), shield(work())), 1ms));
    EXPECT_TRUE(r.is_timeout());
    co_await sleep_for(10ms);
    auto first = co_await race(shield(work()), give(1));
    EXPECT_EQ(first.value, 1);
    co_await sleep_for(10ms);
  });
  EXPECT_GE(finished.load(), 2);
}

TEST(ShieldErrors, FailureAfterTheWaiterHasGoneIsReported) {  // B167
  std::mutex mutex;
  std::vector<std::string> reported;
  ManualClock clock;
  {
    WorkStealingExecutor executor({.threads = 2,
                                   .on_unobserved_error =
                                       [&](std::string_view, std::exception_ptr error) {
                                         std::lock_guard guard(mutex);
                                         reported.push_back(what_of(error));
                                       },
                                   .clock = &clock});
    auto body = [&]() -> Task<> {
      Result<int> r = co_await as_result(timeout(shield(fail_after(5ms, "later")), 1ms));
      EXPECT_TRUE(r.is_timeout());
      Result<int> seen = co_await as_result(shield(fail_after(1ms, "seen")));
      EXPECT_EQ(what_of(seen.error()), "seen");
      co_await sleep_for(10ms);
    };
    executor.run(body());
  }
  std::lock_guard guard(mutex);
  EXPECT_EQ(reported, std::vector<std::string>{"later"});
}

TEST(ShieldErrors, ExecutorOwnsWhatIsShielded) {
  bool ended = false;
  CancelKind why{};
  {
    ManualClock clock;  // what is shielded has started when the time is over
    WorkStealingExecutor executor({.threads = 1, .clock = &clock});
    auto body = [&]() -> Task<> {
      Result<int> r = co_await as_result(timeout(shield(watched(ended, why)), 1ms));
      EXPECT_TRUE(r.is_timeout());
    };
    executor.run(body());
    EXPECT_FALSE(ended);
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(why, CancelKind::shutdown);
}

TEST_ON_THREADS(Shield, DroppedUnawaitedNeverRuns) {
  Ledger ledger;
  auto hold = [](Tracked tracked) -> Task<> {
    tracked.touch();
    co_return;
  };
  {
    auto unused = shield(hold(Tracked(ledger)));
  }
  EXPECT_EQ(ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
