// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan (values and outcomes, what else there is: fault/everywhere_test)

// race: what api.md, sections 0, 6 and 9, says of it.

#include <magpie/race.h>

#include <list>
#include <ranges>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/spawn.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>

namespace magpie {
namespace {

using namespace test;

class Race : public OnMachine {};

TEST_ON_THREADS(Race, FirstToCompleteWinsAndTheOthersAreCancelledAndAwaited) {  // B131
  bool ended = false;
  CancelKind why{};
  const Indexed<int> first = machine.run([&]() -> Task<Indexed<int>> {
    auto result = co_await race(watched(ended, why), give_after(10ms, 5));
    EXPECT_TRUE(ended);
    co_return result;
  });
  EXPECT_EQ(first.index, 1u);
  EXPECT_EQ(first.value, 5);
  EXPECT_EQ(why, CancelKind::lost_race);
  EXPECT_EQ(machine.elapsed(), 10ms);
}

TEST_ON_THREADS(Race, LoserThatCannotBeCancelledIsWaitedFor) {  // B132
  machine.run([&]() -> Task<> {
    auto first = co_await race(stubborn(1s, 1), give_after(10ms, 2));
    EXPECT_EQ(first.value, 2);
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(Race, FirstErrorIsThrown) {  // B134
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r =
        co_await as_result(race(never(), fail_after(1ms, "oops"), give_after(2ms, 1)));
    EXPECT_EQ(what_of(r.error()), "oops");
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

TEST_ON_THREADS(Race, ChildThatEndsCancelledByItselfCompletesIt) {
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r = co_await as_result(race(never(), cancel_itself("mine")));
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(reason_of(r.error()).message, "mine");
    co_await this_task::checkpoint();  // the waiter's own scope is untouched
  });
  EXPECT_EQ(machine.elapsed(), 0ms);
}

TEST_ON_THREADS(Race, RealErrorOfALoserIsNotHiddenByACancelledWinner) {  // rule 0.4
  machine.run([&]() -> Task<> {
    auto quits = []() -> Task<int> {
      co_await sleep_for(1ms);  // when the other one has begun
      co_return co_await cancel_itself();
    };
    Result<Indexed<int>> r = co_await as_result(race(bitter("real"), quits()));
    EXPECT_EQ(what_of(r.error()), "real");
  });
}

TEST_ON_THREADS(Race, ValueWinsOverALosersError) {
  machine.run([&]() -> Task<> {
    auto first = co_await race(bitter("dropped"), give(1));
    EXPECT_EQ(first.value, 1);
  });
}

TEST_ON_THREADS(Race, NothingIsAnError) {  // B136
  machine.run([&]() -> Task<> {
    auto empty = race();
    Result<Indexed<void>> none = co_await as_result(std::move(empty));
    EXPECT_TRUE(is<std::invalid_argument>(none.error()));
    std::vector<Task<int>> tasks;
    Result<Indexed<int>> r = co_await as_result(race(std::move(tasks)));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    EXPECT_FALSE(what_of(r.error()).empty());
  });
}

TEST_ON_THREADS(Race, OneContestantAlone) {
  machine.run([&]() -> Task<> {
    auto one = co_await race(give_after(1ms, 4));
    EXPECT_EQ(one.index, 0u);
    EXPECT_EQ(one.value, 4);
    std::vector<Task<int>> tasks;
    tasks.push_back(give(6));
    auto first = co_await race(std::move(tasks));
    EXPECT_EQ(first.index, 0u);
    EXPECT_EQ(first.value, 6);
  });
}

TEST_ON_THREADS(Race, SeveralReadyAtOnceHaveOneWinner) {  // B133
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 200; ++i) {
      auto first = co_await race(give(0), give(1), give(2));
      EXPECT_EQ(first.index, static_cast<std::size_t>(first.value));
    }
  });
}

TEST_ON_THREADS(Race, DifferentTypesGiveAVariantWithOneAlternativeEach) {
  int number = 3;
  machine.run([&]() -> Task<> {
    auto mixed = co_await race(give_after(1s, 1), give_text("text"), nothing_after(1s));
    static_assert(
        std::is_same_v<decltype(mixed), Indexed<std::variant<int, std::string, std::monostate>>>);
    EXPECT_EQ(mixed.index, 1u);
    EXPECT_EQ(mixed.value.index(), 1u);
    EXPECT_EQ(std::get<1>(mixed.value), "text");

    auto with_void = co_await race(give_after(1s, 1), nothing());
    static_assert(std::is_same_v<decltype(with_void), Indexed<std::variant<int, std::monostate>>>);
    EXPECT_EQ(with_void.index, 1u);

    // The same type twice keeps its place when another one is there.
    auto twice = co_await race(give_after(1s, 1), give_after(1ms, 2), nothing_after(1s));
    static_assert(std::is_same_v<decltype(twice), Indexed<std::variant<int, int, std::monostate>>>);
    EXPECT_EQ(twice.value.index(), 1u);
    EXPECT_EQ(std::get<1>(twice.value), 2);

    auto refer = [&]() -> Task<int&> { co_return number; };
    auto reference = co_await race(refer(), nothing_after(1s));
    EXPECT_EQ(&std::get<0>(reference.value).get(), &number);
  });
}

TEST_ON_THREADS(Race, OfVoidsHasOnlyTheIndex) {
  machine.run([&]() -> Task<> {
    Indexed<void> first = co_await race(nothing_after(2ms), nothing_after(1ms));
    EXPECT_EQ(first.index, 1u);
    std::vector<Task<>> tasks;
    tasks.push_back(nothing_after(5ms));
    tasks.push_back(nothing_after(3ms));
    first = co_await race(std::move(tasks));
    EXPECT_EQ(first.index, 1u);
  });
}

TEST_ON_THREADS(Race, ReferencesStayTheSameObject) {
  int a = 1;
  int b = 2;
  machine.run([&]() -> Task<> {
    auto refer = [](int& x, Duration d) -> Task<int&> {
      co_await sleep_for(d);
      co_return x;
    };
    auto first = co_await race(refer(a, 2ms), refer(b, 1ms));
    static_assert(std::is_same_v<decltype(first), Indexed<int&>>);
    EXPECT_EQ(&first.value, &b);
    std::vector<Task<int&>> tasks;
    tasks.push_back(refer(a, 1ms));
    tasks.push_back(refer(b, 2ms));
    auto second = co_await race(std::move(tasks));
    EXPECT_EQ(&second.value, &a);
  });
}

TEST_ON_THREADS(Race, AwkwardValues) {
  machine.run([&]() -> Task<> {
    auto move_only = [](int v) -> Task<MoveOnly> { co_return MoveOnly(v); };
    auto no_default = [](int v, Duration d) -> Task<NoDefault> {
      co_await sleep_for(d);
      co_return NoDefault(v);
    };
    auto first = co_await race(move_only(1), move_only(1));
    EXPECT_EQ(first.value.value(), 1);
    auto second = co_await race(no_default(1, 2ms), no_default(2, 1ms));
    EXPECT_EQ(second.value.value, 2);
    auto third = co_await race(move_only(7), no_default(1, 1s));
    EXPECT_EQ(std::get<0>(third.value).value(), 7);
  });
}

TEST_ON_THREADS(Race, TakesRangesOfAllKinds) {
  machine.run([&]() -> Task<> {
    constexpr int kCount = 500;
    std::vector<Task<int>> tasks;
    for (int i = 0; i < kCount; ++i)
      tasks.push_back(give_after(std::chrono::milliseconds(kCount - i), i));
    auto first = co_await race(std::move(tasks));
    EXPECT_EQ(first.index, static_cast<std::size_t>(kCount - 1));
    EXPECT_EQ(first.value, kCount - 1);

    std::list<Task<int>> list;
    list.push_back(give_after(2ms, 0));
    list.push_back(give_after(1ms, 1));
    auto from_list = co_await race(std::move(list));
    EXPECT_EQ(from_list.index, 1u);
    auto make = [](int i) { return give_after(std::chrono::milliseconds(10 - i), i); };
    auto made = co_await race(std::views::iota(0, 5) | std::views::transform(make));
    EXPECT_EQ(made.value, 4);

    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 3; ++i)
      handles.push_back(executor.spawn(give_after(std::chrono::seconds(3 - i), i)));
    auto handle = co_await race(handles);  // lvalues: copies
    EXPECT_EQ(handle.index, 2u);
    EXPECT_EQ(handle.value, 2);
    int all = 0;
    for (auto& h : handles) all += co_await h;  // only the wait was cancelled
    EXPECT_EQ(all, 3);
  });
}

