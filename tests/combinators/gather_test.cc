// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 300

// gather: every kind of child and of value, what lives how long, and many of them.

#include <magpie/gather.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/event.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::MoveOnly;
using test::NoDefault;
using test::OnForeignThread;
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
Task<MoveOnly> give_move_only(int value) {
  co_return MoveOnly(value);
}
Task<NoDefault> give_no_default(int value) {
  co_return NoDefault(value);
}
Task<int&> give_reference(int& value) {
  co_return value;
}

class GatherTest : public testing::Test {
 protected:
  WorkStealingExecutor executor{ExecutorOptions{.threads = 2}};
};

// --- shapes --------------------------------------------------------------------------------------

TEST_F(GatherTest, APackGivesATupleInItsOrder) {
  auto body = []() -> Task<> {
    auto [a, b, c] = co_await gather(give_later(1), give(2), do_nothing());
    static_assert(std::is_same_v<decltype(c), std::monostate>);
    EXPECT_EQ(a * 10 + b, 12);
    std::tuple<int> one = co_await gather(give(3));
    EXPECT_EQ(std::get<0>(one), 3);
    std::tuple<> none = co_await gather();
    (void)none;
  };
  executor.run(body());
}

TEST_F(GatherTest, AVectorGivesAVectorInItsOrder) {
  auto body = []() -> Task<> {
    std::vector<Task<int>> tasks;
    for (int i = 0; i < 50; ++i) tasks.push_back(i % 3 == 0 ? give_later(i) : give(i));
    std::vector<int> results = co_await gather(std::move(tasks));
    EXPECT_EQ(results.size(), 50U);
    for (int i = 0; i < 50; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)], i);
    std::vector<int> none = co_await gather(std::vector<Task<int>>());
    EXPECT_TRUE(none.empty());
    std::vector<Task<void>> voids;
    for (int i = 0; i < 5; ++i) voids.push_back(do_nothing());
    static_assert(std::is_void_v<detail::awaited_t<decltype(gather(std::move(voids)))>>);
    co_await gather(std::move(voids));
    co_await gather(std::vector<Task<void>>());
  };
  executor.run(body());
}

TEST_F(GatherTest, AnyInputRangeOfTasks) {
  auto body = []() -> Task<> {
    std::array<Task<int>, 2> array{give(1), give(2)};
    std::vector<int> a = co_await gather(std::move(array));
    EXPECT_EQ(a, (std::vector<int>{1, 2}));
    std::list<Task<int>> list;
    list.push_back(give(3));
    list.push_back(give(4));
    std::vector<int> b = co_await gather(std::move(list));
    EXPECT_EQ(b, (std::vector<int>{3, 4}));
    auto view = std::views::iota(0, 5) | std::views::transform([](int i) { return give(i); });
    std::vector<int> c = co_await gather(view);
    EXPECT_EQ(c, (std::vector<int>{0, 1, 2, 3, 4}));
    std::vector<int> d = co_await gather(std::views::iota(5, 7) |
                                         std::views::transform([](int i) { return give(i); }));
    EXPECT_EQ(d, (std::vector<int>{5, 6}));
  };
  executor.run(body());
}

// Its starter stands still for a while after others can end it.
struct StandsStillOnceParked : detail::EventWait {
  explicit StandsStillOnceParked(detail::EventWait&& wait) : EventWait(std::move(wait)) {}
  StandsStillOnceParked(StandsStillOnceParked&& other) noexcept : EventWait(std::move(other)) {}
  bool start() noexcept {
    const bool parked = EventWait::start();
    if (parked) std::this_thread::sleep_for(1ms);
    return parked;
  }
};

TEST_F(GatherTest, ARangeOfWaitsMayEndBeforeItsStarterGoesOn) {
  auto waits = [](Event& event) -> Task<> {
    std::vector<StandsStillOnceParked> both;
    for (int i = 0; i < 2; ++i) both.emplace_back(event.wait());
    co_await gather(std::move(both));
  };
  auto sets = [](Event& event) -> Task<> {
    std::this_thread::sleep_for(1500us);  // while the second one stands still, mostly
    event.set();
    co_return;
  };
  auto body = [&]() -> Task<> {
    for (int i = 0; i < 20; ++i) {
      Event event;
      auto waiting = spawn(waits(event));
      auto setting = spawn(sets(event));
      co_await waiting;
      co_await setting;
    }
  };
  executor.run(body());
}

