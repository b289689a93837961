// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// batch: what api.md, section 6, says of it. Batcher: batcher_test.cc.

#include <magpie/batch.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <forward_list>
#include <memory>
#include <mutex>
#include <ranges>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/resume_on.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class Batch : public OnMachine {};

std::vector<int> numbers(int n) {
  std::vector<int> all;
  for (int i = 0; i < n; ++i) all.push_back(i);
  return all;
}

TEST_ON_THREADS(Batch, ResultsAreInTheOrderOfTheItems) {
  const std::vector<int> items = numbers(10);
  machine.run([&]() -> Task<> {
    auto work = [](int item) {
      return give_after(std::chrono::milliseconds(10 - item), item * item);
    };
    const std::vector<int> squares = co_await batch(items, 4, work);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(squares.at(static_cast<std::size_t>(i)), i * i);
    EXPECT_EQ(squares.size(), 10u);
  });
  EXPECT_EQ(machine.elapsed(), 10ms + 6ms + 2ms);  // as long as the slowest of each batch
}

TEST_ON_THREADS(Batch, PausesBetweenBatchesAndNotAfterTheLast) {  // B198
  for (const int count : {7, 9}) {
    Machine fresh(threads);
    std::mutex mutex;
    std::vector<std::chrono::nanoseconds> starts;
    fresh.run([&]() -> Task<> {
      auto work = [&](int item) -> Task<int> {
        {
          std::lock_guard guard(mutex);
          starts.push_back(fresh.elapsed());
        }
        co_await sleep_for(1s);
        co_return item;
      };
      co_await batch(numbers(count), 3, work, BatchOptions().pause(100ms));
    });
    ASSERT_EQ(starts.size(), static_cast<std::size_t>(count));
    std::sort(starts.begin(), starts.end());
    for (std::size_t i = 0; i < starts.size(); ++i) {
      EXPECT_EQ(starts[i], static_cast<int>(i / 3) * 1100ms) << i;
    }
    EXPECT_EQ(fresh.elapsed(), 3 * 1s + 2 * 100ms) << count;
  }
}

TEST_ON_THREADS(Batch, NoItemsOneItemAndOneBatch) {
  machine.run([&]() -> Task<> {
    auto work = [](int item) { return give(item + 1); };
    const std::vector<int> none =
        co_await batch(std::vector<int>(), 3, work, BatchOptions().pause(1s));
    EXPECT_TRUE(none.empty());
    const std::vector<int> one = co_await batch(numbers(1), 3, work, BatchOptions().pause(1s));
    EXPECT_EQ(one, std::vector<int>{1});
    const std::vector<int> all =
        co_await batch(numbers(3), SIZE_MAX, work, BatchOptions().pause(1s));
    EXPECT_EQ(all, (std::vector<int>{1, 2, 3}));
    const std::vector<int> single = co_await batch(numbers(3), 1, work);
    EXPECT_EQ(single, (std::vector<int>{1, 2, 3}));
  });
  EXPECT_EQ(machine.elapsed(), 0s);
}

TEST_ON_THREADS(Batch, BatchesOfNothingAreMisuse) {
  bool called = false;
  machine.run([&]() -> Task<> {
    auto work = [&](int item) {
      called = true;
      return give(item);
    };
    Result<std::vector<int>> r = co_await as_result(batch(numbers(3), 0, work));
    EXPECT_TRUE(is<std::invalid_argument>(r.error()));
    Result<std::vector<int>> empty = co_await as_result(batch(numbers(0), 0, work));
    EXPECT_TRUE(is<std::invalid_argument>(empty.error()));
  });
  EXPECT_FALSE(called);
}

