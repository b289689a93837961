// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (who runs what where, not how it is compiled)

// gather_limited and map_concurrent in every order and on many threads: failures, cancellations and
// ends that meet, lanes that all want the next item at once, and a range that is slow.

#include <magpie/limited.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/event.h>
#include <magpie/resume_on.h>
#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/this_task.h>
#include <magpie/timeout.h>
#include <magpie/work_stealing_executor.h>

#include <support/ledger.h>
#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

void must(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what);
}

struct World {
  Ledger ledger;
  std::atomic<int> running{0};
  std::atomic<int> most{0};
};

class Present {
 public:
  explicit Present(World& world) : world_(world) {
    const int now = ++world_.running;
    int seen = world_.most.load();
    while (now > seen && !world_.most.compare_exchange_weak(seen, now)) {
    }
  }
  Present(const Present&) = delete;
  Present& operator=(const Present&) = delete;
  ~Present() { --world_.running; }

 private:
  World& world_;
};

Task<Tracked> work(World& world, int steps, bool fails, bool minds) {
  const Present here(world);
  for (int i = 0; i < steps; ++i) {
    if (minds) {
      co_await this_task::yield();
    } else {
      co_await uncancellable(this_task::yield());
    }
  }
  if (fails) throw std::runtime_error("failed");
  co_return Tracked(world.ledger);
}

TEST(LimitedInEveryOrder, EndsFailuresAndCancellationsMeet) {
  testing::explore(scaled(1000), [](testing::SimulatedExecutor& simulator) {
    World world;
    auto program = [&](int mode) -> Task<> {
      CancellationSource source;
      auto meddle = [&]() -> Task<> {
        for (int i = 0; i < 4; ++i) co_await this_task::yield();
        if (mode == 2) source.cancel("meddled");
      };
      JoinHandle<void> meddler = spawn(meddle());
      world.most = 0;
      auto task = [&](int i) { return work(world, i % 4, mode == 1 && i == 5, i % 3 != 0); };
      const auto mapped = co_await as_result(
          with_token(source.token(), map_concurrent(std::views::iota(0, 9), 3, task)));
      co_await meddler;
      must(world.most <= 3, "the limit was passed");
      must(world.running == 0, "something still runs");
      if (mode == 0) must(mapped.has_value() && mapped.value().size() == 9, "a value is missing");
      if (mode == 1) must(what_of(mapped.error()) == "failed", "the failure was hidden");
      if (mode == 2)
        must(mapped.has_value() || reason_of(mapped.error()).message == "meddled",
             "it ended in no way that there is");

      std::vector<Task<Tracked>> tasks;
      for (int i = 0; i < 9; ++i) tasks.push_back(task(i));
      const auto all = co_await gather_limited(return_exceptions, 3, std::move(tasks));
      must(world.most <= 3, "the limit was passed");
      for (std::size_t i = 0; i < 9; ++i)
        must(all[i].has_value() == (mode != 1 || i != 5), "a result is wrong");
    };
    for (const int mode : {0, 1, 2}) simulator.run(program(mode));
    must(world.ledger.alive() == 0, "a value was lost");
  });
}

TEST(LimitedInEveryOrder, LeavesNothingBehindInADeadlock) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Event never_set;
    World world;
    testing::SimulatedExecutor simulator(seed);
    int made = 0;
    auto stuck = [&](int i) -> Task<Tracked> {
      ++made;
      const Present here(world);
      if (i % 2 == 0) co_await uncancellable(never_set.wait());
      co_return Tracked(world.ledger);
    };
    auto program = [&]() -> Task<> {
      const Tracked local(world.ledger);
      (void)co_await uncancellable(map_concurrent(std::views::iota(0, 50), 3, stuck));
    };
    EXPECT_THROW(simulator.run(program()), testing::DeadlockError);
    EXPECT_EQ(world.ledger.alive(), 0);
    EXPECT_EQ(world.running, 0);
    EXPECT_LE(made, 6);  // nothing is made while everything is destroyed
  }
}

