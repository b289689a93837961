// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)
// ctest-leave-out: gcc (the same code as of race_test)

// any: what api.md, sections 0 and 6, says of it.

#include <magpie/race.h>

#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/semaphore.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Any : public OnMachine {};

TEST_ON_THREADS(Any, FirstToSucceedWinsOverEarlierFailures) {  // B134
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto first =
        co_await any(fail("a"), fail_after(1ms, "b"), give_after(2ms, 3), watched(ended, why));
    EXPECT_EQ(first.index, 2u);
    EXPECT_EQ(first.value, 3);
    EXPECT_TRUE(ended);
  });
  EXPECT_EQ(why, CancelKind::lost_race);
  EXPECT_EQ(machine.elapsed(), 2ms);
}

TEST_ON_THREADS(Any, WithoutSuccessItGivesEveryFailureInTheirOrder) {
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r = co_await as_result(
        any(fail_after(3ms, "third"), fail_after(1ms, "first"), fail_after(2ms, "second")));
    const ExceptionGroup group = group_of(r.error());
    EXPECT_EQ(group.exceptions().size(), 3u);
    if (group.exceptions().size() != 3) co_return;
    EXPECT_EQ(what_of(group.exceptions()[0]), "first");
    EXPECT_EQ(what_of(group.exceptions()[1]), "second");
    EXPECT_EQ(what_of(group.exceptions()[2]), "third");
    EXPECT_TRUE(group.contains<std::runtime_error>());
  });
}

TEST_ON_THREADS(Any, OneFailureAloneIsAGroupToo) {
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r = co_await as_result(any(fail("only")));
    EXPECT_EQ(group_of(r.error()).exceptions().size(), 1u);
  });
}

TEST_ON_THREADS(Any, ChildThatEndedCancelledDoesNotWin) {
  machine.run([&]() -> Task<> {
    auto first = co_await any(cancel_itself(), give_after(1ms, 2));
    EXPECT_EQ(first.value, 2);
    Result<Indexed<int>> all =
        co_await as_result(any(cancel_itself("mine"), cancel_itself("mine")));
    EXPECT_TRUE(all.is_cancelled());
    EXPECT_EQ(reason_of(all.error()).message, "mine");
    co_await this_task::checkpoint();
    // A failure goes before cancellations, and alone.
    Result<Indexed<int>> mixed = co_await as_result(any(cancel_itself(), fail("real")));
    EXPECT_EQ(group_of(mixed.error()).exceptions().size(), 1u);
  });
}

TEST_ON_THREADS(Any, NothingIsAnError) {
  machine.run([&]() -> Task<> {
    auto nobody = any();
    Result<Indexed<void>> none = co_await as_result(std::move(nobody));
    EXPECT_TRUE(is<std::invalid_argument>(none.error()));
    Result<Indexed<int>> r = co_await as_result(any(std::vector<Task<int>>()));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
  });
}

TEST_ON_THREADS(Any, TypesOfResults) {
  int number = 1;
  machine.run([&]() -> Task<> {
    auto mixed = co_await any(fail("x"), give_text("t"), nothing_after(1s));
    static_assert(
        std::is_same_v<decltype(mixed), Indexed<std::variant<int, std::string, std::monostate>>>);
    EXPECT_EQ(std::get<1>(mixed.value), "t");
    Indexed<void> plain = co_await any(nothing_after(2ms), nothing_after(1ms));
    EXPECT_EQ(plain.index, 1u);
    auto refer = [&]() -> Task<int&> { co_return number; };
    auto reference = co_await any(refer(), refer());
    EXPECT_EQ(&reference.value, &number);
    auto make = [](int v) -> Task<MoveOnly> { co_return MoveOnly(v); };
    auto broken = []() -> Task<MoveOnly> {
      throw std::runtime_error("broken");
      co_return MoveOnly(0);
    };
    auto moved = co_await any(broken(), make(9));
    EXPECT_EQ(moved.value.value(), 9);
    std::vector<Task<NoDefault>> tasks;
    for (int i = 0; i < 3; ++i)
      tasks.push_back([](int v) -> Task<NoDefault> { co_return NoDefault(v); }(i));
    auto picked = co_await any(std::move(tasks));
    EXPECT_EQ(picked.value.value, static_cast<int>(picked.index));
  });
}