TEST_ON_THREADS(Race, CallablesAreContestants) {
  machine.run([&]() -> Task<> {
    auto slow = []() -> Task<int> { return never(); };
    auto fast = [] { return 7; };
    auto first = co_await race(slow, fast);
    EXPECT_EQ(first.index, 1u);
    EXPECT_EQ(first.value, 7);
    auto failing = []() -> int { throw std::runtime_error("plain"); };
    Result<Indexed<int>> r = co_await as_result(race(slow, failing));
    EXPECT_EQ(what_of(r.error()), "plain");
  });
}

TEST_ON_THREADS(Race, CombinatorsAndOperationsAreContestants) {
  Event event;
  machine.run([&]() -> Task<> {
    auto first =
        co_await race(sleep_for(2ms), event.wait(), race(nothing_after(1ms), nothing_after(1h)));
    EXPECT_EQ(first.index, 2u);
    EXPECT_EQ(std::get<2>(first.value).index, 0u);
    auto timer = co_await race(timeout(never(), 1h), sleep_for(1ms));
    EXPECT_EQ(timer.index, 1u);
  });
}

TEST_ON_THREADS(Race, ForeignAwaitablesAreContestantsAndComeHome) {
  auto hold = machine.clock.hold();  // for the foreign thread
  machine.run([&]() -> Task<> {
    auto first = co_await race(OnForeignThread(4), never());
    EXPECT_EQ(first.index, 0u);
    EXPECT_EQ(first.value, 4);
    const int timed = co_await timeout(OnForeignThread(5), 1h);
    EXPECT_EQ(timed, 5);
    const int masked = co_await uncancellable(OnForeignThread(6));
    EXPECT_EQ(masked, 6);
    auto cleanup = []() -> Task<> { co_return; };
    const int cleaned = co_await finally(OnForeignThread(7), cleanup);
    EXPECT_EQ(cleaned, 7);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(Race, OfPureOperationsEndsInPlace) {
  Event event;
  machine.run([&]() -> Task<> {
    Indexed<void> first = co_await race(event.wait(), sleep_for(1ms));
    EXPECT_EQ(first.index, 1u);
    event.set();
    first = co_await race(event.wait(), sleep_for(1ms));
    EXPECT_EQ(first.index, 0u);
  });
  EXPECT_EQ(machine.elapsed(), 1ms);
}

// --- handles -------------------------------------------------------------------------------------

TEST_ON_THREADS(Race, CancelsItsWaitForAHandleNotTheTaskBehindIt) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(give_after(1s, 8));
    auto first = co_await race(handle, give_after(1ms, 1));
    EXPECT_EQ(first.index, 1u);
    EXPECT_FALSE(handle.done());
    const int value = co_await handle;
    EXPECT_EQ(value, 8);
  });
}

