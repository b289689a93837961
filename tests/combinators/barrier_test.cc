// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (the waits are those of event_test)

// Barrier: what api.md, sections 0 and 7, says of it.

#include <magpie/barrier.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <magpie/as_result.h>
#include <magpie/cancellation.h>
#include <magpie/detail/random.h>
#include <magpie/gather.h>
#include <magpie/race.h>
#include <magpie/spawn.h>
#include <magpie/testing/simulated_executor.h>
#include <magpie/timeout.h>

#include <support/machine.h>
#include <support/scale.h>

namespace magpie {
namespace {

using namespace test;

class BarrierTest : public OnMachine {};

TEST_ON_THREADS(BarrierTest, OpensWhenAllHaveArrivedPhaseAfterPhase) {
  Barrier barrier(3);
  std::atomic<int> arrived{0};
  std::atomic<int> chosen{0};
  machine.run([&]() -> Task<> {
    auto party = [&](Duration pause) -> Task<> {
      for (int phase = 1; phase <= 5; ++phase) {
        co_await sleep_for(pause);
        ++arrived;
        const bool mine = co_await barrier.arrive_and_wait();
        if (mine) ++chosen;
        EXPECT_GE(arrived.load(), 3 * phase);
      }
    };
    co_await gather(party(1ms), party(2ms), party(3ms));
  });
  EXPECT_EQ(chosen.load(), 5);
  EXPECT_EQ(machine.elapsed(), 15ms);
}

TEST_ON_THREADS(BarrierTest, TheLastToArriveGetsTrue) {
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> first = executor.spawn(barrier.arrive_and_wait());
    co_await sleep_for(1ms);
    EXPECT_FALSE(first.done());
    EXPECT_TRUE(co_await barrier.arrive_and_wait());
    EXPECT_FALSE(co_await first);
  });
}

TEST_ON_THREADS(BarrierTest, OfOnePartyNobodyWaits) {
  Barrier barrier(1);
  machine.run([&]() -> Task<> {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(co_await barrier.arrive_and_wait());
  });
}

TEST_ON_THREADS(BarrierTest, Misuse) {
  EXPECT_THROW(Barrier(0), std::invalid_argument);
  EXPECT_THROW(Barrier(SIZE_MAX), std::invalid_argument);
}

TEST_ON_THREADS(BarrierTest, ACancelledPartyLeavesTheCount) {  // B194
  auto barrier = std::make_unique<Barrier>(3);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> one = executor.spawn(barrier->arrive_and_wait());
    JoinHandle<bool> two = executor.spawn(barrier->arrive_and_wait());
    co_await sleep_for(1ms);
    two.cancel();
    JoinHandle<bool> three = executor.spawn(barrier->arrive_and_wait());
    co_await sleep_for(1ms);
    EXPECT_TRUE(two.cancelled());
    EXPECT_FALSE(one.done() || three.done());  // the phase needs a full number without it
    EXPECT_TRUE(co_await barrier->arrive_and_wait());
    EXPECT_FALSE(co_await one);
    EXPECT_FALSE(co_await three);
    const Result<bool> timed_out = co_await as_result(timeout(barrier->arrive_and_wait(), 1ms));
    EXPECT_TRUE(timed_out.is_timeout());
    barrier.reset();  // nobody is left in its queue
  });
}

TEST_ON_THREADS(BarrierTest, CancelledInTheSameStepItIsNotCountedEither) {  // B194
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> one = executor.spawn(barrier.arrive_and_wait());
    co_await sleep_for(1ms);
    one.cancel();
    const Result<bool> alone = co_await try_timeout(barrier.arrive_and_wait(), 1ms);
    EXPECT_TRUE(alone.is_timeout());
    EXPECT_TRUE(one.cancelled());
  });
}

TEST_ON_THREADS(BarrierTest, APhaseThatWasCompleteBeforeTheCancellationIsDelivered) {
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> one = executor.spawn(barrier.arrive_and_wait());
    co_await sleep_for(1ms);
    EXPECT_TRUE(co_await barrier.arrive_and_wait());
    one.cancel();
    const Result<bool> r = co_await as_result(one);
    EXPECT_TRUE(r.has_value());
  });
}

