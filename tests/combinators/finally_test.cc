// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// finally: what api.md, section 5, says of it.

#include <magpie/cancellation.h>

#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/gather.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Finally : public OnMachine {};

TEST_ON_THREADS(Finally, CleanupRunsAfterAValue) {
  int number = 1;
  machine.run([&]() -> Task<> {
    std::vector<std::string> order;
    auto work = [&]() -> Task<int> {
      order.push_back("work");
      co_return 4;
    };
    auto cleanup = [&]() -> Task<> {
      co_await sleep_for(1ms);
      order.push_back("cleanup");
    };
    const int value = co_await finally(work(), cleanup);
    EXPECT_EQ(value, 4);
    EXPECT_EQ(order, (std::vector<std::string>{"work", "cleanup"}));
    auto refer = [&]() -> Task<int&> { co_return number; };
    int& same = co_await finally(refer(), cleanup);
    EXPECT_EQ(&same, &number);
    co_await finally(nothing(), cleanup);
    auto move_only = []() -> Task<MoveOnly> { co_return MoveOnly(2); };
    MoveOnly moved = co_await finally(move_only(), cleanup);
    EXPECT_EQ(moved.value(), 2);
  });
}

TEST_ON_THREADS(Finally, AValueThatTheCleanupGivesIsDropped) {
  machine.run([&]() -> Task<> {
    const int value = co_await finally(give(1), [] { return gather(give(2), give_text("two")); });
    EXPECT_EQ(value, 1);
    auto bad_cleanup = []() -> Task<int> { return fail("cleanup"); };
    Result<int> one = co_await as_result(finally(give(1), bad_cleanup));
    EXPECT_EQ(what_of(one.error()), "cleanup");
    Result<int> both = co_await as_result(finally(fail("work"), bad_cleanup));
    EXPECT_THROW(both.value(), ExceptionGroup);
  });
}

TEST_ON_THREADS(Finally, CleanupRunsAfterAnErrorWhichGoesOn) {
  machine.run([&]() -> Task<> {
    bool cleaned = false;
    auto cleanup = [&]() -> Task<> {
      cleaned = true;
      co_return;
    };
    Result<int> r = co_await as_result(finally(fail("work"), cleanup));
    EXPECT_EQ(what_of(r.error()), "work");
    EXPECT_TRUE(cleaned);
  });
}

TEST_ON_THREADS(Finally, CleanupRunsMaskedAfterACancellationWhichGoesOn) {  // B172
  machine.run([&]() -> Task<> {
    bool cleaned = false;
    auto cleanup = [&]() -> Task<> {
      co_await sleep_for(5ms);
      co_await this_task::checkpoint();
      cleaned = true;
    };
    auto body = [&]() -> Task<int> { co_return co_await finally(never(), cleanup); };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel("outside");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
    EXPECT_TRUE(cleaned);
  });
  EXPECT_EQ(machine.elapsed(), 6ms);
}

TEST_ON_THREADS(Finally, CleanupCannotBeInterrupted) {
  machine.run([&]() -> Task<> {
    bool cleaned = false;
    auto cleanup = [&]() -> Task<> {
      co_await sleep_for(10ms);
      cleaned = true;
    };
    auto body = [&]() -> Task<int> {
      const int value = co_await finally(give(3), cleanup);
      Result<void> after = co_await as_result(this_task::checkpoint());
      EXPECT_TRUE(after.is_cancelled());
      co_return value;
    };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 3);
    EXPECT_TRUE(cleaned);
  });
}

TEST_ON_THREADS(Finally, CleanupThatThrowsReplacesAValueOrACancellation) {
  machine.run([&]() -> Task<> {
    auto broken = []() -> Task<> {
      throw std::logic_error("cleanup");
      co_return;
    };
    Result<int> value = co_await as_result(finally(give(1), broken));
    EXPECT_EQ(what_of(value.error()), "cleanup");
    Result<int> cancelled = co_await as_result(finally(cancel_itself(), broken));
    EXPECT_EQ(what_of(cancelled.error()), "cleanup");
    Result<int> timed_out = co_await as_result(timeout(finally(never(), broken), 1ms));
    EXPECT_EQ(what_of(timed_out.error()), "cleanup");
    auto no_coroutine = []() -> Task<> { throw std::logic_error("no coroutine"); };
    Result<int> early = co_await as_result(finally(give(1), no_coroutine));
    EXPECT_EQ(what_of(early.error()), "no coroutine");
  });
}