TEST_ON_THREADS(Batch, EveryKindOfValue) {
  machine.run([&]() -> Task<> {
    auto moves = [](int item) -> Task<MoveOnly> { co_return MoveOnly(item); };
    std::vector<MoveOnly> moved = co_await batch(numbers(5), 2, moves);
    EXPECT_EQ(moved.at(4).value(), 4);
    auto fixed = [](int item) -> Task<NoDefault> { co_return NoDefault(item); };
    std::vector<NoDefault> without = co_await batch(numbers(5), 2, fixed);
    EXPECT_EQ(without.at(4).value, 4);
    std::vector<int> items = numbers(5);
    auto refers = [](int& item) -> Task<int&> { co_return item; };
    std::vector<std::reference_wrapper<int>> references = co_await batch(items, 2, refers);
    EXPECT_EQ(&references.at(3).get(), &items[3]);
    auto odd = [](int item) -> Task<bool> { co_return item % 2 == 1; };
    std::vector<bool> bits = co_await batch(numbers(5), 2, odd);
    EXPECT_EQ(bits, (std::vector<bool>{false, true, false, true, false}));
    std::atomic<int> sum{0};
    auto nothing_much = [&](int item) -> Task<> {
      sum += item;
      co_return;
    };
    co_await batch(numbers(5), 2, nothing_much);
    EXPECT_EQ(sum.load(), 10);
    std::vector<JoinHandle<int>> handles;
    for (int i = 0; i < 5; ++i) handles.push_back(executor.spawn(give_after(1s, i)));
    auto wait_for = [](JoinHandle<int>& handle) { return handle; };
    const std::vector<int> joined = co_await batch(handles, 2, wait_for);
    EXPECT_EQ(joined, numbers(5));
  });
}

// --- items ---------------------------------------------------------------------------------------

TEST_ON_THREADS(Batch, ItemsOfAnLvalueAreReferencedThoseOfAnRvalueMovedFrom) {
  machine.run([&]() -> Task<> {
    std::vector<std::unique_ptr<int>> here;
    for (int i = 0; i < 3; ++i) here.push_back(std::make_unique<int>(i));
    auto looks = [](const std::unique_ptr<int>& item) -> Task<int> {
      co_await sleep_for(1ms);
      co_return *item;
    };
    const std::vector<int> seen = co_await batch(here, 2, looks);
    EXPECT_EQ(seen, numbers(3));
    EXPECT_NE(here[0], nullptr);
    auto takes = [](std::unique_ptr<int> item) -> Task<int> {
      co_await sleep_for(1ms);
      co_return *item;
    };
    const std::vector<int> taken = co_await batch(std::move(here), 2, takes);
    EXPECT_EQ(taken, numbers(3));
    // A view is an rvalue here, and what it shows is not.
    std::vector<std::string> words = {"a rather long word that is not kept in place", "b"};
    auto copies = [](std::string word) -> Task<std::size_t> { co_return word.size(); };
    co_await batch(std::views::all(words), 1, copies);
    EXPECT_EQ(words[0].size(), 44u);
    const std::array<int, 3> fixed = {1, 2, 3};
    auto same = [](const int& item) -> Task<const int*> { co_return &item; };
    const std::vector<const int*> places = co_await batch(fixed, 2, same);
    EXPECT_EQ(places[2], &fixed[2]);
  });
}

TEST_ON_THREADS(Batch, ItemsMadeOnTheWayLiveUntilTheirTasksHaveEnded) {
  machine.run([&]() -> Task<> {
    auto make = [](int i) {
      return "a text that is long enough for the heap: " + std::to_string(i);
    };
    auto last = [](const std::string& text) -> Task<char> {
      co_await sleep_for(1ms);
      co_return text.back();
    };
    const std::vector<char> ends =
        co_await batch(std::views::iota(0, 5) | std::views::transform(make), 2, last);
    EXPECT_EQ(ends, (std::vector<char>{'0', '1', '2', '3', '4'}));
    std::istringstream words("one two three four five");
    const std::vector<char> letters =
        co_await batch(std::ranges::istream_view<std::string>(words), 2, last);
    EXPECT_EQ(letters, (std::vector<char>{'e', 'o', 'e', 'r', 'e'}));
    std::forward_list<int> list = {1, 2, 3};
    auto twice = [](int item) { return give(2 * item); };
    const std::vector<int> doubled = co_await batch(list, 2, twice);
    EXPECT_EQ(doubled, (std::vector<int>{2, 4, 6}));
  });
}