TEST_ON_THREADS(Race, HandleOfACancelledTaskCompletesIt) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(never());
    handle.cancel("elsewhere");
    Result<Indexed<int>> r = co_await as_result(race(handle, never()));
    EXPECT_EQ(reason_of(r.error()).message, "elsewhere");
    co_await this_task::checkpoint();
  });
}

TEST_ON_THREADS(Race,
                MovedHandleThatLosesKeepsItsResult) {  // one winner: the loser leaves no trace
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 100; ++i) {
      JoinHandle<MoveOnly> a = executor.spawn([]() -> Task<MoveOnly> { co_return MoveOnly(1); }());
      JoinHandle<MoveOnly> b = executor.spawn([]() -> Task<MoveOnly> { co_return MoveOnly(2); }());
      JoinHandle<MoveOnly> copies[] = {a, b};
      auto first = co_await race(std::move(a), std::move(b));
      EXPECT_EQ(first.value.value(), static_cast<int>(first.index) + 1);
      const std::size_t loser = 1 - first.index;
      MoveOnly kept = co_await std::move(copies[loser]);
      EXPECT_EQ(kept.value(), static_cast<int>(loser) + 1);
    }
  });
}

TEST_ON_THREADS(Race, MovedHandleThatFailedWins) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(fail("of the task"));
    Result<Indexed<int>> r = co_await as_result(race(std::move(handle), never()));
    EXPECT_EQ(what_of(r.error()), "of the task");
  });
}