TEST_ON_THREADS(BarrierTest, InACancelledScopeOneDoesNotArrive) {
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> one = executor.spawn(barrier.arrive_and_wait());
    co_await sleep_for(1ms);
    auto block = [&](CancelScope& scope) -> Task<bool> {
      scope.cancel();
      co_return co_await barrier.arrive_and_wait();
    };
    const Result<bool> r = co_await cancel_scope(block);
    EXPECT_TRUE(r.is_cancelled());
    co_await sleep_for(1ms);
    EXPECT_FALSE(one.done());
    EXPECT_TRUE(co_await barrier.arrive_and_wait());
  });
}

TEST_ON_THREADS(BarrierTest, AContestantOfARaceTakesPartOnlyIfItWins) {
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    auto contend = [&](Duration limit) -> Task<std::size_t> {
      auto first = co_await race(barrier.arrive_and_wait(), sleep_for(limit));
      co_return first.index;
    };
    EXPECT_EQ(co_await contend(1ms), 1u);
    JoinHandle<std::size_t> waiting = executor.spawn(contend(1h));
    co_await sleep_for(1ms);
    EXPECT_EQ(co_await contend(1h), 0u);
    EXPECT_EQ(co_await waiting, 0u);
    // Two contestants of one race are one party.
    auto twice =
        co_await race(barrier.arrive_and_wait(), barrier.arrive_and_wait(), sleep_for(1ms));
    EXPECT_EQ(twice.index, 2u);
    auto as_two = [&]() -> Task<std::size_t> {
      auto first = co_await race(barrier.arrive_and_wait(), barrier.arrive_and_wait());
      co_return first.index;
    };
    JoinHandle<std::size_t> doubled = executor.spawn(as_two());
    co_await sleep_for(1ms);
    EXPECT_TRUE(co_await barrier.arrive_and_wait());
    EXPECT_EQ(co_await doubled, 0u);
  });
}

TEST_ON_THREADS(BarrierTest, GivenToCombinatorsDirectly) {
  Barrier barrier(3);
  machine.run([&]() -> Task<> {
    auto [a, b, c] = co_await gather(barrier.arrive_and_wait(), barrier.arrive_and_wait(),
                                     barrier.arrive_and_wait());
    EXPECT_EQ(a + b + c, 1);
  });
}