TEST_ON_THREADS(Finally, TwoFailuresAreAGroup) {
  machine.run([&]() -> Task<> {
    auto broken = []() -> Task<> {
      throw std::logic_error("cleanup");
      co_return;
    };
    Result<int> r = co_await as_result(finally(fail("work"), broken));
    const ExceptionGroup group = group_of(r.error());
    EXPECT_EQ(group.exceptions().size(), 2u);
    if (group.exceptions().size() != 2) co_return;
    EXPECT_EQ(what_of(group.exceptions()[0]), "work");
    EXPECT_EQ(what_of(group.exceptions()[1]), "cleanup");
  });
}

TEST_ON_THREADS(Finally, CleanupThatEndsCancelledDoesNotHideAnError) {  // rule 0.4
  machine.run([&]() -> Task<> {
    auto given_up = []() -> Task<> { co_await cancel_itself("gave up"); };
    Result<int> error = co_await as_result(finally(fail("work"), given_up));
    EXPECT_EQ(what_of(error.error()), "work");
    Result<int> value = co_await as_result(finally(give(1), given_up));
    EXPECT_EQ(reason_of(value.error()).message, "gave up");
  });
}

TEST_ON_THREADS(Finally, EnteringItIsNoCancellationPoint) {
  machine.run([&]() -> Task<> {
    bool ran = false;
    bool cleaned = false;
    auto cleanup = [&]() -> Task<> {
      cleaned = true;
      co_return;
    };
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      const int value = co_await finally(started(ran, 2), cleanup);
      EXPECT_EQ(value, 2);
    };
    co_await cancel_scope(block);
    EXPECT_TRUE(ran && cleaned);
  });
}

TEST_ON_THREADS(Finally, TheyNestFromTheInsideOut) {  // B174
  machine.run([&]() -> Task<> {
    std::string order;
    auto inner = [&]() -> Task<> {
      co_await sleep_for(1ms);
      order += "inner ";
    };
    auto outer = [&]() -> Task<> {
      co_await sleep_for(1ms);
      order += "outer";
    };
    Result<int> r = co_await as_result(timeout(finally(finally(never(), inner), outer), 1ms));
    EXPECT_TRUE(r.is_timeout());
    EXPECT_EQ(order, "inner outer");
  });
}

TEST_ON_THREADS(Finally, GoesWithEveryKindOfTask) {
  machine.run([&]() -> Task<> {
    int cleanups = 0;
    auto cleanup = [&]() -> Task<> {
      ++cleanups;
      co_return;
    };
    co_await finally(sleep_for(1ms), cleanup);
    JoinHandle<int> handle = executor.spawn(give(6));
    const int value = co_await finally(handle, cleanup);
    EXPECT_EQ(value, 6);
    auto pair = co_await finally(gather(give(1), give(2)), cleanup);
    EXPECT_EQ(std::get<1>(pair), 2);
    EXPECT_EQ(cleanups, 3);
  });
}

TEST_ON_THREADS(Finally, CleanupLivesUntilTheEnd) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto cleanup = [tracked = Tracked(ledger)]() -> Task<> {
      co_await sleep_for(1ms);
      tracked.touch();
    };
    auto guarded = finally(give(1), std::move(cleanup));
    co_await std::move(guarded);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(Finally, ResumesWhereItWasAwaited) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    Executor& home = co_await this_task::executor();
    auto hop = [&]() -> Task<int> {
      co_await resume_on(other);
      co_return 1;
    };
    auto hop_again = [&]() -> Task<> { co_await resume_on(other); };
    co_await finally(hop(), hop_again);
    Executor& back = co_await this_task::executor();
    EXPECT_EQ(&back, &home);
  });
}

}  // namespace
}  // namespace magpie