/// Numbers that take their time, so that everybody stands in line for them; it must not be asked by
/// two at once.
class SlowNumbers {
 public:
  explicit SlowNumbers(int count) : count_(count) {}
  class Iterator {
   public:
    using value_type = int;
    using difference_type = std::ptrdiff_t;
    Iterator() = default;
    explicit Iterator(SlowNumbers& numbers) : numbers_(&numbers) {}
    int operator*() const { return numbers_->at_; }
    Iterator& operator++() {
      numbers_->advance();
      return *this;
    }
    void operator++(int) { numbers_->advance(); }
    bool operator==(std::default_sentinel_t) const { return numbers_->at_ == numbers_->count_; }

   private:
    SlowNumbers* numbers_ = nullptr;
  };
  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() { return {}; }

 private:
  void advance() {
    EXPECT_FALSE(asked_.exchange(true));
    ++at_;
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::microseconds(at_ % 64 == 0 ? 50 : 1);
    while (std::chrono::steady_clock::now() < until) {
    }
    asked_.store(false);
  }
  std::atomic<bool> asked_{false};
  int at_ = 0;
  int count_;
};

TEST(LimitedAcrossThreads, LanesThatStandInLineAreServedOnceEach) {
  for (const std::size_t threads : std::views::iota(std::size_t{2}, std::size_t{6})) {
    WorkStealingExecutor executor({.threads = threads});
    World world;
    const int n = static_cast<int>(scaled(20'000));
    auto item = [&](int i) -> Task<int> {
      const Present here(world);
      if (i % 2 == 0) co_await this_task::yield();
      co_return i;
    };
    auto program = [&]() -> Task<> {
      SlowNumbers numbers(n);
      const std::vector<int> values = co_await map_concurrent(numbers, 64, item);
      EXPECT_EQ(values.size(), static_cast<std::size_t>(n));
      EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
    };
    executor.run(program());
    EXPECT_LE(world.most.load(), 64);
  }
}

TEST(LimitedAcrossThreads, LanesThatStandInLineHearOfAFailureOrACancellation) {
  WorkStealingExecutor executor({.threads = 4});
  WorkStealingExecutor other({.threads = 1});
  World world;
  auto program = [&]() -> Task<> {
    for (std::size_t round = 0; round < scaled(1500); ++round) {
      const int last = static_cast<int>(round % 90);
      auto item = [&](int i) -> Task<Tracked> {
        const Present here(world);
        if (i % 2 == 0) co_await this_task::yield();
        if (i % 17 == 3) co_await resume_on(other);
        if (i == last && round % 2 == 0) throw std::runtime_error("last");
        co_return Tracked(world.ledger);
      };
      const auto limit = std::chrono::microseconds(round % 2 == 0 ? 1'000'000 : 1 + last);
      SlowNumbers numbers(100);
      const auto result =
          co_await as_result(timeout(map_concurrent(numbers, 1 + round % 40, item), limit));
      EXPECT_EQ(world.running.load(), 0);
      const bool failed = what_of(result.error()) == "last" || result.is_timeout();
      EXPECT_TRUE(failed || round % 2 != 0);
      const bool whole = !result.has_value() || result.value().size() == 100;
      EXPECT_TRUE(whole);
    }
  };
  executor.run(program());
  EXPECT_EQ(world.ledger.alive(), 0);
}

TEST(LimitedAcrossThreads, TasksEndOnSeveralWorkersWhileTheirOwnerIsCancelled) {
  WorkStealingExecutor executor({.threads = 4});
  World world;
  auto program = [&]() -> Task<> {
    for (std::size_t round = 0; round < scaled(3000); ++round) {
      std::vector<Task<Tracked>> tasks;
      const int failing = static_cast<int>(round % 60);
      for (int i = 0; i < 40; ++i)
        tasks.push_back(work(world, (i + static_cast<int>(round)) % 3, i == failing, i % 2 == 0));
      const auto limit = std::chrono::microseconds(round % 3 == 0 ? 1 + round % 20 : 1'000'000);
      const auto result =
          co_await as_result(timeout(gather_limited(1 + round % 9, std::move(tasks)), limit));
      EXPECT_EQ(world.running.load(), 0);
      const bool as_it_should =
          result.has_value() ? result.value().size() == 40u : result.is_timeout() || failing < 40;
      EXPECT_TRUE(as_it_should);
    }
  };
  executor.run(program());
  EXPECT_EQ(world.ledger.alive(), 0);
}

}  // namespace
}  // namespace magpie
