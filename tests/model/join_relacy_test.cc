// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include "relacy_env.h"

#include <magpie/detail/deque.h>
#include <magpie/detail/join.h>

#include <array>
#include <cstdint>

// Joins under the C++ memory model: the parent sees what every child wrote, and has the join's
// memory for itself. The hop goes through a deque in fenced mode; the rest of the protocol is in
// join_model_test.cc.

namespace magpie::model {
namespace {

using detail::BasicJoinCounter;
using detail::Deque;

template <class Test>
void expect_clean(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_TRUE(report.passed) << report.text;
  std::printf("%llu executions\n", report.executions);
}

template <class Test>
void expect_killed(unsigned bound) {
  const RelacyReport report = explore_relacy<Test>({.bound = bound});
  EXPECT_FALSE(report.passed);
  std::printf("after %llu executions\n", report.executions);
}

// Each bearer writes its results and delivers; the last is the parent.
template <Mutant kMutant>
struct Deliver : RelacyTest<Deliver<kMutant>, 3> {
  BasicJoinCounter<RelacyEnv<kMutant>> counter;
  std::array<RelacyData<int>, 3> results;
  RelacyData<int> join{4};  // the units: read by each bearer before it delivers
  int parents = 0;

  void before() { counter.start(4); }
  void thread(unsigned index) {
    results[index].write(1);
    const std::uint32_t units = index == 0 ? 2 : 1;
    relacy_check(join.read() == 4);
    if (!counter.deliver(units)) return;
    ++parents;
    for (const RelacyData<int>& result : results) relacy_check(result.read() == 1);
    join.write(0);  // as whoever gets the memory next
  }
  void after() { relacy_check(parents == 1); }
};

TEST(JoinCounterRelacy, TheLastBearerSeesWhatAllOthersWrote) {
  MAGPIE_SKIP_RELACY();
  expect_clean<Deliver<Mutant::none>>(4);
}

TEST(JoinCounterRelacyMutant, ARelaxedSubtractionTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<Deliver<Mutant::join_relaxed_counter>>(3);
}

TEST(JoinCounterRelacyMutant, ALoadAndAStoreLoseUnits) {
  MAGPIE_SKIP_RELACY();
  expect_killed<Deliver<Mutant::join_plain_counter>>(3);
}

// Two children; the second may be stolen before the first has ended.
template <Mutant kMutant>
struct ForkAndSteal : RelacyTest<ForkAndSteal<kMutant>, 2> {
  using Env = RelacyEnv<kMutant>;
  static constexpr std::uintptr_t kSecond = 8;
  Deque<Env> deque{2};
  detail::ThiefMark<Env> mark;
  BasicJoinCounter<Env> counter;
  std::array<RelacyData<int>, 2> results;
  std::array<RelacyData<std::uint32_t>, 2> carry;
  RelacyData<std::uint32_t> units{0};
  int parents = 0;

  void thread(unsigned index) {
    if (index == 0) {
      units.write(2);
      counter.start(2);
      for (auto& c : carry) c.write(0);
      relacy_check(deque.owner().push(kSecond));
      end_child(0, true);
    } else if (deque.thief(mark).steal().item == kSecond) {
      end_child(1, false);
    }
  }
  void end_child(unsigned index, bool owner) {
    results[index].write(1);
    const std::uint32_t mine = carry[index].read() + 1;
    const std::uint32_t all = units.read();
    if (owner && index == 0 && deque.owner().pop() == kSecond) {
      carry[1].write(carry[1].read() + mine);
      end_child(1, true);
      return;
    }
    if (mine != all && !counter.deliver(mine)) return;
    ++parents;
    for (const RelacyData<int>& result : results) relacy_check(result.read() == 1);
    units.write(0);  // as whoever gets the memory next
    for (auto& c : carry) c.write(7);
  }
  void after() { relacy_check(parents == 1); }
};

TEST(JoinRelacy, AStolenChildAndItsSiblingEndInOneParent) {
  MAGPIE_SKIP_RELACY();
  expect_clean<ForkAndSteal<Mutant::none>>(4);
}

TEST(JoinRelacyMutant, ARelaxedSubtractionTellsNothing) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ForkAndSteal<Mutant::join_relaxed_counter>>(3);
}

TEST(JoinRelacyMutant, AnItemThatIsPublishedRelaxedArrivesWithoutItsJoin) {
  MAGPIE_SKIP_RELACY();
  expect_killed<ForkAndSteal<Mutant::deque_relaxed_push>>(3);
}

}  // namespace
}  // namespace magpie::model