TEST_ON_THREADS(Batch, ClassesOfItemsMayForbidNewAndTheirAddress) {
  struct Item {
    explicit Item(int number) : value(number) {}
    static void* operator new(std::size_t) = delete;
    void operator&() const = delete;
    int value;
  };
  auto make = [](int i) { return Item(i); };
  auto fn = [](const Item& item) -> Task<int> {
    co_await sleep_for(1s);
    co_return item.value;
  };
  machine.run([&]() -> Task<> {
    auto items = std::views::iota(0, 3) | std::views::transform(make);
    const std::vector<int> values = co_await batch(items, 2, fn);
    EXPECT_EQ(values, (std::vector<int>{0, 1, 2}));
  });
}

TEST_ON_THREADS(Batch, RangeIsReadOneBatchAtATime) {
  machine.run([&]() -> Task<> {
    int made = 0;
    std::mutex mutex;
    std::vector<int> seen;
    auto count = [&](int i) {
      ++made;
      return i;
    };
    auto work = [&](int item) -> Task<int> {
      std::lock_guard guard(mutex);
      seen.push_back(made);
      co_return item;
    };
    std::istringstream numbers_in("0 1 2 3 4 5 6");
    auto items = std::ranges::istream_view<int>(numbers_in) | std::views::transform(count);
    co_await batch(std::move(items), 3, work);
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, (std::vector<int>{3, 3, 3, 6, 6, 6, 7}));
  });
}

// A range that can be read once, over references to what cannot be copied.
struct Once {
  using value_type = std::unique_ptr<int>;
  using difference_type = std::ptrdiff_t;
  value_type& operator*() const { return *at; }
  Once& operator++() { return ++at, *this; }
  void operator++(int) { ++at; }
  friend bool operator==(const Once& a, const value_type* end) { return a.at == end; }
  value_type* at;
};

TEST_ON_THREADS(Batch, WhatPassesByOnceAndCannotBeCopiedIsMoved) {
  machine.run([&]() -> Task<> {
    std::unique_ptr<int> items[5];
    for (int i = 0; i < 5; ++i) items[i] = std::make_unique<int>(i);
    auto work = [](std::unique_ptr<int>& item) { return give(*item); };
    std::ranges::subrange all(Once{items}, static_cast<const std::unique_ptr<int>*>(items + 5));
    static_assert(!std::ranges::forward_range<decltype(all)>);
    const std::vector<int> results = co_await batch(all, 2, work);
    EXPECT_EQ(results, (std::vector<int>{0, 1, 2, 3, 4}));
  });
}

TEST_ON_THREADS(Batch, RangeThatThrowsEndsIt) {
  machine.run([&]() -> Task<> {
    std::atomic<int> ran{0};
    auto check = [](int i) {
      if (i == 5) throw std::runtime_error("no fifth");
      return i;
    };
    auto work = [&](int item) -> Task<int> {
      ++ran;
      co_return item;
    };
    auto items = std::views::iota(0, 9) | std::views::transform(check);
    Result<std::vector<int>> r = co_await as_result(batch(items, 2, work));
    EXPECT_EQ(what_of(r.error()), "no fifth");
    EXPECT_EQ(ran.load(), 4);
    auto refuses = [&](int item) -> Task<int> {
      if (item == 3) throw std::runtime_error("no task");
      return work(item);
    };
    Result<std::vector<int>> calls = co_await as_result(batch(numbers(9), 2, refuses));
    EXPECT_EQ(what_of(calls.error()), "no task");
    EXPECT_EQ(ran.load(), 6);  // none of the second batch
  });
}