TEST_F(GatherTest, TheChildrenOfAGatherWithinAChildsCallableAreItsOwn) {
  WorkStealingExecutor alone{ExecutorOptions{.threads = 1}};
  Event event;
  int runs = 0;
  auto wait = [&]() -> Task<> { co_await event.wait(); };
  auto set = [&]() -> Task<> {
    event.set();
    co_return;
  };
  auto count = [&]() -> Task<> {
    ++runs;
    co_return;
  };
  // Its two forks lie in the deque when wait() ends, and within the range of the outer children.
  auto holder = [inner = gather(set(), count())]() mutable -> Task<> { (void)co_await inner; };
  auto body = [&]() -> Task<> { co_await gather(wait(), std::move(holder)); };
  alone.run(body());
  EXPECT_EQ(runs, 1);
}

struct Fragile {
  explicit Fragile(Ledger& ledger) : tracked(ledger) {}
  Fragile(Fragile&& other) : tracked(std::move(other.tracked)) {
    if (--moves == 0) throw std::runtime_error("move");
  }
  void operator()() const {}
  Tracked tracked;
  static inline int moves = 0;  // until the one that throws
};

struct alignas(128) OverAligned {
  int value;
};

TEST_F(GatherTest, ARangeThatDoesNotKnowItsSizeMayHaveAnySize) {
  auto body = []() -> Task<> {
    for (const int size : {0, 1, 8, 9, 100}) {
      auto numbers = std::views::iota(0, size) | std::views::filter([](int) { return true; });
      const std::vector<int> results =
          co_await gather(numbers | std::views::transform([](int i) { return give(i); }));
      EXPECT_EQ(results.size(), static_cast<std::size_t>(size));
      for (int i = 0; i < size; ++i) EXPECT_EQ(results[static_cast<std::size_t>(i)], i);
      const auto aligned = co_await gather(
          numbers | std::views::transform([](int i) { return [i] { return OverAligned{i}; }; }));
      for (int i = 0; i < size; ++i) EXPECT_EQ(aligned[static_cast<std::size_t>(i)].value, i);
    }
  };
  executor.run(body());
}

TEST_F(GatherTest, AChildWhoseMoveThrowsAmidARangeTakesNothingAlong) {
  for (int limit = 1; limit < 60; ++limit) {
    Ledger ledger;
    Fragile::moves = limit;
    auto body = [&]() -> Task<> {
      co_await gather(std::views::iota(0, 20) | std::views::filter([](int) { return true; }) |
                      std::views::transform([&](int) { return Fragile(ledger); }));
    };
    try {
      executor.run(body());
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "move");
    }
    EXPECT_EQ(ledger.alive(), 0) << limit;
  }
}

TEST_F(GatherTest, ViewsLeaveHandlesAndCallablesToTheirOwner) {
  auto text = [](char c) -> Task<std::string> { co_return std::string(40, c); };
  std::vector<JoinHandle<std::string>> handles;
  for (char c : {'a', 'b', 'c'}) handles.push_back(executor.spawn(text(c)));
  for (int round = 0; round < 2; ++round) {
    const auto later = executor.run(gather(handles | std::views::drop(1)));
    ASSERT_EQ(later.size(), 2U);
    EXPECT_EQ(later[1], std::string(40, 'c'));
    EXPECT_EQ(executor.run(gather(std::span(handles))).size(), 3U);
  }
  for (const auto& handle : handles) EXPECT_EQ(handle.result().value().size(), 40U);

  std::vector<std::function<int()>> functions(
      3, [s = std::string(50, 'x')] { return static_cast<int>(s.size()); });
  EXPECT_EQ(executor.run(gather(functions | std::views::take(2))), (std::vector<int>{50, 50}));
  for (const auto& function : functions) EXPECT_TRUE(function);
  // A view that owns its range is gone before the gather is awaited.
  auto made = [&] { return gather(std::vector(functions) | std::views::drop(1)); };
  EXPECT_EQ(executor.run(made()), (std::vector<int>{50, 50}));

  auto number = [](int n) -> Task<int> { co_return n; };
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 3; ++i) tasks.push_back(number(i));
  EXPECT_EQ(executor.run(gather(tasks | std::views::drop(1))), (std::vector<int>{1, 2}));
}

