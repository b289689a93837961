// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the lanes are those of gather_limited_test)
// ctest-leave-out: asan tsan (values and outcomes, what else there is: fault/everywhere_test)

// map_concurrent: what the contract says of it.

#include <magpie/limited.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <coroutine>
#include <forward_list>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/race.h>
#include <magpie/resume_on.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/task_local.h>
#include <magpie/tbb_executor.h>
#include <magpie/timeout.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class MapConcurrent : public OnMachine {
 protected:
  std::atomic<int> made{0};
  std::atomic<int> exist{0};
  std::atomic<int> most{0};

  /// A task that counts from when it is made until its frame is gone.
  class Counted {
   public:
    explicit Counted(MapConcurrent& test) : test_(&test) {
      ++test_->made;
      const int now = ++test_->exist;
      int seen = test_->most.load();
      while (now > seen && !test_->most.compare_exchange_weak(seen, now)) {
      }
    }
    Counted(Counted&& other) noexcept : test_(std::exchange(other.test_, nullptr)) {}
    Counted& operator=(Counted&&) = delete;
    ~Counted() {
      if (test_ != nullptr) --test_->exist;
    }

   private:
    MapConcurrent* test_;
  };
  Task<int> counted(Counted, Duration pause, int value) {
    co_await sleep_for(pause);
    co_return value;
  }
};

TEST_ON_THREADS(MapConcurrent, ResultsAreInTheOrderOfTheItemsAndNoMoreTasksExistThanTheLimit) {
  std::vector<int> items(30);
  std::iota(items.begin(), items.end(), 0);
  machine.run([&]() -> Task<> {
    auto work = [&](int i) {
      return counted(Counted(*this), std::chrono::seconds(1 + (i % 3)), i * 2);
    };
    const std::vector<int> doubled = co_await map_concurrent(items, 4, work);
    EXPECT_EQ(doubled.size(), 30u);
    for (int i : items) EXPECT_EQ(doubled[static_cast<std::size_t>(i)], 2 * i);
  });
  EXPECT_EQ(made.load(), 30);
  EXPECT_EQ(exist.load(), 0);
  EXPECT_LE(most.load(), 4);
  EXPECT_EQ(machine.elapsed(), 16s);  // 60 s of work by four, one of whom has the last
}

TEST_ON_THREADS(MapConcurrent, ALimitOfOneRunsOneAfterTheOther) {
  machine.run([&]() -> Task<> {
    auto work = [&](int i) { return counted(Counted(*this), 1s, i); };
    const std::vector<int> values = co_await map_concurrent(std::views::iota(0, 5), 1, work);
    EXPECT_EQ(values, (std::vector<int>{0, 1, 2, 3, 4}));
  });
  EXPECT_EQ(most.load(), 1);
  EXPECT_EQ(machine.elapsed(), 5s);
}

TEST_ON_THREADS(MapConcurrent, ALargeLimitMakesNoMoreThanThereIs) {
  machine.run([&]() -> Task<> {
    auto work = [&](int i) { return counted(Counted(*this), 1s, i); };
    const std::vector<int> values = co_await map_concurrent(
        std::views::iota(0, 9), std::numeric_limits<std::size_t>::max(), work);
    EXPECT_EQ(values.size(), 9u);
  });
  EXPECT_EQ(most.load(), 9);
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(MapConcurrent, ALimitOfZeroIsAnError) {
  machine.run([&]() -> Task<> {
    auto work = [&](int i) { return counted(Counted(*this), 1s, i); };
    const auto result = co_await as_result(map_concurrent(std::views::iota(0, 9), 0, work));
    EXPECT_TRUE(is<std::invalid_argument>(result.error()));
    const auto empty = co_await as_result(map_concurrent(std::vector<int>(), 0, work));
    EXPECT_TRUE(is<std::invalid_argument>(empty.error()));
  });
  EXPECT_EQ(made.load(), 0);
}

TEST_ON_THREADS(MapConcurrent, OfNothingGivesNothingAlsoInACancelledScope) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel();
      const std::vector<int> none = co_await map_concurrent(std::vector<int>(), 3, give);
      EXPECT_TRUE(none.empty());
      auto odd = [](int i) { return i % 2 != 0; };
      const std::vector<int> filtered =
          co_await map_concurrent(std::vector<int>(4, 2) | std::views::filter(odd), 3, give);
      EXPECT_TRUE(filtered.empty());
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
    std::istringstream empty;
    const std::vector<int> none = co_await map_concurrent(std::views::istream<int>(empty), 3, give);
    EXPECT_TRUE(none.empty());
  });
}