TEST_ON_THREADS(Batch, FunctionAndItemsLiveUntilTheEnd) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    auto make = [&] {
      std::vector<Tracked> items;
      for (int i = 0; i < 5; ++i) items.emplace_back(ledger);
      auto work = [kept = Tracked(ledger)](const Tracked& item) -> Task<int> {
        co_await sleep_for(1ms);
        kept.touch();
        item.touch();
        co_return 1;
      };
      return batch(std::move(items), 2, std::move(work));
    };
    auto later = make();
    const std::vector<int> ones = co_await std::move(later);
    EXPECT_EQ(ones.size(), 5u);
    auto never_awaited = make();
  });
  EXPECT_EQ(ledger.alive(), 0);
}

// --- failures and cancellation -------------------------------------------------------------------

TEST_ON_THREADS(Batch, FirstFailureCancelsItsBatchAndEndsIt) {  // B198
  std::atomic<int> began{0};
  machine.run([&]() -> Task<> {
    auto work = [&](int item) -> Task<int> {
      ++began;
      if (item == 4) co_return co_await fail_after(1s, "the fifth");
      if (item > 2) co_return co_await never();
      co_return item;
    };
    Result<std::vector<int>> r =
        co_await as_result(batch(numbers(20), 3, work, BatchOptions().pause(1s)));
    EXPECT_EQ(what_of(r.error()), "the fifth");
  });
  EXPECT_EQ(began.load(), 6);
  EXPECT_EQ(machine.elapsed(), 2s);
}

TEST_ON_THREADS(Batch, AllFailTheFirstIsThrown) {
  machine.run([&]() -> Task<> {
    auto work = [](int item) { return fail_after(1ms * (5 - item), std::to_string(item)); };
    Result<std::vector<int>> r = co_await as_result(batch(numbers(5), 3, work));
    EXPECT_EQ(what_of(r.error()), "2");
  });
}

TEST_ON_THREADS(Batch, CancelledFromOutside) {
  std::atomic<int> began{0};
  machine.run([&]() -> Task<> {
    auto work = [&](int item) -> Task<int> {
      ++began;
      co_await sleep_for(1s);
      co_return item;
    };
    // Within a batch, and within a pause.
    for (const auto when : {500ms, 1500ms}) {
      JoinHandle<std::vector<int>> handle =
          executor.spawn(batch(numbers(9), 3, work, BatchOptions().pause(1s)));
      co_await sleep_for(when);
      handle.cancel("outside");
      Result<std::vector<int>> r = co_await as_result(handle);
      EXPECT_EQ(reason_of(r.error()).message, "outside");
    }
  });
  EXPECT_EQ(began.load(), 6);
  EXPECT_EQ(machine.elapsed(), 2s);
  EXPECT_EQ(executor.stats().pending_timers, 0u);
}

TEST_ON_THREADS(Batch, NothingIsReadOrStartedInACancelledScope) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      bool called = false;
      auto work = [&](int item) {
        called = true;
        return give(item);
      };
      Result<std::vector<int>> r = co_await as_result(batch(numbers(3), 2, work));
      EXPECT_TRUE(r.is_cancelled());
      std::istringstream in("1 2 3");
      Result<std::vector<int>> once =
          co_await as_result(batch(std::ranges::istream_view<int>(in), 2, work));
      EXPECT_TRUE(once.is_cancelled());
      int first = 0;
      in >> first;
      EXPECT_EQ(first, 1);
      EXPECT_FALSE(called);
      const std::vector<int> none =
          co_await batch(numbers(0), 2, work);  // not a cancellation point
      EXPECT_TRUE(none.empty());
    };
    Result<void> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.has_value());
  });
}