TEST_ON_THREADS(BarrierTest, AHundredThousandParties) {
  const std::size_t n = scaled(100'000);
  Barrier barrier(n);
  machine.run([&]() -> Task<> {
    for (int phase = 0; phase < 2; ++phase) {
      std::vector<detail::BarrierWait> waits;
      for (std::size_t i = 0; i < n; ++i) waits.push_back(barrier.arrive_and_wait());
      std::vector<bool> chosen = co_await gather(std::move(waits));
      EXPECT_EQ(std::count(chosen.begin(), chosen.end(), true), 1);
    }
  });
}

TEST_ON_THREADS(BarrierTest, DumpsNameIt) {
  Barrier barrier(2);
  machine.run([&]() -> Task<> {
    JoinHandle<bool> one = executor.spawn(barrier.arrive_and_wait());
    co_await sleep_for(1ms);
    std::ostringstream out;
    executor.dump_tasks(out);
    EXPECT_NE(out.str().find("waiting for a barrier"), std::string::npos) << out.str();
    one.cancel();
    co_await as_result(one);
  });
}

/// How often somebody passed, and how often with true.
struct Passes {
  std::atomic<long> all{0};
  std::atomic<long> chosen{0};
  void note(bool mine) {
    ++all;
    if (mine) ++chosen;
  }
};

Task<> arrive_somehow(Barrier& barrier, Passes& passes, std::uint64_t how, Duration limit) {
  switch (how) {
    case 0: {
      const bool mine = co_await barrier.arrive_and_wait();
      passes.note(mine);
      break;
    }
    case 1: {
      auto first = co_await race(barrier.arrive_and_wait(), sleep_for(limit));
      if (first.index == 0) passes.note(std::get<0>(first.value));
      break;
    }
    case 2: {
      auto first =
          co_await race(this_task::yield(), barrier.arrive_and_wait(), barrier.arrive_and_wait());
      if (first.index == 1) passes.note(std::get<1>(first.value));
      if (first.index == 2) passes.note(std::get<2>(first.value));
      break;
    }
    default: {
      const Result<bool> r = co_await try_timeout(barrier.arrive_and_wait(), limit);
      if (r) passes.note(r.value());
    }
  }
}

// However parties come, race and are cancelled: they pass in full numbers, one of each with true.
TEST(BarrierInEveryOrder, PartiesPassInFullNumbers) {
  testing::explore(scaled(20'000), [](testing::SimulatedExecutor& simulator) {
    detail::Random random(simulator.seed());
    const auto parties = static_cast<std::size_t>(random.below(3) + 1);
    Barrier barrier(parties);
    Passes passes;
    auto body = [&]() -> Task<> {
      std::vector<JoinHandle<void>> tasks;
      for (int i = 0; i < 9; ++i)
        tasks.push_back(spawn(arrive_somehow(barrier, passes, random.below(4),
                                             std::chrono::microseconds(random.below(3)))));
      for (std::uint64_t i = random.below(5); i > 0; --i) co_await this_task::yield();
      for (int i = 0; i < 3; ++i) tasks[random.below(tasks.size())].cancel();
      co_await sleep_for(10us);
      for (auto& t : tasks) t.cancel();
      for (auto& t : tasks) co_await as_result(t);
    };
    simulator.run(body());
    if (passes.all.load() != passes.chosen.load() * static_cast<long>(parties))
      throw std::logic_error("a party passed alone");
  });
}

TEST(BarrierAcrossThreads, PartiesPassInFullNumbers) {
  WorkStealingExecutor workers({.threads = 4});
  for (const std::size_t parties : std::vector<std::size_t>{2, 3}) {
    Barrier barrier(parties);
    Passes passes;
    auto body = [&](std::uint64_t seed) -> Task<> {
      detail::Random random(seed);
      for (std::size_t i = 0; i < scaled(30'000); ++i) {
        co_await arrive_somehow(barrier, passes, 1 + random.below(3),
                                std::chrono::microseconds(random.below(20)));
      }
    };
    std::vector<JoinHandle<void>> tasks;
    for (std::uint64_t i = 0; i < 6; ++i) tasks.push_back(workers.spawn(body(i)));
    for (auto& t : tasks) EXPECT_TRUE(t.wait().has_value());
    EXPECT_EQ(passes.all.load(), passes.chosen.load() * static_cast<long>(parties));
    EXPECT_GT(passes.all.load(), 0);
  }
}

// Cancelled by another thread at any moment, the last arrival included.
TEST(BarrierAcrossThreads, CancellationsAgainstTheLastArrival) {
  WorkStealingExecutor workers({.threads = 2});
  WorkStealingExecutor elsewhere({.threads = 1});
  long completed = 0;
  for (std::size_t round = 0; round < scaled(5'000); ++round) {
    auto barrier = std::make_unique<Barrier>(2);
    JoinHandle<bool> one = workers.spawn(barrier->arrive_and_wait());
    auto cancel = [&]() -> Task<> {
      one.cancel();
      co_return;
    };
    JoinHandle<void> canceller = elsewhere.spawn(cancel());
    JoinHandle<bool> two = workers.spawn(barrier->arrive_and_wait());
    one.wait();
    canceller.wait();
    if (one.cancelled()) {
      EXPECT_FALSE(two.done());
      two.cancel();
      EXPECT_TRUE(two.wait().is_cancelled());
    } else {
      ++completed;
      EXPECT_NE(one.result().value(), two.wait().value());
    }
  }
  std::cout << completed << " phases were complete first\n";
}

TEST(BarrierAcrossThreads, AnExecutorEndsUnderItsParties) {
  WorkStealingExecutor here({.threads = 1});
  for (std::size_t round = 0; round < scaled(300); ++round) {
    Barrier barrier(2);
    std::optional<WorkStealingExecutor> there(std::in_place, ExecutorOptions{.threads = 2});
    JoinHandle<bool> other = there->spawn(barrier.arrive_and_wait());
    JoinHandle<bool> mine = here.spawn(barrier.arrive_and_wait());
    there.reset();
    EXPECT_TRUE(other.done());
    if (other.cancelled()) mine.cancel();
    const Result<bool>& r = mine.wait();
    EXPECT_EQ(r.is_cancelled(), other.cancelled());
  }
}

}  // namespace
}  // namespace magpie