TEST_ON_THREADS(MapConcurrent, OneItem) {
  machine.run([&]() -> Task<> {
    const std::vector<int> one = co_await map_concurrent(std::views::single(7), 3, give);
    EXPECT_EQ(one, std::vector<int>{7});
  });
}

TEST_ON_THREADS(MapConcurrent, VoidReferencesAndAwkwardResults) {
  std::vector<int> items{1, 2, 3};
  machine.run([&]() -> Task<> {
    std::atomic<int> sum{0};
    auto add = [&](int i) -> Task<> {
      sum += i;
      co_return;
    };
    auto pending = map_concurrent(items, 2, add);
    static_assert(std::is_void_v<decltype(pending)::value_type>);
    co_await std::move(pending);
    EXPECT_EQ(sum.load(), 6);

    auto itself = [](int& i) -> Task<int&> { co_return i; };
    auto references = co_await map_concurrent(items, 2, itself);
    static_assert(std::is_same_v<decltype(references), std::vector<std::reference_wrapper<int>>>);
    EXPECT_EQ(&references[2].get(), &items[2]);

    auto unique = [](int i) -> Task<std::unique_ptr<int>> { co_return std::make_unique<int>(i); };
    auto pointers = co_await map_concurrent(items, 2, unique);
    EXPECT_EQ(*pointers[1], 2);
    const std::vector<std::string> texts =
        co_await map_concurrent(std::vector<std::string>(3, "text"), 2, give_text);
    EXPECT_EQ(texts[2], "text");
    auto no_default = [](int i) -> Task<NoDefault> { co_return NoDefault(i); };
    auto others = co_await map_concurrent(items, 2, no_default);
    EXPECT_EQ(others[0].value, 1);
  });
}