TEST_ON_THREADS(Batch, NoFurtherBatchAfterACancellationThatWasSwallowed) {
  machine.run([&]() -> Task<> {
    std::atomic<int> began{0};
    auto work = [&](int item) -> Task<int> {
      ++began;
      return forgiving(item);
    };
    JoinHandle<std::vector<int>> handle = executor.spawn(batch(numbers(6), 2, work));
    co_await sleep_for(1s);
    handle.cancel();
    Result<std::vector<int>> r = co_await as_result(handle);
    EXPECT_TRUE(r.is_cancelled());
    EXPECT_EQ(began.load(), 2);
    JoinHandle<std::vector<int>> last = executor.spawn(batch(numbers(2), 2, work));
    co_await sleep_for(1s);
    last.cancel();  // the only batch: all of its values are there
    Result<std::vector<int>> all = co_await as_result(last);
    EXPECT_EQ(all.value(), numbers(2));
  });
}

TEST_ON_THREADS(Batch, TimeoutAroundIt) {
  machine.run([&]() -> Task<> {
    auto work = [](int item) { return give_after(1s, item); };
    Result<std::vector<int>> r =
        co_await try_timeout(batch(numbers(9), 2, work, BatchOptions().pause(1s)), 3500ms);
    EXPECT_TRUE(r.is_timeout());
  });
  EXPECT_EQ(machine.elapsed(), 3500ms);
}

TEST_ON_THREADS(Batch, ResumesWhereItWasAwaited) {
  WorkStealingExecutor other({.threads = 1});
  machine.run([&]() -> Task<> {
    auto away = [&](int item) -> Task<int> {
      co_await resume_on(other);
      co_return item;
    };
    co_await batch(numbers(4), 2, away);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(Batch, HundredThousandItems) {
  const int many = static_cast<int>(scaled(100'000));
  machine.run([&]() -> Task<> {
    auto work = [](int item) { return give(item); };
    for (const std::size_t size : {std::size_t{1}, std::size_t{100}, std::size_t{1'000'000}}) {
      const std::vector<int> all = co_await batch(std::views::iota(0, many), size, work);
      EXPECT_EQ(all.size(), static_cast<std::size_t>(many));
      EXPECT_EQ(all.back(), many - 1);
    }
  });
}

// --- at any moment -------------------------------------------------------------------------------

template <class E>
void end_somewhere(E& executor, std::uint64_t seed) {
  Ledger ledger;
  std::atomic<int> running{0};
  const int failing = static_cast<int>(seed % 11);
  auto main = [&]() -> Task<> {
    auto work = [&](const Tracked& item) -> Task<int> {
      const int name = ++running;
      Result<void> rest = co_await as_result(this_task::yield());
      item.touch();
      --running;
      if (name == failing) throw std::runtime_error("this one");
      std::move(rest).value();
      co_return 1;
    };
    auto body = [&]() -> Task<std::size_t> {
      std::vector<Tracked> items;
      for (int i = 0; i < 7; ++i) items.emplace_back(ledger);
      std::vector<int> ones = co_await batch(std::move(items), 3, work, BatchOptions().pause(1us));
      co_return ones.size();
    };
    JoinHandle<std::size_t> handle = spawn(body());
    for (std::uint64_t i = 0; i < seed % 17; ++i) co_await this_task::yield();
    if (seed % 2 == 0) handle.cancel();
    Result<std::size_t> r = co_await as_result(handle);
    if (r.has_value()) {
      EXPECT_EQ(r.value(), 7u);
    } else if (!r.is_cancelled()) {
      EXPECT_EQ(what_of(r.error()), "this one");
    }
    EXPECT_EQ(running.load(), 0);
    EXPECT_EQ(ledger.alive(), 0);
  };
  executor.run(main());
}

TEST(BatchInASimulation, EndsCleanlyAtEveryStep) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& executor) {
    end_somewhere(executor, executor.seed());
    if (::testing::Test::HasFailure()) throw std::runtime_error("see above");
  });
}

TEST(BatchAcrossThreads, EndsCleanlyAtAnyTime) {
  WorkStealingExecutor workers({.threads = 3});
  for (std::uint64_t i = 0; i < scaled(1000); ++i) end_somewhere(workers, i);
}

}  // namespace
}  // namespace magpie
