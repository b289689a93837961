// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-timeout: 300
// ctest-leave-out: gcc (who runs what where, not how it is compiled)

// Children in a row, more than a few, are queued in bundles (executor/JOIN.md): each of them still
// runs once, whatever their number, kind and size, whoever takes them and whatever happens between.

#include <magpie/gather.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_completed.h>
#include <magpie/race.h>
#include <magpie/task.h>
#include <magpie/this_task.h>
#include <magpie/work_stealing_executor.h>

#include <support/ledger.h>
#include <support/scale.h>

namespace magpie {
namespace {

using test::Ledger;
using test::scaled;
using test::Tracked;

// Around the powers of two, by which bundles are made, and the row that is queued singly.
std::vector<std::size_t> numbers() {
  std::vector<std::size_t> all;
  for (std::size_t n = 1; n <= 70; ++n) all.push_back(n);
  for (const std::size_t n : std::initializer_list<std::size_t>{127, 128, 129, 144, 145, 255, 256,
                                                                257, 1'000, 1'023, 1'024, 1'025})
    all.push_back(n);
  return all;
}

struct Runs {
  explicit Runs(std::size_t n) : of(n) {}
  bool once() const {
    return std::all_of(of.begin(), of.end(), [](const auto& count) { return count == 1; });
  }
  std::vector<std::atomic<int>> of;
};

Task<std::size_t> child(Runs& runs, std::size_t i) {
  if (i % 7 == 3) co_await this_task::yield();
  ++runs.of[i];
  co_return i;
}
std::vector<Task<std::size_t>> children(Runs& runs) {
  std::vector<Task<std::size_t>> tasks;
  for (std::size_t i = 0; i < runs.of.size(); ++i) tasks.push_back(child(runs, i));
  return tasks;
}

TEST(GatherBundles, AThousandChildrenLieInAHandfulOfItems) {
  WorkStealingExecutor executor({.threads = 1});
  std::size_t most = 0;
  auto look = [&]() -> Task<> {
    most = std::max(most, executor.stats().total.queue_depth);
    co_return;
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<>> tasks;
    for (int i = 0; i < 1'024; ++i) tasks.push_back(look());
    co_await gather(std::move(tasks));
  };
  executor.run(body());
  // 512, 256, 128, 64, 32 and thirty-one single ones.
  EXPECT_LE(most, 36U);
  EXPECT_GE(most, 31U);
}

// Who yields has been asked to let one piece run, not the larger half of a fan-out.
TEST(GatherBundles, AfterAYieldOneOfThemRuns) {
  WorkStealingExecutor executor({.threads = 1});
  for (const std::size_t n : {std::size_t{40}, std::size_t{1'000}, std::size_t{5'000}}) {
    std::size_t begun = 0;
    std::size_t most = 0;
    auto yields = [&]() -> Task<> {
      for (std::size_t turn = 0; turn < n / 2; ++turn) {
        const std::size_t before = begun;
        co_await this_task::yield();
        most = std::max(most, begun - before);
      }
    };
    auto child_of_many = [&]() -> Task<> {
      ++begun;
      co_return;
    };
    auto body = [&]() -> Task<> {
      std::vector<Task<>> tasks;
      tasks.push_back(yields());
      for (std::size_t i = 1; i < n; ++i) tasks.push_back(child_of_many());
      co_await gather(std::move(tasks));
    };
    executor.run(body());
    EXPECT_EQ(begun, n - 1);
    EXPECT_LE(most, 2U) << n;
  }
}

TEST(GatherBundles, EachRunsOnceWhateverTheirNumber) {
  for (const std::size_t threads : {std::size_t{1}, std::size_t{2}, std::size_t{5}}) {
    WorkStealingExecutor executor({.threads = threads});
    auto body = [&]() -> Task<> {
      for (const std::size_t n : numbers()) {
        Runs runs(n);
        const std::vector<std::size_t> values = co_await gather(children(runs));
        EXPECT_TRUE(runs.once()) << n;
        for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(values[i], i);
      }
    };
    executor.run(body());
  }
}

TEST(GatherBundles, CallablesThatEndInPlaceAndThatMakeTasks) {
  WorkStealingExecutor executor({.threads = 2});
  auto body = [&]() -> Task<> {
    for (const std::size_t n : numbers()) {
      Runs in_place(n);
      struct Count {
        std::atomic<int>* runs;
        void operator()() const { ++*runs; }
      };
      std::vector<Count> calls;
      for (auto& count : in_place.of) calls.push_back(Count{&count});
      co_await gather(calls);
      EXPECT_TRUE(in_place.once()) << n;

      Runs made(n);
      struct Make {
        Runs* runs;
        std::size_t i;
        Task<std::size_t> operator()() const { return child(*runs, i); }
      };
      std::vector<Make> makers;
      for (std::size_t i = 0; i < n; ++i) makers.push_back(Make{&made, i});
      co_await gather(std::move(makers));
      EXPECT_TRUE(made.once()) << n;
    }
  };
  executor.run(body());
}

TEST(GatherBundles, RacesAndStreamsOfMany) {
  WorkStealingExecutor executor({.threads = 3});
  auto fail = [](Runs& runs, std::size_t i) -> Task<std::size_t> {
    ++runs.of[i];
    throw std::runtime_error("no");
    co_return i;
  };
  auto body = [&]() -> Task<> {
    for (const std::size_t n : numbers()) {
      Runs raced(n);
      std::vector<Task<std::size_t>> tasks;
      for (std::size_t i = 0; i < n; ++i) tasks.push_back(fail(raced, i));
      bool nobody_won = false;
      try {
        (void)co_await any(std::move(tasks));
      } catch (const ExceptionGroup& group) {
        nobody_won = group.exceptions().size() == n;
      }
      EXPECT_TRUE(nobody_won && raced.once()) << n;

      Runs streamed(n);
      std::size_t sum = 0;
      co_await as_completed(children(streamed), [&](auto& stream) -> Task<> {
        for (auto next = co_await stream.next(); next; next = co_await stream.next())
          sum += next->value.value();
      });
      EXPECT_TRUE(streamed.once()) << n;
      EXPECT_EQ(sum, n * (n - 1) / 2);
    }
  };
  executor.run(body());
}

// Results that do not fit where a node was, and some that want more alignment than memory has.
TEST(GatherBundles, ResultsOfAnySize) {
  struct Large {
    std::array<char, 300> bytes;
    std::size_t i;
  };
  struct alignas(64) Aligned {
    std::size_t i;
  };
  WorkStealingExecutor executor({.threads = 2});
  auto give = [](auto value) -> Task<decltype(value)> { co_return value; };
  // A frame is not aligned more than memory is.
  auto give_aligned = [](std::size_t i) -> Task<Aligned> { co_return Aligned{i}; };
  auto body = [&]() -> Task<> {
    std::vector<Task<Large>> large;
    std::vector<Task<Aligned>> aligned;
    std::vector<Task<std::string>> strings;
    for (std::size_t i = 0; i < 333; ++i) {
      large.push_back(give(Large{{}, i}));
      aligned.push_back(give_aligned(i));
      strings.push_back(give(std::string(40, 'x') + std::to_string(i)));
    }
    const auto larges = co_await gather(std::move(large));
    const auto alignments = co_await gather(std::move(aligned));
    const auto words = co_await gather(std::move(strings));
    for (std::size_t i = 0; i < 333; ++i) {
      EXPECT_EQ(larges[i].i, i);
      EXPECT_EQ(alignments[i].i, i);
      EXPECT_EQ(words[i], std::string(40, 'x') + std::to_string(i));
    }
  };
  executor.run(body());
}

TEST(GatherBundles, AFailureAmidThemSkipsThoseThatHaveNotBegun) {
  for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
    WorkStealingExecutor executor({.threads = threads});
    Ledger ledger;
    std::atomic<std::size_t> begun{0};
    auto one = [&](Tracked tracked, bool fails) -> Task<> {
      tracked.touch();
      ++begun;
      if (fails) throw std::runtime_error("amid");
      co_return;
    };
    auto body = [&](std::size_t n, std::size_t failing) -> Task<> {
      std::vector<Task<>> tasks;
      for (std::size_t i = 0; i < n; ++i) tasks.push_back(one(Tracked(ledger), i == failing));
      co_await gather(std::move(tasks));
    };
    for (const std::size_t n : std::initializer_list<std::size_t>{17, 32, 33, 257, 1'000}) {
      for (const std::size_t failing : {std::size_t{0}, std::size_t{1}, n / 2, n - 1}) {
        begun = 0;
        EXPECT_THROW(executor.run(body(n, failing)), std::runtime_error);
        EXPECT_EQ(ledger.alive(), 0);
        // One worker takes them in their order.
        if (threads == 1) {
          EXPECT_EQ(begun, failing + 1);
        }
      }
    }
  }
}

// What lies in the deque of a worker that leaves goes through the injection queue.
TEST(GatherBundles, AWorkerThatLeavesHandsItsBundlesOn) {
  WorkStealingExecutor executor({.threads = 4});
  std::atomic<bool> over{false};
  std::thread resizer([&] {
    for (std::size_t i = 0; !over; ++i) executor.resize(1 + i % 4);
  });
  auto body = [&]() -> Task<> {
    for (std::size_t round = 0; round < scaled(400); ++round) {
      Runs runs(600 + round % 40);
      co_await gather(children(runs));
      EXPECT_TRUE(runs.once());
    }
  };
  executor.run(body());
  over = true;
  resizer.join();
}

// A gather of many within the children of a gather of many.
TEST(GatherBundles, WithinEachOther) {
  WorkStealingExecutor executor({.threads = 4});
  auto inner = [](std::size_t n) -> Task<std::size_t> {
    Runs runs(n);
    const std::vector<std::size_t> values = co_await gather(children(runs));
    co_return runs.once() ? values.size() : 0;
  };
  auto body = [&]() -> Task<> {
    std::vector<Task<std::size_t>> tasks;
    std::size_t sum = 0;
    for (std::size_t i = 0; i < 100; ++i) {
      tasks.push_back(inner(i));
      sum += i;
    }
    std::size_t found = 0;
    for (const std::size_t n : co_await gather(std::move(tasks))) found += n;
    EXPECT_EQ(found, sum);
  };
  for (std::size_t round = 0; round < scaled(20); ++round) executor.run(body());
}

}  // namespace
}  // namespace magpie