// Another library's awaitable, which holds a callable.
template <class F>
struct ReadyWith {
  explicit ReadyWith(F f) : function(std::move(f)) {}
  bool await_ready() const noexcept { return true; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  int await_resume() { return function(); }
  F function;
};

TEST_ON_THREADS(MapConcurrent, FnMayGiveAnyAwaitable) {
  machine.run([&]() -> Task<> {
    auto sleeps = [](int i) { return sleep_for(std::chrono::seconds(i)); };
    co_await map_concurrent(std::views::iota(1, 4), 3, sleeps);
    EXPECT_EQ(machine.elapsed(), 3s);
    auto spawned = [&](int i) { return executor.spawn(give(i)); };
    const std::vector<int> values = co_await map_concurrent(std::views::iota(1, 4), 3, spawned);
    EXPECT_EQ(values, (std::vector<int>{1, 2, 3}));
    // A lambda within a lambda of a coroutine: see detail/foreign.h for what g++ 12 takes it for.
    auto raced = [](int i) { return race([i] { return give(i); }); };
    const auto firsts = co_await map_concurrent(std::views::iota(1, 4), 3, raced);
    EXPECT_EQ(firsts.back().value, 3);
    auto foreign = [](int i) { return ReadyWith([i] { return i; }); };
    const std::vector<int> ready = co_await map_concurrent(std::views::iota(1, 4), 3, foreign);
    EXPECT_EQ(ready, (std::vector<int>{1, 2, 3}));
  });
}

// --- items ---------------------------------------------------------------------------------------

TEST_ON_THREADS(MapConcurrent, ElementsOfAnLvalueRangeAreReferenced) {
  std::vector<std::string> items{"a", "b", "c"};
  machine.run([&]() -> Task<> {
    auto change = [&](std::string& text) -> Task<std::size_t> {
      co_await sleep_for(1s);
      text += "!";
      co_return static_cast<std::size_t>(&text - items.data());
    };
    const std::vector<std::size_t> places = co_await map_concurrent(items, 2, change);
    EXPECT_EQ(places, (std::vector<std::size_t>{0, 1, 2}));
    const std::vector<std::string>& constant = items;
    auto look = [](const std::string& text) -> Task<char> { co_return text.back(); };
    const std::vector<char> ends = co_await map_concurrent(constant, 2, look);
    EXPECT_EQ(ends, std::vector<char>(3, '!'));
    auto take = [](std::string text) -> Task<std::string> { co_return text; };
    (void)co_await map_concurrent(items, 2, take);
  });
  EXPECT_EQ(items, (std::vector<std::string>{"a!", "b!", "c!"}));  // nothing was moved out of them
}

TEST_ON_THREADS(MapConcurrent,
                ElementsOfAnRvalueContainerAreGivenAwayAndLiveUntilTheirTaskHasEnded) {
  machine.run([&]() -> Task<> {
    std::vector<std::unique_ptr<int>> pointers;
    for (int i = 0; i < 5; ++i) pointers.push_back(std::make_unique<int>(i));
    auto take = [](std::unique_ptr<int> p) -> Task<int> { co_return *p; };
    const std::vector<int> taken = co_await map_concurrent(std::move(pointers), 2, take);
    EXPECT_EQ(taken, (std::vector<int>{0, 1, 2, 3, 4}));

    std::vector<std::string> texts(5, std::string(50, 'x'));
    auto look = [](const std::string& text) -> Task<std::size_t> {
      co_await sleep_for(1s);
      co_return text.size();
    };
    const std::vector<std::size_t> sizes = co_await map_concurrent(std::move(texts), 2, look);
    EXPECT_EQ(sizes, std::vector<std::size_t>(5, 50));
    auto borrow = [](std::string& text) -> Task<std::size_t> {
      co_await sleep_for(1s);
      co_return text.size();
    };
    const std::vector<std::size_t> borrowed =
        co_await map_concurrent(std::vector<std::string>(3, "abc"), 2, borrow);
    EXPECT_EQ(borrowed, std::vector<std::size_t>(3, 3));
  });
}

TEST_ON_THREADS(MapConcurrent, ElementsBehindAViewAreNotGivenAway) {
  std::vector<std::string> items{"one", "two", "three"};
  machine.run([&]() -> Task<> {
    auto take = [](std::string text) -> Task<std::size_t> { co_return text.size(); };
    const std::vector<std::size_t> all = co_await map_concurrent(std::span(items), 2, take);
    EXPECT_EQ(all, (std::vector<std::size_t>{3, 3, 5}));
    auto short_ones = [](const std::string& text) { return text.size() == 3; };
    const std::vector<std::size_t> some =
        co_await map_concurrent(items | std::views::filter(short_ones), 2, take);
    EXPECT_EQ(some.size(), 2u);
    auto const_span = [&]() -> const std::span<std::string> { return std::span(items); };
    (void)co_await map_concurrent(const_span(), 2, take);
  });
  EXPECT_EQ(items, (std::vector<std::string>{"one", "two", "three"}));
}

TEST_ON_THREADS(MapConcurrent, WhatARangeMakesOnTheWayIsKeptBesideItsTask) {
  Ledger ledger;
  machine.run([&]() -> Task<> {
    std::size_t alive_at_most = 0;
    auto make = [&](int) { return Tracked(ledger); };
    auto hold = [&](const Tracked& item) -> Task<> {
      alive_at_most = std::max(alive_at_most, static_cast<std::size_t>(ledger.alive()));
      co_await sleep_for(1s);
      item.touch();
    };
    co_await map_concurrent(std::views::iota(0, 12) | std::views::transform(make), 1, hold);
    EXPECT_LE(alive_at_most, 2u);
    EXPECT_EQ(ledger.alive(), 0);

    auto text = [](int i) { return std::string(30, static_cast<char>('a' + i)); };
    auto first = [](const std::string& s) -> Task<char> {
      co_await sleep_for(1s);
      co_return s[29];
    };
    const std::vector<char> letters =
        co_await map_concurrent(std::views::iota(0, 6) | std::views::transform(text), 3, first);
    EXPECT_EQ(std::string(letters.begin(), letters.end()), "abcdef");
    auto take = [](std::string&& s) -> Task<std::size_t> { co_return s.size(); };
    const std::vector<std::size_t> taken =
        co_await map_concurrent(std::views::iota(0, 6) | std::views::transform(text), 3, take);
    EXPECT_EQ(taken, std::vector<std::size_t>(6, 30));
  });
}

TEST_ON_THREADS(MapConcurrent, SinglePassRangesAreReadOnceAndInOrder) {
  machine.run([&]() -> Task<> {
    std::istringstream words("the quick brown fox jumps over the lazy dog");
    auto length = [&](const std::string& word)
        -> Task<std::size_t> {  // the stream's own string changes meanwhile
      co_await sleep_for(std::chrono::seconds(10 - static_cast<int>(word.size())));
      co_return word.size();
    };
    const std::vector<std::size_t> lengths =
        co_await map_concurrent(std::views::istream<std::string>(words), 3, length);
    EXPECT_EQ(lengths, (std::vector<std::size_t>{3, 5, 5, 3, 5, 4, 3, 4, 3}));

    std::istringstream again("1 2 3 4");
    auto stream = std::views::istream<int>(again);
    const std::vector<int> from_lvalue = co_await map_concurrent(stream, 2, give);
    EXPECT_EQ(from_lvalue, (std::vector<int>{1, 2, 3, 4}));
  });
}

TEST_ON_THREADS(MapConcurrent, RangesOfManyKinds) {
  machine.run([&]() -> Task<> {
    const std::vector<int> from_list = co_await map_concurrent(std::list<int>(3, 4), 2, give);
    const std::vector<int> from_forward_list =
        co_await map_concurrent(std::forward_list<int>(3, 4), 2, give);
    EXPECT_EQ(from_list, from_forward_list);
    int array[] = {1, 2, 3};
    const std::vector<int> from_array = co_await map_concurrent(array, 2, give);
    EXPECT_EQ(from_array, (std::vector<int>{1, 2, 3}));
    const std::map<std::string, int> map{{"a", 1}, {"b", 2}};
    auto value = [](const std::pair<const std::string, int>& entry) { return give(entry.second); };
    const std::vector<int> from_map = co_await map_concurrent(map, 2, value);
    EXPECT_EQ(from_map, (std::vector<int>{1, 2}));
    std::vector<bool> bits{true, false, true};
    auto bit = [](bool b) { return give(b ? 1 : 0); };
    const std::vector<int> from_bits = co_await map_concurrent(bits, 2, bit);
    EXPECT_EQ(from_bits, (std::vector<int>{1, 0, 1}));
    auto character = [](char c) { return give(c); };
    const std::vector<int> from_text =
        co_await map_concurrent(std::string_view("ab"), 2, character);
    EXPECT_EQ(from_text, (std::vector<int>{'a', 'b'}));
  });
}

TEST_ON_THREADS(MapConcurrent, CallsFnByOneThreadAtATimeInOrder) {
  machine.run([&]() -> Task<> {
    std::vector<int> order;  // unprotected on purpose
    auto note = [&, calls = 0](int i) mutable {
      EXPECT_EQ(calls++, i);
      order.push_back(i);
      return nothing();
    };
    co_await map_concurrent(std::views::iota(0, 3000), 8, note);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    EXPECT_EQ(order.size(), 3000u);
  });
}

TEST_ON_THREADS(MapConcurrent, KeepsItsCallableAndItsRange) {
  machine.run([&]() -> Task<> {
    auto start = [](int factor) {
      std::vector<int> items{1, 2, 3};
      auto multiply = [factor, text = std::string(40, 'x')](
                          int i) -> Task<int> {  // the closure lives in the operation
        co_await sleep_for(1s);
        co_return i* factor + static_cast<int>(text.size());
      };
      return map_concurrent(std::move(items), 2, std::move(multiply));
    };
    auto kept = start(10);
    const auto moved = std::make_unique<decltype(kept)>(std::move(kept));
    const std::vector<int> values = co_await std::move(*moved);
    EXPECT_EQ(values, (std::vector<int>{50, 60, 70}));
    auto both = co_await gather(start(1), start(2));
    EXPECT_EQ(std::get<1>(both)[2], 46);
  });
}

// --- failures and cancellation -------------------------------------------------------------------

TEST_ON_THREADS(MapConcurrent, AfterAFailureNoMoreAreMade) {
  machine.run([&]() -> Task<> {
    int read = 0;
    auto count = [&](int i) {
      ++read;
      return i;
    };
    auto work = [&](int i) -> Task<int> {
      if (i == 3) return fail_after(500ms, "three");
      return counted(Counted(*this), 1s, i);
    };
    const auto result = co_await as_result(
        map_concurrent(std::views::iota(0, 100) | std::views::transform(count), 4, work));
    EXPECT_EQ(what_of(result.error()), "three");
    EXPECT_EQ(read, 4);
    co_await this_task::checkpoint();
  });
  EXPECT_EQ(made.load(), 3);
  EXPECT_EQ(exist.load(), 0);
  EXPECT_EQ(machine.elapsed(), 500ms);
}

TEST_ON_THREADS(MapConcurrent, ARangeThatThrowsCancelsAndJoinsWhatWasStarted) {
  bool ended = false;
  CancelKind why{};
  machine.run([&]() -> Task<> {
    auto bad = [](int i) {
      if (i == 2) throw std::runtime_error("range");
      return i;
    };
    auto work = [&](int i) -> Task<int> { return i == 0 ? watched(ended, why) : stubborn(1s, i); };
    const auto result = co_await as_result(
        map_concurrent(std::views::iota(0, 10) | std::views::transform(bad), 5, work));
    EXPECT_EQ(what_of(result.error()), "range");
    EXPECT_TRUE(ended);
    EXPECT_EQ(why, CancelKind::sibling_failed);
  });
  EXPECT_EQ(machine.elapsed(), 1s);
}

TEST_ON_THREADS(MapConcurrent, AnFnThatThrowsIsAFailureOfItsItem) {
  machine.run([&]() -> Task<> {
    auto work = [&](int i) -> Task<int> {
      if (i == 1) throw std::runtime_error("fn");
      return never();
    };
    const auto result = co_await as_result(map_concurrent(std::views::iota(0, 10), 5, work));
    EXPECT_EQ(what_of(result.error()), "fn");
    auto empty = [](int) { return Task<int>(); };
    const auto moved_from = co_await as_result(map_concurrent(std::views::iota(0, 10), 5, empty));
    EXPECT_TRUE(is<std::logic_error>(moved_from.error()));
    auto cancels = [](int) -> Task<int> {
      throw CancelledError(CancelReason{CancelKind::requested, "from fn"});
    };
    const auto cancelled = co_await as_result(map_concurrent(std::views::iota(0, 10), 5, cancels));
    EXPECT_EQ(reason_of(cancelled.error()).message, "from fn");
  });
}

TEST_ON_THREADS(MapConcurrent, ACopyThatThrowsIsAFailure) {
  machine.run([&]() -> Task<> {
    std::vector<ThrowsOnCopy> items;
    items.emplace_back(1);
    auto work = [](ThrowsOnCopy item) -> Task<int> { co_return item.value; };
    const auto result = co_await as_result(map_concurrent(items, 5, work));
    EXPECT_EQ(what_of(result.error()), "copied");
  });
}

TEST_ON_THREADS(MapConcurrent, InACancelledScopeItReadsAndStartsNothing) {
  machine.run([&]() -> Task<> {
    auto block = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      std::istringstream numbers("1 2 3");
      const auto result =
          co_await as_result(map_concurrent(std::views::istream<int>(numbers), 2, give));
      EXPECT_EQ(reason_of(result.error()).message, "before");
      int first = 0;
      numbers >> first;
      EXPECT_EQ(first, 1);
    };
    const Result<void> ended = co_await cancel_scope(block);
    EXPECT_TRUE(ended.has_value());
  });
}

