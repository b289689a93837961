// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan (on threads: parallel_share_test)
// ctest-leave-out: gcc (hardly a coroutine)

// parallel_for, parallel_for_each and parallel_reduce: what they call, in which order they combine,
// and every way in which they can end.

#include <magpie/parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <ranges>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/event.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/tbb_executor.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>

#include <support/foreign.h>
#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::Ledger;
using test::MoveOnly;
using test::NoDefault;
using test::scaled;
using test::Tracked;

class ParallelTest : public test::OnMachine {};

// --- what is called ------------------------------------------------------------------------------

TEST_ON_THREADS(ParallelTest, CallsTheFunctionOnceForEachIndex) {
  for (const std::size_t grain : {0U, 1U, 7U, 1000U, 1U << 20}) {
    std::vector<std::atomic<int>> calls(10'001);
    auto body = [&]() -> Task<> {
      co_await parallel_for(0, 10'001, grain, [&](int i) { ++calls[static_cast<std::size_t>(i)]; });
    };
    machine.run(body);
    EXPECT_TRUE(std::ranges::all_of(calls, [](const auto& n) { return n == 1; })) << grain;
  }
}

TEST_ON_THREADS(ParallelTest, AHundredThousandGrains) {
  std::vector<std::atomic<int>> calls(100'000);
  auto body = [&]() -> Task<> {
    co_await parallel_for(std::size_t{0}, calls.size(), 1, [&](std::size_t i) { ++calls[i]; });
  };
  machine.run(body);
  EXPECT_TRUE(std::ranges::all_of(calls, [](const auto& n) { return n == 1; }));
}

TEST_ON_THREADS(ParallelTest, AnEmptyRangeCallsNothing) {
  auto body = [&]() -> Task<> {
    auto fail = [](auto) { ADD_FAILURE(); };
    co_await parallel_for(0, 0, 0, fail);
    co_await parallel_for(5, 3, 1, fail);
    co_await parallel_for(5U, 3U, 1, fail);
    co_await parallel_for(3U, -5, 1, fail);
    co_await parallel_for(std::size_t{0}, -1, 1, fail);
    co_await parallel_for_each(std::vector<int>(), 0, fail);
    int sum = co_await parallel_reduce(7, 7, 0, -1, [](int i) { return i; }, std::plus<>());
    EXPECT_EQ(sum, -1);
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, ARangeOfOneGrainIsAPlainCall) {
  auto body = [&]() -> Task<> {
    const std::thread::id here = std::this_thread::get_id();
    int sum = 0;  // no atomic: nobody else is there
    co_await parallel_for(0, 10, 10, [&](int i) {
      sum += i;
      EXPECT_EQ(std::this_thread::get_id(), here);
    });
    EXPECT_EQ(sum, 45);
    EXPECT_EQ(std::this_thread::get_id(), here);
  };
  machine.run(body);
}

template <class I>
Task<> both_ends(WorkStealingExecutor&) {
  constexpr I kLowest = std::numeric_limits<I>::min();
  constexpr I kHighest = std::numeric_limits<I>::max();
  std::atomic<int> calls{0};
  std::atomic<bool> odd{false};
  auto count = [&](I i) {
    static_assert(std::same_as<I, decltype(i)>);
    if (i > kLowest + 5 && i < kHighest - 5) odd = true;
    ++calls;
  };
  co_await parallel_for(kLowest, static_cast<I>(kLowest + 5), 2, count);
  co_await parallel_for(static_cast<I>(kHighest - 5), kHighest, 2, count);
  EXPECT_EQ(calls, 10);
  EXPECT_FALSE(odd);
  // The whole range, in two grains that are larger than any signed number can tell.
  if constexpr (sizeof(I) < sizeof(int)) {
    calls = 0;
    co_await parallel_for(kLowest, kHighest, 3, [&](I) { ++calls; });
    EXPECT_EQ(calls, int{kHighest} - int{kLowest});
  }
}

TEST_ON_THREADS(ParallelTest, IndicesOfEveryTypeUpToTheirLimits) {
  executor.run(both_ends<std::int8_t>(executor));
  executor.run(both_ends<std::uint8_t>(executor));
  executor.run(both_ends<std::int16_t>(executor));
  executor.run(both_ends<std::int32_t>(executor));
  executor.run(both_ends<std::uint32_t>(executor));
  executor.run(both_ends<std::int64_t>(executor));
  executor.run(both_ends<std::uint64_t>(executor));
}

// Nobody can wait for 2^64 calls: the loop is stopped after a few, having cut the range.
TEST_ON_THREADS(ParallelTest, ARangeOfAllNumbersIsCutWithoutOverflow) {
  auto body = [&]() -> Task<> {
    for (const std::size_t grain : {std::size_t{1}, std::size_t{0}, std::size_t{1} << 63}) {
      std::atomic<int> calls{0};
      auto stop = [&](std::int64_t) {
        if (++calls > 3) throw std::out_of_range("enough");
      };
      auto loop = as_result(parallel_for(std::numeric_limits<std::int64_t>::min(),
                                         std::numeric_limits<std::int64_t>::max(), grain, stop));
      Result<void> result = co_await std::move(loop);
      EXPECT_TRUE(test::is<std::out_of_range>(result.error()));
    }
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, EndsOfTwoTypesCountInTheirCommonType) {
  auto body = [&]() -> Task<> {
    std::vector<int> values(100, 1);
    std::atomic<int> sum{0};
    co_await parallel_for(0, values.size(), 3, [&](auto i) {
      static_assert(std::same_as<decltype(i), std::size_t>);
      sum += values[i];
    });
    EXPECT_EQ(sum, 100);
    co_await parallel_for(-3, 5L, 1, [&](long i) { sum += static_cast<int>(i); });
    EXPECT_EQ(sum, 104);
    // An index below zero is no unsigned number. Said when it is awaited, as by the other
    // combinators.
    auto loop = parallel_for(-3, 5U, 1, [](unsigned) { ADD_FAILURE(); });
    Result<void> result = co_await as_result(std::move(loop));
    EXPECT_TRUE(test::is<std::invalid_argument>(result.error()));
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, ElementsOfAnLvalueRangeAreReferencedThoseOfAnRvalueMovedIn) {
  Ledger ledger;
  auto body = [&]() -> Task<> {
    std::vector<int> values(1000);
    std::iota(values.begin(), values.end(), 0);
    co_await parallel_for_each(values, 10, [](int& v) { v *= 2; });
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], 2 * i);

    const std::array<int, 3> fixed{1, 2, 3};
    std::atomic<int> sum{0};
    co_await parallel_for_each(fixed, 1, [&](const int& v) { sum += v; });
    EXPECT_EQ(sum, 6);

    std::vector<Tracked> tracked(50, Tracked(ledger));
    auto loop = parallel_for_each(std::move(tracked), 1, [&](Tracked& t) {
      t.touch();
      EXPECT_GE(ledger.alive(), 50);
    });
    auto moved = std::move(loop);
    co_await std::move(moved);

    std::vector<std::unique_ptr<int>> pointers;
    for (int i = 0; i < 20; ++i) pointers.push_back(std::make_unique<int>(i));
    sum = 0;
    co_await parallel_for_each(std::move(pointers), 0, [&](std::unique_ptr<int>& p) { sum += *p; });
    EXPECT_EQ(sum, 190);

    int array[] = {1, 2, 3};
    co_await parallel_for_each(array, 2, [](int& v) { ++v; });
    EXPECT_EQ(array[2], 4);
    co_await parallel_for_each(std::span(array), 2, [](int& v) { ++v; });
    EXPECT_EQ(array[0], 3);
    sum = 0;
    co_await parallel_for_each(std::views::iota(std::uint64_t{1}, std::uint64_t{101}), 3,
                               [&](std::uint64_t v) { sum += static_cast<int>(v); });
    EXPECT_EQ(sum, 5050);
  };
  machine.run(body);
  EXPECT_EQ(ledger.alive(), 0);
}

TEST_ON_THREADS(ParallelTest, AFunctionThatIsAnLvalueIsReferencedAnRvalueMovedIn) {
  struct Counts {
    std::atomic<int>& moved_in;
    std::atomic<int> calls{0};
    explicit Counts(std::atomic<int>& m) : moved_in(m) {}
    Counts(Counts&& other) noexcept : moved_in(other.moved_in) { ++moved_in; }
    void operator()(int) { ++calls; }
  };
  std::atomic<int> moves{0};
  auto body = [&]() -> Task<> {
    Counts counts(moves);
    co_await parallel_for(0, 100, 1, counts);
    EXPECT_EQ(counts.calls, 100);
    EXPECT_EQ(moves, 0);
    co_await parallel_for(0, 100, 1, Counts(moves));
    EXPECT_GE(moves, 1);
    // A named awaitable keeps what it was given.
    auto loop =
        parallel_for(0, 5, 1, [owned = std::make_unique<int>(3)](int) { EXPECT_EQ(*owned, 3); });
    co_await std::move(loop);
  };
  machine.run(body);
}

// --- reduce --------------------------------------------------------------------------------------

TEST_ON_THREADS(ParallelTest, CombinesFromLeftToRight) {
  std::string expected;
  for (int i = 0; i < 3000; ++i) expected += std::to_string(i) + " ";
  for (const std::size_t grain : {0U, 1U, 13U, 3000U}) {
    auto body = [&]() -> Task<std::string> {
      return [](std::size_t g) -> Task<std::string> {
        co_return co_await parallel_reduce(
            0, 3000, g, std::string(), [](int i) { return std::to_string(i) + " "; },
            std::plus<>());
      }(grain);
    };
    EXPECT_EQ(machine.run(body), expected) << grain;
  }
}

TEST_ON_THREADS(ParallelTest, SumsOfNumbers) {
  auto body = []() -> Task<> {
    std::int64_t sum = co_await parallel_reduce(
        0, 1'000'000, 0, std::int64_t{0}, [](int i) { return i; }, std::plus<>());
    EXPECT_EQ(sum, 499'999'500'000);
    double halves = co_await parallel_reduce(
        0, 1000, 1, 0.0, [](int) { return 0.5F; }, [](double a, double b) { return a + b; });
    EXPECT_EQ(halves, 500.0);
    int largest = co_await parallel_reduce(
        -50, 50, 3, std::numeric_limits<int>::min(),
        [](int i) { return i * (i % 2 == 0 ? 1 : -1); },
        [](const int& a, const int& b) -> const int& { return std::max(a, b); });
    EXPECT_EQ(largest, 49);
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, ValuesThatCannotBeCopiedDefaultConstructedOrAssigned) {
  auto body = []() -> Task<> {
    MoveOnly sum = co_await parallel_reduce(
        0, 1000, 3, MoveOnly(0), [](int i) { return MoveOnly(i); },
        [](MoveOnly a, MoveOnly b) { return MoveOnly(a.value() + b.value()); });
    EXPECT_EQ(sum.value(), 499'500);
    MoveOnly none = co_await parallel_reduce(
        0, 0, 3, MoveOnly(5), [](int i) { return MoveOnly(i); },
        [](MoveOnly a, MoveOnly) { return a; });
    EXPECT_EQ(none.value(), 5);
    std::unique_ptr<int> pointer = co_await parallel_reduce(
        0, 100, 1, std::unique_ptr<int>(), [](int i) { return std::make_unique<int>(i); },
        [](std::unique_ptr<int> a, std::unique_ptr<int> b) {
          *a += *b;
          return a;
        });
    EXPECT_EQ(*pointer, 4950);
    NoDefault last = co_await parallel_reduce(
        0, 100, 1, NoDefault(-1), [](int i) { return NoDefault(i); },
        [](const NoDefault&, const NoDefault& b) { return b; });
    EXPECT_EQ(last.value, 99);
  };
  machine.run(body);
}

// Trivially copyable to the language, although it can only be moved.
struct Token {
  explicit Token(int v) : value(v) {}
  Token(Token&&) = default;
  Token& operator=(Token&&) = default;
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;
  int value;
};
static_assert(std::is_trivially_copyable_v<Token>);

TEST_ON_THREADS(ParallelTest, ReducesWhatCanOnlyBeMovedHoweverSimple) {
  auto body = []() -> Task<> {
    Token sum = co_await parallel_reduce(
        0, 100, 7, Token(0), [](int i) { return Token(i); },
        [](Token a, Token b) { return Token(a.value + b.value); });
    EXPECT_EQ(sum.value, 4950);
  };
  machine.run(body);
}

// In the awaiting frame that is the compiler's affair.
TEST(ParallelPieces, LieWhereTheirValuesMayLie) {
  struct alignas(128) Wide {
    std::uint64_t value;
  };
  for (int i = 0; i < 10; ++i) {
    auto* const piece = detail::allocate_piece<detail::ReducePiece<Wide>>();
    piece->value.emplace(Wide{1});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(&*piece->value) % 128, 0U);
    detail::free_piece(piece);
  }
}

TEST_ON_THREADS(ParallelTest, AMapThatGivesAnotherTypeIsCombinedWithTheIdentity) {
  struct Item {
    int value;
  };
  struct Append {
    std::vector<int> operator()(std::vector<int> a, Item b) const {
      a.push_back(b.value);
      return a;
    }
    std::vector<int> operator()(std::vector<int> a, const std::vector<int>& b) const {
      a.insert(a.end(), b.begin(), b.end());
      return a;
    }
  };
  auto body = []() -> Task<std::vector<int>> {
    co_return co_await parallel_reduce(
        0, 500, 1, std::vector<int>(), [](int i) { return Item{i}; }, Append());
  };
  const std::vector<int> all = machine.run(body);
  ASSERT_EQ(all.size(), 500U);
  for (int i = 0; i < 500; ++i) EXPECT_EQ(all[static_cast<std::size_t>(i)], i);
}

// --- ends ----------------------------------------------------------------------------------------

/// A range that nobody comes to the end of.
constexpr long kEndless = 1'000'000'000'000;

// B105's rule for children, applied to grains: nothing new is begun, what runs is waited for.
TEST_ON_THREADS(ParallelTest, TheFirstExceptionStopsTheLoopAndIsThrown) {
  std::atomic<int> running{0};
  std::atomic<long> calls{0};
  auto body = [&]() -> Task<> {
    // More than the others can do while the one that fails stands still.
    auto loop = parallel_for(0L, kEndless, 1, [&](long i) {
      ++running;
      ++calls;
      const bool fails = i == 0;
      --running;
      if (fails) throw std::runtime_error("at 0");
    });
    Result<void> result = co_await as_result(std::move(loop));
    EXPECT_EQ(running, 0);
    EXPECT_EQ(test::what_of(result.error()), "at 0");
  };
  machine.run(body);
  EXPECT_GE(calls, 1);
}

TEST_ON_THREADS(ParallelTest, WhenEveryCallFailsOneOfTheErrorsIsThrown) {
  auto body = [&]() -> Task<> {
    std::atomic<int> calls{0};
    auto loop = parallel_for(0, 1000, 1, [&](int i) {
      ++calls;
      throw std::runtime_error(std::to_string(i));
    });
    Result<void> result = co_await as_result(std::move(loop));
    EXPECT_TRUE(test::is<std::runtime_error>(result.error()));
    EXPECT_LE(calls, 8);  // each piece that ran, once: no more than there are threads, and a few
    auto reduce = parallel_reduce(
        0, 100, 1, 0, [](int i) { return i; },
        [](int, int) -> int { throw std::logic_error("combine"); });
    Result<int> sum = co_await as_result(std::move(reduce));
    EXPECT_EQ(test::what_of(sum.error()), "combine");
    auto each =
        parallel_for_each(std::vector<int>(100), 1, [](int) { throw std::runtime_error("each"); });
    Result<void> none = co_await as_result(std::move(each));
    EXPECT_EQ(test::what_of(none.error()), "each");
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, AnErrorGoesBeforeACancellationThatAFunctionThrewItself) {
  auto body = [&]() -> Task<> {
    auto loop = parallel_for(
        0, 1000, 1, [](int) { throw CancelledError(CancelReason{CancelKind::requested, "mine"}); });
    Result<void> result = co_await as_result(std::move(loop));
    EXPECT_EQ(test::reason_of(result.error()).message, "mine");
  };
  machine.run(body);
  // Both in one loop, in every order that the simulator finds.
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulated) {
    std::atomic<bool> failed{false};
    auto both = [&]() -> Task<> {
      auto loop = parallel_reduce(
          0, 64, 1, 0,
          [&](int i) -> int {
            if (i == 0) throw CancelledError();
            if (i == 63) {
              failed = true;
              throw std::runtime_error("real");
            }
            return 1;
          },
          std::plus<>());
      Result<int> sum = co_await as_result(std::move(loop));
      EXPECT_EQ(sum.is_error(), failed);
      EXPECT_EQ(sum.is_cancelled(), !failed);
    };
    simulated.run(both());
  });
}

TEST_ON_THREADS(ParallelTest, ACancelledScopeStartsNothing) {
  auto body = [&]() -> Task<> {
    auto inside = [&](CancelScope& scope) -> Task<> {
      scope.cancel("before");
      auto loop = parallel_for(0, 1, 0, [](int) { ADD_FAILURE(); });
      Result<void> result = co_await as_result(std::move(loop));
      EXPECT_EQ(test::reason_of(result.error()).message, "before");
      // An empty range is no cancellation point.
      co_await parallel_for(0, 0, 0, [](int) {});
      int none = co_await parallel_reduce(0, 0, 0, 4, [](int i) { return i; }, std::plus<>());
      EXPECT_EQ(none, 4);
      co_await parallel_for_each(std::vector<int>(), 1, [](int) {});
    };
    auto block = cancel_scope(inside);
    Result<void> result = co_await std::move(block);
    EXPECT_TRUE(result.has_value());
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, ACancellationIsSeenBetweenGrains) {
  std::atomic<long> calls{0};
  long before = 0;
  CancellationSource source;
  auto body = [&]() -> Task<> {
    auto loop = parallel_for(0L, kEndless, 1, [&](long) {
      if (++calls != 10) return;
      source.cancel("during");
      before = calls;
    });
    auto scoped = with_token(source.token(), std::move(loop));
    Result<void> result = co_await as_result(std::move(scoped));
    EXPECT_EQ(test::reason_of(result.error()).message, "during");
  };
  machine.run(body);
  EXPECT_GE(before, 10);
  EXPECT_LE(calls, before + 64);  // whoever ran a grain ended it
}

TEST_ON_THREADS(ParallelTest, ACancellationInTheLastGrainLeavesTheValue) {
  CancellationSource source;
  auto body = [&]() -> Task<> {
    auto loop = parallel_reduce(
        0, 10, 10, 0,
        [&](int i) {
          if (i == 9) source.cancel();
          return i;
        },
        std::plus<>());
    auto scoped = with_token(source.token(), std::move(loop));
    Result<int> result = co_await as_result(std::move(scoped));
    EXPECT_EQ(result.value(), 45);
  };
  machine.run(body);
}

TEST_ON_THREADS(ParallelTest, AnErrorIsNotHiddenByACancellation) {
  CancellationSource source;
  auto body = [&]() -> Task<> {
    auto loop = parallel_for(0, 1000, 1, [&](int i) {
      if (i != 0) return;
      source.cancel();
      throw std::runtime_error("real");
    });
    auto scoped = with_token(source.token(), std::move(loop));
    Result<void> result = co_await as_result(std::move(scoped));
    EXPECT_EQ(test::what_of(result.error()), "real");
  };
  machine.run(body);
}

}  // namespace
}  // namespace magpie
