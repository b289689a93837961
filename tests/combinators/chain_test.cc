// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// chain: what api.md, section 6, says of it.

#include <magpie/chain.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/retry.h>
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

class ChainTest : public OnMachine {};

Task<int> plus_one(int value) {
  co_await sleep_for(1s);
  co_return value + 1;
}
int twice(int value) {
  return 2 * value;
}
Task<std::string> as_text(int value) {
  co_return std::to_string(value);
}

TEST_ON_THREADS(ChainTest, FeedsEachResultToTheNextStep) {
  machine.run([&]() -> Task<> {
    const std::string text = co_await chain(give_after(1s, 1), plus_one, twice, plus_one, as_text);
    EXPECT_EQ(text, "5");
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(ChainTest, NoStepAndOneStep) {
  machine.run([&]() -> Task<> {
    const int same = co_await chain(give(3));
    EXPECT_EQ(same, 3);
    const int doubled = co_await chain(give(3), twice);
    EXPECT_EQ(doubled, 6);
    co_await chain(nothing());
  });
}

TEST_ON_THREADS(ChainTest, StepsWithoutValues) {
  machine.run([&]() -> Task<> {
    std::vector<std::string> done;
    auto keep = [&](int value) { done.push_back("keep " + std::to_string(value)); };
    auto nothing_then = [&]() -> Task<> {
      done.push_back("task");
      co_return;
    };
    auto plain = [&] { done.push_back("plain"); };
    auto value = [] { return 7; };
    const int seven = co_await chain(give(1), keep, nothing_then, plain, value);
    EXPECT_EQ(seven, 7);
    co_await chain(nothing(), plain, nothing_then);
    EXPECT_EQ(done, (std::vector<std::string>{"keep 1", "task", "plain", "plain", "task"}));
  });
}

TEST_ON_THREADS(ChainTest, EveryKindOfValue) {
  machine.run([&]() -> Task<> {
    auto open = [](int value) -> Task<MoveOnly> { co_return MoveOnly(value); };
    auto add = [](MoveOnly value) { return MoveOnly(value.value() + 1); };
    auto look = [](const MoveOnly& value) { return NoDefault(value.value()); };
    auto wrap = [](NoDefault&& value) { return std::make_unique<int>(value.value); };
    std::unique_ptr<int> result = co_await chain(give(1), open, add, look, wrap);
    EXPECT_EQ(*result, 2);
    int here = 1;
    auto refer = [&]() -> Task<int&> { co_return here; };
    auto same = [](int& value) -> int& { return ++value; };
    auto later = [](int& value) -> Task<int&> {
      ++value;
      co_return value;
    };
    int& reference = co_await chain(refer(), same, later);
    EXPECT_EQ(&reference, &here);
    EXPECT_EQ(here, 3);
    const std::size_t length = co_await chain(give_text("four"), &std::string::size);
    EXPECT_EQ(length, 4u);
    std::function<Task<int>(int)> stored = plus_one;
    const int two = co_await chain(give(1), stored);
    EXPECT_EQ(two, 2);
  });
}

TEST_ON_THREADS(ChainTest, PartOfTheValueIsTakenAsAnObject) {
  struct Page {
    std::string title;
    MoveOnly body;
  };
  auto fetch = []() -> Task<Page> { co_return Page{std::string(100, 't'), MoveOnly(3)}; };
  auto body_of = [](Page&& page) -> MoveOnly&& { return std::move(page.body); };
  machine.run([&]() -> Task<> {
    const std::string title = co_await chain(fetch(), &Page::title);
    EXPECT_EQ(title, std::string(100, 't'));
    const std::size_t length = co_await chain(fetch(), &Page::title, &std::string::size);
    EXPECT_EQ(length, 100u);
    const MoveOnly body = co_await chain(fetch(), body_of);
    EXPECT_EQ(body.value(), 3);
  });
}

TEST_ON_THREADS(ChainTest, MemberBehindAPointerThatDiesWithTheValueIsCopied) {
  struct Page {
    explicit Page(std::string text) : title(std::move(text)) {}
    std::string title;
  };
  const std::string text(100, 't');
  Page kept(text);
  auto fetch = [](std::string title) -> Task<std::unique_ptr<Page>> {
    co_return std::make_unique<Page>(std::move(title));
  };
  auto find = [](Page* page) -> Task<Page*> { co_return page; };
  machine.run([&]() -> Task<> {
    auto&& title = co_await chain(fetch(text), &Page::title);
    static_assert(std::is_same_v<decltype(title), std::string&&>);
    EXPECT_EQ(title, text);
    auto shared = chain(
        fetch(text),
        [](std::unique_ptr<Page> page) { return std::shared_ptr<Page>(std::move(page)); },
        &Page::title);
    static_assert(std::is_same_v<decltype(shared)::value_type, std::string>);
    const std::string of_shared = co_await std::move(shared);
    EXPECT_EQ(of_shared, text);
    // What the chain does not own stays where it is.
    std::string& in_place = co_await chain(find(&kept), &Page::title);
    EXPECT_EQ(&in_place, &kept.title);
    auto wrap = [](Page* page) { return std::ref(*page); };
    std::string& wrapped = co_await chain(find(&kept), wrap, &Page::title);
    EXPECT_EQ(&wrapped, &kept.title);
    auto refer = [](Page* page) -> Page& { return *page; };
    std::string& referred = co_await chain(find(&kept), refer, &Page::title);
    EXPECT_EQ(&referred, &kept.title);
  });
}

TEST_ON_THREADS(ChainTest, TasksAndStepsMayBeAnyAwaitable) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(give_after(1s, 4));
    auto rest = [](int value) { return gather(give(value), give(value + 1)); };
    auto second = [](std::tuple<int, int> pair) { return std::get<1>(pair); };
    const int five = co_await chain(handle, rest, second);
    EXPECT_EQ(five, 5);
    auto pause = [](int) { return sleep_for(1s); };
    auto again = [] { return chain(give(1), plus_one); };
    const int two = co_await chain(give(1), pause, again);
    EXPECT_EQ(two, 2);
    auto foreign = [](int value) { return OnForeignThread(value); };
    const int home = co_await chain(give(6), foreign, twice);
    EXPECT_EQ(home, 12);
    const auto size = co_await chain(ReadyRvalue(3), &std::vector<int>::size);
    EXPECT_EQ(size, 3u);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(ChainTest, StepsLiveUntilTheChainHasEnded) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&] {
      auto first = [kept = Tracked(ledger)](int value) -> Task<int> {
        co_await sleep_for(1ms);  // the closure is used after a suspension
        kept.touch();
        co_return value + 1;
      };
      auto second = [kept = Tracked(ledger)](int value) {
        kept.touch();
        return value * 10;
      };
      return chain(give(1), std::move(first), std::move(second));
    };
    auto later = make();
    auto moved = std::move(later);
    const int value = co_await std::move(moved);
    EXPECT_EQ(value, 20);
  });
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(ChainTest, StepsGivenAsLvaluesAreCalledInPlace) {
  struct Counter {
    int calls = 0;
    Counter() = default;
    Counter(const Counter&) = delete;
    int operator()(int value) {
      ++calls;
      return value;
    }
  };
  Counter counter;
  machine.run([&]() -> Task<> { co_await chain(give(1), counter, counter); });
  EXPECT_EQ(counter.calls, 2);
}