TEST_ON_THREADS(MapConcurrent, CancelledFromOutsideCancelsWhatRunsAndMakesNoMore) {
  machine.run([&]() -> Task<> {
    auto work = [&](int i) { return counted(Counted(*this), 1s, i); };
    const auto result =
        co_await try_timeout(map_concurrent(std::views::iota(0, 1000), 4, work), 2500ms);
    EXPECT_TRUE(result.is_timeout());
    EXPECT_EQ(exist.load(), 0);
    EXPECT_EQ(made.load(), 12);
    // All are there already: they are returned, and the cancellation stays pending.
    auto mind = [](int i) { return stubborn(2s, i); };
    const std::vector<int> all =
        co_await timeout(map_concurrent(std::views::iota(1, 3), 2, mind), 1s);
    EXPECT_EQ(all, (std::vector<int>{1, 2}));
    const auto some =
        co_await as_result(timeout(map_concurrent(std::views::iota(1, 4), 2, mind), 1s));
    EXPECT_TRUE(some.is_timeout());
  });
}

TEST_ON_THREADS(MapConcurrent, ComesHomeFromOtherExecutorsAndMakesTasksAtHome) {
  WorkStealingExecutor other({.threads = 2});
  machine.run([&]() -> Task<> {
    auto away = [&](int i) -> Task<int> {
      co_await resume_on(other);
      co_return i;
    };
    const std::vector<int> values = co_await map_concurrent(std::views::iota(0, 50), 3, away);
    EXPECT_EQ(values.size(), 50u);
    Executor& here = co_await this_task::executor();
    EXPECT_EQ(&here, &executor);
  });
}