// --- cancellation --------------------------------------------------------------------------------

TEST_ON_THREADS(Race, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto result = co_await cancel_scope([&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      auto nobody = race(started(ran), started(ran));
      Result<Indexed<int>> r = co_await as_result(std::move(nobody));
      EXPECT_EQ(reason_of(r.error()).message, "before");
    });
    EXPECT_TRUE(result.has_value());  // the body returned: the value wins
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(Race, CancelledFromOutsideCancelsAndAwaitsAll) {  // B137
  bool ended[2] = {};
  CancelKind why[2] = {};
  JoinHandle<Indexed<int>> handle;
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<Indexed<int>> {
      co_return co_await race(watched(ended[0], why[0]), watched(ended[1], why[1]));
    };
    handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel("outside");
    Result<Indexed<int>> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "outside");
  });
  EXPECT_TRUE(ended[0] && ended[1]);
  EXPECT_EQ(why[0], CancelKind::requested);
}

TEST_ON_THREADS(Race, ValueGivenInSpiteOfACancellationFromOutsideWins) {
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<int> {
      auto first = co_await race(forgiving(3), never());
      Result<void> next = co_await as_result(sleep_for(1ms));
      EXPECT_TRUE(next.is_cancelled());  // seen at the next cancellation point
      co_return first.value;
    };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    const int value = co_await handle;
    EXPECT_EQ(value, 3);
  });
}

TEST_ON_THREADS(Race, ErrorAfterACancellationFromOutsideIsReported) {  // rule 0.4
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<Indexed<int>> {
      co_return co_await race(never(), bitter("cleanup"));
    };
    JoinHandle<Indexed<int>> handle = executor.spawn(body());
    co_await sleep_for(1ms);
    handle.cancel();
    Result<Indexed<int>> r = co_await as_result(handle);
    EXPECT_EQ(what_of(r.error()), "cleanup");
  });
}

TEST_ON_THREADS(Race, CancellationAfterTheWinnerIsSeenLater) {
  machine.run([&]() -> Task<> {
    auto body = [&]() -> Task<int> {
      auto first = co_await race(give_after(1ms, 5), stubborn(1s, 6));
      Result<void> next = co_await as_result(this_task::checkpoint());
      EXPECT_TRUE(next.is_cancelled());
      co_return first.value;
    };
    JoinHandle<int> handle = executor.spawn(body());
    co_await sleep_for(10ms);
    EXPECT_TRUE(handle.cancel());
    const int value = co_await handle;
    EXPECT_EQ(value, 5);
  });
}

