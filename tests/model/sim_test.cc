// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "sim.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

// The checker itself: it must find what a TSO machine can do, and nothing that it cannot.

namespace magpie::model {
namespace {

using Env = SimEnv<>;
using Word = Env::Atomic<int>;
constexpr auto relaxed = std::memory_order_relaxed;
constexpr auto seq_cst = std::memory_order_seq_cst;

// Runs two threads that return a number each, and collects the pairs that occur.
template <class First, class Second>
std::set<std::pair<int, int>> outcomes(unsigned preemptions, First first, Second second) {
  std::set<std::pair<int, int>> seen;
  const Report report = explore(Options{.preemptions = preemptions}, [&](Sim& sim) {
    Word x(0);
    Word y(0);
    std::pair<int, int> result;
    sim.spawn([&] { result.first = first(x, y); });
    sim.spawn([&] { result.second = second(x, y); });
    sim.run();
    seen.insert(result);
  });
  EXPECT_TRUE(report.passed() && report.exhausted) << report;
  return seen;
}

template <class Between>
auto store_then_load(Between between) {
  return outcomes(
      2,
      [=](Word& x, Word& y) {
        x.store(1, relaxed);
        between();
        return y.load(relaxed);
      },
      [=](Word& x, Word& y) {
        y.store(1, relaxed);
        between();
        return x.load(relaxed);
      });
}

TEST(Sim, StoresMayBeOvertakenByLoads) {
  EXPECT_EQ(store_then_load([] {}).count({0, 0}), 1U);
  EXPECT_EQ(store_then_load([] { Env::light_fence(); }).count({0, 0}), 1U);
}

TEST(Sim, AFenceKeepsLoadsBehindStores) {
  const auto seen = store_then_load([] { Env::fence_seq_cst(); });
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{0, 1}, {1, 0}, {1, 1}}));
}

TEST(Sim, AHeavyFencePaysForALightOne) {
  for (const bool heavy : {false, true}) {
    const auto seen = outcomes(
        3,
        [](Word& x, Word& y) {
          x.store(1, relaxed);
          Env::light_fence();
          return y.load(relaxed);
        },
        [heavy](Word& x, Word& y) {
          y.store(1, relaxed);
          heavy ? Env::heavy_fence() : Env::fence_seq_cst();
          return x.load(relaxed);
        });
    EXPECT_EQ(seen.count({0, 0}), heavy ? 0U : 1U);
  }
}

TEST(Sim, StoresOfOneThreadArriveInTheirOrder) {
  const auto seen = outcomes(
      4,
      [](Word& x, Word& y) {
        x.store(1, relaxed);
        y.store(1, relaxed);
        return 0;
      },
      [](Word& x, Word& y) {
        const int late = y.load(relaxed);
        return 2 * late + x.load(relaxed);
      });
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{0, 0}, {0, 1}, {0, 3}}));
}

TEST(Sim, AThreadSeesItsOwnStores) {
  const auto seen = outcomes(
      2,
      [](Word& x, Word&) {
        x.store(1, relaxed);
        return x.load(relaxed);
      },
      [](Word&, Word&) { return 0; });
  EXPECT_EQ(seen, (std::set<std::pair<int, int>>{{1, 0}}));
}

Report lost_update(Options options) {
  return explore(options, [](Sim& sim) {
    Word x(0);
    for (int i = 0; i < 2; ++i) {
      sim.spawn([&] {
        const int old = x.load(relaxed);
        x.store(old + 1, seq_cst);
      });
    }
    sim.run();
    sim.check(x.load(relaxed) == 2, "an update was lost");
  });
}

TEST(Sim, EveryStrategyFindsALostUpdate) {
  for (const Strategy strategy : {Strategy::exhaustive, Strategy::random, Strategy::pct}) {
    const Report report =
        lost_update({.strategy = strategy, .preemptions = 1, .executions = 2'000});
    EXPECT_TRUE(report.failed);
    EXPECT_EQ(report.message, "an update was lost");
    EXPECT_NE(report.trace.find("thread 1: load"), std::string::npos) << report;
  }
}

TEST(Sim, ABoundOfNoPreemptionMissesWhatNeedsOne) {
  EXPECT_TRUE(lost_update({.preemptions = 0}).passed());
}

TEST(Sim, AFailureIsReplayedFromItsSeed) {
  const Report found = lost_update({.strategy = Strategy::random, .executions = 2'000});
  ASSERT_TRUE(found.failed);
  const Report again =
      lost_update({.strategy = Strategy::random, .executions = 1, .seed = found.seed});
  EXPECT_TRUE(again.failed);
  EXPECT_EQ(again.trace, found.trace);
}

TEST(Sim, AWaitThatNobodyEndsIsADeadlock) {
  const Report report = explore(Options{}, [](Sim& sim) {
    Env::Atomic<std::uint64_t> word(0);
    Word flag(0);
    sim.spawn([&] { Env::futex_wait(word, 0, std::nullopt); });
    sim.spawn([&] {
      while (flag.load(relaxed) == 0) Env::yield_thread();
    });
    sim.run();
  });
  EXPECT_TRUE(report.failed);
  EXPECT_EQ(report.message, "deadlock: thread 0 sleeps; thread 1 waits in a loop;");
}

TEST(Sim, ALoopThatWaitsForABufferedStoreEnds) {
  const Report report = explore(Options{}, [](Sim& sim) {
    Word flag(0);
    Word other(0);
    sim.spawn([&] {
      flag.store(1, relaxed);
      while (other.load(relaxed) == 0) Env::yield_thread();
    });
    sim.spawn([&] {
      while (flag.load(relaxed) == 0) Env::yield_thread();
      other.store(1, relaxed);
    });
    sim.run();
  });
  EXPECT_TRUE(report.passed() && report.exhausted) << report;
}

TEST(Sim, ATimedWaitEndsByItsDeadlineOrByAWake) {
  std::set<bool> woken;
  const Report report = explore(Options{}, [&](Sim& sim) {
    Env::Atomic<std::uint64_t> word(0);
    bool result = false;
    sim.spawn([&] { result = Env::futex_wait(word, 0, 1'000); });
    sim.spawn([&] { Env::futex_wake(word, 1); });
    sim.run();
    woken.insert(result);
  });
  EXPECT_TRUE(report.passed() && report.exhausted) << report;
  EXPECT_EQ(woken, (std::set<bool>{false, true}));
}

TEST(Sim, UseAfterDestructionIsFound) {
  const Report report = explore(Options{}, [](Sim& sim) {
    std::optional<Word> word(0);
    sim.spawn([&] { word.reset(); });
    sim.spawn([&] { word->load(relaxed); });
    sim.run();
  });
  EXPECT_TRUE(report.failed);
}

}  // namespace
}  // namespace magpie::model