TEST_ON_THREADS(ChainTest, ValueLivesUntilTheTaskThatGotItHasEnded) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&]() -> Task<Tracked> { co_return Tracked(ledger); };
    auto use = [&](const Tracked& value) -> Task<int> {
      co_await sleep_for(1s);
      value.touch();
      EXPECT_EQ(ledger.alive(), 1);
      co_return 1;
    };
    auto after = [&](int) -> Task<int> {
      EXPECT_EQ(ledger.alive(), 0);  // and not longer
      co_return 2;
    };
    const int two = co_await chain(make(), use, after);
    EXPECT_EQ(two, 2);
  });
}

// --- failures ------------------------------------------------------------------------------------

TEST_ON_THREADS(ChainTest, FirstFailureEndsIt) {
  machine.run([&]() -> Task<> {
    bool ran = false;
    auto never_called = [&](int value) {
      ran = true;
      return value;
    };
    Result<int> first = co_await as_result(chain(fail("first"), never_called));
    EXPECT_EQ(what_of(first.error()), "first");
    auto fails = [](int) -> Task<int> { return fail_after(1s, "step"); };
    Result<int> step = co_await as_result(chain(give(1), fails, never_called, never_called));
    EXPECT_EQ(what_of(step.error()), "step");
    auto throws = [](int) -> int { throw std::runtime_error("plain step"); };
    Result<int> plain = co_await as_result(chain(give(1), throws, never_called));
    EXPECT_EQ(what_of(plain.error()), "plain step");
    auto makes_none = [](int) -> Task<int> { throw std::runtime_error("no task"); };
    Result<int> none = co_await as_result(chain(give(1), makes_none));
    EXPECT_EQ(what_of(none.error()), "no task");
    EXPECT_FALSE(ran);
    auto cancels = [](int) -> Task<int> { return cancel_itself("mine"); };
    Result<int> cancelled = co_await as_result(chain(give(1), cancels, never_called));
    EXPECT_EQ(reason_of(cancelled.error()).message, "mine");
    EXPECT_FALSE(ran);
  });
}