TEST_F(GatherTest, ResultsOfAwkwardTypes) {
  int number = 7;
  auto body = [&]() -> Task<> {
    auto [a, b] = co_await gather(give_move_only(1), give_no_default(2));
    EXPECT_EQ(a.value() + b.value, 3);
    std::tuple<int&, int> mixed = co_await gather(give_reference(number), give(1));
    EXPECT_EQ(&std::get<0>(mixed), &number);
    std::vector<Task<MoveOnly>> moves;
    moves.push_back(give_move_only(5));
    std::vector<MoveOnly> moved = co_await gather(std::move(moves));
    EXPECT_EQ(moved[0].value(), 5);
    std::vector<Task<int&>> references;
    references.push_back(give_reference(number));
    std::vector<std::reference_wrapper<int>> wrapped = co_await gather(std::move(references));
    EXPECT_EQ(&wrapped[0].get(), &number);
    auto odd = [](int i) -> Task<bool> { co_return i % 2 == 1; };
    std::vector<bool> bits = co_await gather(std::views::iota(0, 100) | std::views::transform(odd));
    EXPECT_EQ(std::count(bits.begin(), bits.end(), true), 50);
    EXPECT_TRUE(bits[99]);
    std::vector<Task<NoDefault>> plain;
    plain.push_back(give_no_default(6));
    std::vector<NoDefault> got = co_await gather(std::move(plain));
    EXPECT_EQ(got[0].value, 6);
    std::vector<Task<MoveOnly>> again;
    again.push_back(give_move_only(8));
    std::vector<Result<MoveOnly>> results = co_await gather(return_exceptions, std::move(again));
    EXPECT_EQ(results[0].value().value(), 8);
    std::vector<Task<int&>> more;
    more.push_back(give_reference(number));
    std::vector<Result<int&>> referred = co_await gather(return_exceptions, std::move(more));
    EXPECT_EQ(&referred[0].value(), &number);
  };
  executor.run(body());
}

TEST_F(GatherTest, CallablesRunAsChildren) {
  auto named = [] { return 5; };
  auto coroutine = []() -> Task<int> { co_return 6; };
  auto nothing = [] {};
  auto body = [&]() -> Task<> {
    auto [a, b, c, d, e] = co_await gather(named, coroutine, nothing, give(1),
                                           [] { return std::make_unique<int>(9); });
    static_assert(std::is_same_v<decltype(c), std::monostate>);
    EXPECT_EQ(a + b + d + *e, 21);
    auto kept = co_await gather(keep_going, named, coroutine);
    EXPECT_EQ(std::get<1>(kept), 6);
    auto results = co_await gather(return_exceptions, named, nothing, coroutine);
    EXPECT_EQ(std::get<0>(results).value(), 5);
    EXPECT_TRUE(std::get<1>(results).has_value());
    std::vector<std::function<Task<int>()>> functions;
    for (int i = 0; i < 4; ++i) functions.push_back([i] { return give_later(i); });
    std::vector<int> many = co_await gather(std::move(functions));
    EXPECT_EQ(many, (std::vector<int>{0, 1, 2, 3}));
    std::vector<std::function<int()>> plain;
    for (int i = 0; i < 4; ++i) plain.push_back([i] { return i * i; });
    std::vector<int> squares = co_await gather(plain);
    EXPECT_EQ(squares, (std::vector<int>{0, 1, 4, 9}));
  };
  executor.run(body());
}