TEST_ON_THREADS(Any, CallablesAndHandles) {
  machine.run([&]() -> Task<> {
    auto bad = []() -> int { throw std::runtime_error("no"); };
    auto good = [] { return 4; };
    auto first = co_await any(bad, good);
    EXPECT_EQ(first.index, 1u);
    JoinHandle<int> failed = executor.spawn(fail("task"));
    JoinHandle<int> slow = executor.spawn(give_after(5ms, 6));
    auto second = co_await any(failed, slow);
    EXPECT_EQ(second.index, 1u);
    EXPECT_EQ(second.value, 6);
    std::vector<JoinHandle<int>> handles{failed, failed};
    Result<Indexed<int>> none = co_await as_result(any(handles));
    EXPECT_EQ(group_of(none.error()).exceptions().size(), 2u);
  });
}

TEST_ON_THREADS(Any, MovedHandleThatFailedTakesNothingFromTheOthers) {
  machine.run([&]() -> Task<> {
    JoinHandle<MoveOnly> bad = executor.spawn([]() -> Task<MoveOnly> {
      throw std::runtime_error("bad");
      co_return MoveOnly(0);
    }());
    JoinHandle<MoveOnly> good = executor.spawn([]() -> Task<MoveOnly> {
      co_await sleep_for(1ms);
      co_return MoveOnly(3);
    }());
    auto first = co_await any(std::move(bad), std::move(good));
    EXPECT_EQ(first.index, 1u);
    EXPECT_EQ(first.value.value(), 3);
  });
}

TEST_ON_THREADS(Any, LosersValuesGoToOnDiscard) {
  machine.run([&]() -> Task<> {
    int sum = 0;
    auto add = [&](std::size_t, int&& v) { sum += v; };
    auto contest =
        any(stubborn(5ms, 10), give_after(1ms, 1), fail("x"), stubborn(3ms, 20)).on_discard(add);
    auto first = co_await std::move(contest);
    EXPECT_EQ(first.value, 1);
    EXPECT_EQ(sum, 30);
  });
}

TEST_ON_THREADS(Any, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto block = co_await cancel_scope([&](CancelScope& scope) -> Task<> {
      scope.cancel();
      co_await any(started(ran), started(ran));
    });
    EXPECT_TRUE(block.is_cancelled());
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Any, CancelledFromOutside) {
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r = co_await as_result(timeout(any(never(), never(), fail("early")), 1ms));
    // One has failed, the others were cancelled: the failure is not hidden.
    EXPECT_EQ(group_of(r.error()).exceptions().size(), 1u);
    Result<Indexed<int>> quiet = co_await as_result(timeout(any(never(), never()), 1ms));
    EXPECT_TRUE(quiet.is_timeout());
    Result<Indexed<int>> value = co_await as_result(timeout(any(never(), forgiving(5)), 1ms));
    EXPECT_EQ(value.value().value, 5);
  });
}

TEST_ON_THREADS(Any, AcquireThatLosesTakesNoPermit) {
  Semaphore semaphore(3);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 200; ++i) {
      auto first = co_await any(semaphore.acquire(), give(1), semaphore.acquire(2));
      EXPECT_EQ(semaphore.available(), first.index == 0 ? 2u : first.index == 1 ? 3u : 1u);
    }
    EXPECT_EQ(semaphore.available(), 3u);
  });
}

TEST_ON_THREADS(Any, ManyContestants) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 1000; ++i)
      tasks.push_back(i == 777 ? give_after(5ms, i) : fail_after(1ms, "no"));
    auto first = co_await any(std::move(tasks));
    EXPECT_EQ(first.index, 777u);
    std::vector<Task<int>> losers;
    for (int i = 0; i < 1000; ++i) losers.push_back(fail_after(1ms, "no"));
    Result<Indexed<int>> r = co_await as_result(any(std::move(losers)));
    EXPECT_EQ(group_of(r.error()).exceptions().size(), 1000u);
  });
}

}  // namespace
}  // namespace magpie