TEST_ON_THREADS(ChainTest, StepsThatGiveNoTaskAreMisuse) {
  machine.run([&]() -> Task<> {
    auto empty = [](int) { return Task<int>(); };
    Result<int> r = co_await as_result(chain(give(1), empty));
    EXPECT_TRUE(is<std::logic_error>(r.error()));
    Result<int> first = co_await as_result(chain(Task<int>(), twice));
    EXPECT_TRUE(is<std::logic_error>(first.error()));
  });
}

TEST_ON_THREADS(ChainTest, ValueWhoseMoveThrowsIsAnError) {
  struct Explosive {
    explicit Explosive(int) {}
    Explosive(Explosive&&) { throw std::runtime_error("moved"); }
  };
  machine.run([&]() -> Task<> {
    auto make = [](int value) -> Explosive { return Explosive(value); };
    auto use = [](const Explosive&) { return 1; };
    Result<int> r = co_await as_result(chain(give(1), make, use));
    EXPECT_EQ(what_of(r.error()), "moved");
  });
}

// --- cancellation and time -----------------------------------------------------------------------

TEST_ON_THREADS(ChainTest, StartsNothingInACancelledScope) {
  bool ran = false;
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("early");
      Result<int> r = co_await as_result(chain(started(ran), twice));
      EXPECT_EQ(reason_of(r.error()).message, "early");
    };
    co_await cancel_scope(block);
  });
  EXPECT_FALSE(ran);
}

TEST_ON_THREADS(ChainTest, CancelledWithinAStepTheRestIsNotCalled) {
  std::atomic<int> calls{0};
  machine.run([&]() -> Task<> {
    auto step = [&](int value) -> Task<int> {
      ++calls;
      co_await sleep_for(1s);
      co_return value;
    };
    JoinHandle<int> handle = executor.spawn(chain(give(1), step, step, step));
    co_await sleep_for(1500ms);
    handle.cancel("enough");
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(reason_of(r.error()).message, "enough");
  });
  EXPECT_EQ(calls.load(), 2);
  EXPECT_EQ(machine.elapsed(), 1500ms);
}

TEST_ON_THREADS(ChainTest, ValueThatIsThereInSpiteOfACancellationGoesOn) {
  machine.run([&]() -> Task<> {
    JoinHandle<int> handle = executor.spawn(chain(stubborn(1s, 4), twice));
    co_await sleep_for(1ms);
    handle.cancel();
    Result<int> r = co_await as_result(handle);
    EXPECT_EQ(r.value(), 8);
  });
}