TEST_ON_THREADS(Race, WithinATimeout) {
  machine.run([&]() -> Task<> {
    Result<Indexed<int>> r = co_await as_result(timeout(race(never(), never()), 3ms));
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 3ms);
}

// --- what a loser gives --------------------------------------------------------------------------

TEST_ON_THREADS(Race, LosersValuesGoToOnDiscard) {  // B142
  machine.run([&]() -> Task<> {
    std::vector<std::pair<std::size_t, int>> discarded;
    auto keep = [&](std::size_t index, int&& value) { discarded.emplace_back(index, value); };
    auto first = co_await race(stubborn(2ms, 20), stubborn(1ms, 10), stubborn(3ms, 30), never())
                     .on_discard(keep);
    EXPECT_EQ(first.value, 10);
    const std::vector<std::pair<std::size_t, int>> expected{{0, 20}, {2, 30}};
    EXPECT_EQ(discarded, expected);
  });
}

TEST_ON_THREADS(Race, OnDiscardGetsTheLosersOwnType) {
  machine.run([&]() -> Task<> {
    std::string text;
    int voids = 0;
    struct Sink {
      std::string& text;
      int& voids;
      void operator()(std::size_t, MoveOnly&& value) const {
        text = "move-only " + std::to_string(value.value());
      }
      void operator()(std::size_t) const { ++voids; }
    };
    auto late = []() -> Task<MoveOnly> {
      co_await uncancellable(sleep_for(2ms));
      co_return MoveOnly(4);
    };
    auto late_void = []() -> Task<> { co_await uncancellable(sleep_for(2ms)); };
    Sink sink{text, voids};
    auto first = co_await race(late(), give_after(1ms, 1), late_void()).on_discard(sink);
    EXPECT_EQ(first.index, 1u);
    EXPECT_EQ(text, "move-only 4");
    EXPECT_EQ(voids, 1);
  });
}

TEST_ON_THREADS(Race, OnDiscardOfAVector) {
  machine.run([&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 5; ++i) tasks.push_back(stubborn(std::chrono::milliseconds(5 - i), i));
    int sum = 0;
    auto add = [&](std::size_t index, int&& value) {
      EXPECT_EQ(index, static_cast<std::size_t>(value));
      sum += value;
    };
    auto contest = race(std::move(tasks)).on_discard(add);
    auto first = co_await std::move(contest);
    EXPECT_EQ(first.value, 4);
    EXPECT_EQ(sum, 0 + 1 + 2 + 3);
  });
}

TEST_ON_THREADS(Race, OnDiscardIsCalledForAllAlsoWhenOneCallThrows) {
  machine.run([&]() -> Task<> {
    int calls = 0;
    auto refuse = [&](std::size_t, int&&) {
      ++calls;
      throw std::logic_error("not wanted");
    };
    auto contest = race(stubborn(2ms, 1), stubborn(2ms, 2), give_after(1ms, 3))
                       .on_discard(refuse);  // all have started
    Result<Indexed<int>> r = co_await as_result(std::move(contest));
    EXPECT_TRUE(is<std::logic_error>(r.error()));
    EXPECT_EQ(calls, 2);
  });
}

TEST_ON_THREADS(Race, ValuesAreDestroyedOnceWhereverTheyGo) {
  Ledger ledger;
  auto value = [&](Duration pause) -> Task<Tracked> {
    co_await uncancellable(sleep_for(pause));
    co_return Tracked(ledger);
  };
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 50; ++i) {
      auto plain = co_await race(value(1ms), value(1ms), value(1ms));
      auto touch = [](std::size_t, Tracked&& t) { t.touch(); };
      auto given = co_await race(value(1ms), value(1ms)).on_discard(touch);
    }
  });
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_GE(ledger.total(), 250);
}

TEST_ON_THREADS(Race, IsMovableUntilAwaited) {
  machine.run([&]() -> Task<> {
    auto make = [] { return race(give_after(1ms, 1), never()); };
    auto contest = make();
    auto moved = std::move(contest);
    auto first = co_await std::move(moved);
    EXPECT_EQ(first.value, 1);
  });
}

TEST_ON_THREADS(Race, DroppedUnawaitedFreesItsTasks) {
  Ledger ledger;
  auto hold = [](Tracked tracked) -> Task<int> {
    tracked.touch();
    co_return 1;
  };
  {
    auto contest = race(hold(Tracked(ledger)), hold(Tracked(ledger)));
    EXPECT_EQ(ledger.alive(), 2);
  }
  EXPECT_EQ(ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