TEST_ON_THREADS(MapConcurrent, FnSeesTheTaskLocalsOfItsCaller) {
  TaskLocal<int> local{0};
  machine.run([&]() -> Task<> {
    auto inside = [&](int i) -> Task<int> {
      auto body = [&]() -> Task<int> {
        co_await this_task::yield();
        co_return i;
      };
      co_return co_await local.with(i, body());
    };
    std::vector<JoinHandle<int>> spawned;
    auto read = [&]() -> Task<int> { co_return co_await local.get(); };
    auto work = [&](int i) {
      spawned.push_back(spawn(read()));  // inherits what fn sees
      return inside(i);
    };
    co_await local.with(7, [](auto& f) -> Task<> {
      (void)co_await map_concurrent(std::views::iota(10, 40), 3, f);
    }(work));
    for (auto& handle : spawned) {
      const int seen = co_await handle;
      EXPECT_EQ(seen, 7);
    }
  });
}

TEST_ON_THREADS(MapConcurrent, OneHundredThousandItems) {
  const std::size_t n = scaled(100'000);
  machine.run([&]() -> Task<> {
    auto work = [&](std::size_t i) -> Task<std::size_t> {
      if (i % 4 == 0) co_await sleep_for(std::chrono::microseconds(i % 10));
      co_return i;
    };
    const std::vector<std::size_t> values =
        co_await map_concurrent(std::views::iota(std::size_t{0}, n), 64, work);
    EXPECT_EQ(values.size(), n);
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
    auto quick = [](std::size_t) { return nothing(); };
    co_await map_concurrent(std::views::iota(std::size_t{0}, n), n, quick);
    auto endless = [](std::size_t) { return never(); };
    const auto timed = co_await try_timeout(
        map_concurrent(std::views::iota(std::size_t{0}, 2 * n), n, endless), 1s);
    EXPECT_TRUE(timed.is_timeout());
  });
}

TEST(MapConcurrentOnTbb, Works) {
  ManualClock clock;
  TbbExecutor executor({.threads = 2, .clock = &clock});
  auto body = [&]() -> Task<> {
    auto work = [](int i) { return i % 2 == 0 ? give_after(1s, i) : give(i); };
    const std::vector<int> values = co_await map_concurrent(std::views::iota(0, 200), 7, work);
    EXPECT_EQ(values.size(), 200u);
    EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
  };
  executor.run(body());
}

}  // namespace
}  // namespace magpie