TEST_ON_THREADS(ChainTest, TimeoutAroundIt) {
  machine.run([&]() -> Task<> {
    auto slow = chain(give(1), plus_one, plus_one, plus_one);
    Result<int> r = co_await try_timeout(std::move(slow), 2500ms);
    EXPECT_TRUE(r.is_timeout());
    Result<int> good = co_await try_timeout(chain(give(1), plus_one), 2s);
    EXPECT_EQ(good.value(), 2);
  });
  EXPECT_EQ(machine.elapsed(), 3500ms);
}

TEST_ON_THREADS(ChainTest, ResumesWhereItWasAwaited) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    auto away = [&](int value) -> Task<int> {
      co_await resume_on(other);
      co_return value;
    };
    auto there = [&](int value) -> Task<int> {
      Executor& here = co_await this_task::executor();
      EXPECT_EQ(&here, &other);
      co_return value;
    };
    const int value = co_await chain(give(1), away, there, twice);
    EXPECT_EQ(value, 2);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(ChainTest, ParallelChains) {
  machine.run([&]() -> Task<> {
    auto [a, b, c] =
        co_await gather(chain(give(1), plus_one, plus_one), chain(give(2), plus_one, plus_one),
                        chain(give(3), plus_one, plus_one));
    EXPECT_EQ(a + b + c, 3 + 4 + 5);
    auto first = co_await race(chain(give(1), plus_one), chain(give(2), twice));
    EXPECT_EQ(first.index, 1u);
    auto factory = [] { return chain(give(1), plus_one); };
    const int two = co_await retry(factory);
    EXPECT_EQ(two, 2);
  });
  EXPECT_EQ(machine.elapsed(), 3s);
}

TEST_ON_THREADS(ChainTest, HundredThousandChains) {
  const std::size_t many = scaled(100'000);
  machine.run([&]() -> Task<> {
    auto step = [](int value) -> Task<int> {
      co_await sleep_for(1s);
      co_return value + 1;
    };
    using One = decltype(chain(give(0), step, twice));
    std::vector<One> chains;
    for (std::size_t i = 0; i < many; ++i) chains.push_back(chain(give(0), step, twice));
    const std::vector<int> twos = co_await gather(std::move(chains));
    EXPECT_EQ(std::count(twos.begin(), twos.end(), 2), static_cast<std::ptrdiff_t>(many));
    // One after the other, without growing the stack.
    int sum = 0;
    for (std::size_t i = 0; i < many; ++i)
      sum += co_await chain(give(0), twice, as_text, &std::string::size) == 1 ? 1 : 0;
    EXPECT_EQ(sum, static_cast<int>(many));
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

// --- at any moment -------------------------------------------------------------------------------

template <class E>
void cancel_somewhere(E& executor, std::uint64_t after) {
  Ledger ledger;
  std::atomic<int> running{0};
  auto main = [&]() -> Task<> {
    auto make = [&]() -> Task<Tracked> {
      co_await this_task::yield();
      co_return Tracked(ledger);
    };
    auto step = [&](const Tracked& value) -> Task<Tracked> {
      ++running;
      Result<void> rest = co_await as_result(this_task::yield());
      --running;
      value.touch();
      std::move(rest).value();
      co_return Tracked(ledger);
    };
    auto body = [&]() -> Task<> { co_await chain(make(), step, step, step); };
    JoinHandle<void> handle = spawn(body());
    for (std::uint64_t i = 0; i < after; ++i) co_await this_task::yield();
    handle.cancel("now");
    Result<void> r = co_await as_result(handle);
    EXPECT_TRUE(r.has_value() || reason_of(r.error()).message == "now");
    EXPECT_EQ(running.load(), 0);
    EXPECT_EQ(ledger.alive(), 0);
  };
  executor.run(main());
}

TEST(ChainInASimulation, CancelledAtAnyStep) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    cancel_somewhere(executor, executor.seed() % 12);
    if (::testing::Test::HasFailure()) throw std::runtime_error("see above");
  });
}

TEST(ChainAcrossThreads, CancelledAtAnyTime) {
  WorkStealingExecutor workers({.threads = 3});
  for (std::uint64_t i = 0; i < scaled(4000); ++i) cancel_somewhere(workers, i % 10);
}

}  // namespace
}  // namespace magpie