TEST_F(GatherTest, ACallableThatThrowsIsAFailedChild) {
  auto body = []() -> Task<> {
    auto thrower = []() -> int { throw std::runtime_error("called"); };
    auto results = co_await gather(return_exceptions, thrower, give(1));
    EXPECT_TRUE(std::get<0>(results).is_error());
    EXPECT_EQ(std::get<1>(results).value(), 1);
    bool thrown = false;
    try {
      co_await gather(thrower, give(1));
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    EXPECT_TRUE(thrown);
  };
  executor.run(body());
}

TEST_F(GatherTest, ACallablesCapturesLiveAsLongAsItsTask) {
  Ledger ledger;
  auto body = [&]() -> Task<> {
    Tracked tracked(ledger);
    auto make = [tracked, &ledger]() -> Task<long> {
      co_await sleep_for(100us);
      tracked.touch();
      co_return ledger.alive();
    };
    auto children = gather(std::move(make), give(1));
    auto [alive, one] = co_await std::move(children);
    EXPECT_GE(alive, 2);
    EXPECT_EQ(one, 1);
  };
  executor.run(body());
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_F(GatherTest, HandlesOperationsCombinatorsAndForeignAwaitables) {
  auto body = [&]() -> Task<> {
    JoinHandle<int> lvalue = spawn(give_later(1));
    JoinHandle<int> rvalue = spawn(give_later(2));
    auto [a, b, c, d, e, f] =
        co_await gather(lvalue, std::move(rvalue), sleep_for(50us), OnForeignThread(4),
                        gather(give(5), give(6)), this_task::id());
    static_assert(std::is_same_v<decltype(c), std::monostate>);
    EXPECT_EQ(a + b + d + std::get<0>(e) + std::get<1>(e), 18);
    TaskId mine = co_await this_task::id();
    EXPECT_EQ(f, mine);
    EXPECT_EQ(lvalue.result().value(), 1);  // copied
    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 10; ++i) handles.push_back(spawn(give_later(i)));
    std::vector<int> copied = co_await gather(handles);
    std::vector<int> moved = co_await gather(std::move(handles));
    EXPECT_EQ(copied, moved);
    std::vector<JoinHandle<int>> ended{lvalue, lvalue};
    std::vector<int> twice = co_await gather(ended);
    EXPECT_EQ(twice, (std::vector<int>{1, 1}));
    co_await gather(sleep_for(1us), sleep_for(0s), this_task::yield());
  };
  executor.run(body());
}

TEST_F(GatherTest, MayBeReturnedAndMovedBeforeItIsAwaited) {
  auto make = [] { return gather(give(1), give_later(2)); };
  auto body = [&]() -> Task<int> {
    auto first = make();
    auto second = std::move(first);
    auto [a, b] = co_await std::move(second);
    co_return a + b;
  };
  EXPECT_EQ(executor.run(body()), 3);
}

TEST_F(GatherTest, OneOfARangeThatWasMovedFromIsRefused) {
  auto body = []() -> Task<> {
    for (const int size : {0, 3, 9}) {
      auto first = gather(std::views::iota(0, size) | std::views::filter([](int) { return true; }) |
                          std::views::transform([](int i) { return give(i); }));
      auto second = std::move(first);
      bool refused = false;
      try {
        co_await std::move(first);
      } catch (const std::logic_error&) {
        refused = true;
      }
      EXPECT_TRUE(refused) << size;
      const std::vector<int> results = co_await std::move(second);
      EXPECT_EQ(results.size(), static_cast<std::size_t>(size));
    }
  };
  executor.run(body());
}

TEST_F(GatherTest, AwaitedByItsName) {
  auto body = []() -> Task<int> {
    auto number = [](int n) -> Task<int> { co_return n; };
    auto both = gather(number(1), number(2));
    auto [a, b] = co_await both;
    auto nap = sleep_for(1ms);
    co_await nap;
    co_await nap;  // a sleep can be had again
    co_return a + b;
  };
  EXPECT_EQ(executor.run(body()), 3);
}

TEST_F(GatherTest, VectorOfTasksOfConstValues) {
  auto constant = [](int value) -> Task<const int> { co_return value; };
  std::vector<Task<const int>> tasks;
  for (int i = 0; i < 3; ++i) tasks.push_back(constant(i));
  EXPECT_EQ(executor.run(gather(std::move(tasks))), (std::vector<int>{0, 1, 2}));
}

TEST_F(GatherTest, OneThatIsNeverAwaitedStartsNothingAndFreesItsChildren) {
  Ledger ledger;
  std::atomic<bool> ran{false};
  auto child = [](Tracked tracked, std::atomic<bool>& flag) -> Task<> {
    flag = true;
    tracked.touch();
    co_return;
  };
  {
    auto never = gather(child(Tracked(ledger), ran), child(Tracked(ledger), ran));
    EXPECT_EQ(ledger.alive(), 2);
  }
  EXPECT_EQ(ledger.alive(), 0);
  EXPECT_FALSE(ran.load());
}

TEST_F(GatherTest, AMovedFromTaskIsRefused) {
  Task<int> task = give(1);
  Task<int> taken = std::move(task);
  EXPECT_THROW((void)gather(std::move(task), give(2)), std::logic_error);
}

// --- many ----------------------------------------------------------------------------------------

TEST_F(GatherTest, AHundredThousandChildrenOfEachKind) {
  const std::size_t n = scaled(100'000);
  auto body = [&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (std::size_t i = 0; i < n; ++i) tasks.push_back(give(static_cast<int>(i)));
    std::vector<int> values = co_await gather(std::move(tasks));
    EXPECT_EQ(values.back(), static_cast<int>(n - 1));

    struct Square {
      int i;
      int operator()() const { return i % 100; }
    };
    std::vector<Square> calls;
    for (std::size_t i = 0; i < n; ++i) calls.push_back(Square{static_cast<int>(i)});
    std::vector<int> squares = co_await gather(calls);
    EXPECT_EQ(squares[57], 57);

    struct Make {
      int i;
      Task<int> operator()() const { return i % 2 == 0 ? give(i) : give_later(i); }
    };
    std::vector<Make> makers;
    for (std::size_t i = 0; i < n; ++i) makers.push_back(Make{static_cast<int>(i)});
    std::vector<int> made = co_await gather(std::move(makers));
    EXPECT_EQ(made.back(), static_cast<int>(n - 1));

    std::vector<detail::SleepOperation> sleeps;
    for (std::size_t i = 0; i < n; ++i)
      sleeps.push_back(sleep_for(std::chrono::microseconds(i % 200)));
    co_await gather(std::move(sleeps));

    auto target = spawn(give_later(3));
    std::vector<JoinHandle<int>> handles(n, target);
    std::vector<int> joined = co_await gather(handles);
    EXPECT_EQ(joined.back(), 3);
  };
  executor.run(body());
}

TEST_F(GatherTest, AHundredThousandChildrenAreCancelledTogether) {
  const std::size_t n = scaled(100'000);
  Ledger ledger;
  std::atomic<std::size_t> started{0};
  auto child = [](Tracked tracked, std::atomic<std::size_t>& count) -> Task<int> {
    tracked.touch();
    ++count;
    co_await sleep_for(1h);
    co_return 0;
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<int>> tasks;
    for (std::size_t i = 0; i < n; ++i) tasks.push_back(child(Tracked(ledger), started));
    co_await gather(std::move(tasks));
  };
  auto handle = executor.spawn(body());
  EXPECT_TRUE(eventually([&] { return started.load() == n; }));
  handle.cancel();
  handle.wait();
  EXPECT_TRUE(handle.cancelled());
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_F(GatherTest, AHundredThousandChildrenMayAllFail) {
  const std::size_t n = scaled(100'000);
  auto child = []() -> Task<int> {
    co_await this_task::yield();
    throw 1;
  };
  for (int policy = 0; policy < 3; ++policy) {
    auto body = [&]() -> Task<int> {
      std::vector<Task<int>> tasks;
      for (std::size_t i = 0; i < n; ++i) tasks.push_back(child());
      try {
        if (policy == 0) {
          co_await gather(std::move(tasks));
        } else if (policy == 1) {
          co_await gather(keep_going, std::move(tasks));
        } else {
          auto results = co_await gather(return_exceptions, std::move(tasks));
          co_return results.back().is_error() ? 1 : 0;
        }
      } catch (int thrown) {
        co_return thrown;
      }
      co_return 0;
    };
    EXPECT_EQ(executor.run(body()), 1);
  }
}

TEST_F(GatherTest, WideAndDeepTreesOnManyThreads) {
  WorkStealingExecutor wide({.threads = 8});
  struct Tree {
    static Task<long> of(int depth, int width) {
      if (depth == 0) {
        if (width % 2 == 0) co_await this_task::yield();
        co_return 1;
      }
      std::vector<Task<long>> below;
      for (int i = 0; i < width; ++i) below.push_back(of(depth - 1, width));
      std::vector<long> counts = co_await gather(std::move(below));
      long sum = 0;
      for (long count : counts) sum += count;
      co_return sum;
    }
  };
  EXPECT_EQ(wide.run(Tree::of(scaled(20) > 5 ? 6 : 4, 6)), scaled(20) > 5 ? 46656 : 1296);
  EXPECT_EQ(wide.run(Tree::of(scaled(20) > 5 ? 15 : 10, 2)), scaled(20) > 5 ? 32768 : 1024);
}

}  // namespace
}  // namespace magpie
