// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/detail/timer_queue.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <map>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include <support/foreign.h>
#include <unistd.h>

namespace magpie::detail {
namespace {

constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kBegin = std::numeric_limits<std::int64_t>::min();

unsigned seed_of_this_run() {
  const char* given = std::getenv("SEED");
  const unsigned seed =
      given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : 1U;
  std::printf("SEED=%u\n", seed);
  return seed;
}

TEST(TimerQueue, TimersComeOutInTheOrderOfTheirDeadlines) {
  TimerQueue queue;
  std::vector<TimerNode> nodes(5);
  const std::int64_t deadlines[] = {30, 10, 50, 20, 40};
  for (std::size_t i = 0; i < 5; ++i) {
    nodes[i].deadline_ns = deadlines[i];
    queue.insert(nodes[i]);
  }
  EXPECT_EQ(queue.size(), 5U);
  EXPECT_EQ(queue.earliest(), &nodes[1]);
  EXPECT_EQ(queue.pop_due(9), nullptr);
  EXPECT_EQ(queue.pop_due(10), &nodes[1]);
  EXPECT_EQ(queue.pop_due(10), nullptr);
  for (const std::size_t expected : {3U, 0U, 4U, 2U}) {
    EXPECT_EQ(queue.pop_due(100), &nodes[expected]);
  }
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.earliest(), nullptr);
  EXPECT_EQ(queue.pop_due(kEnd), nullptr);
}

TEST(TimerQueue, EqualDeadlinesComeOutInTheOrderOfTheirInsertion) {
  TimerQueue queue;
  std::vector<TimerNode> nodes(100);
  for (TimerNode& node : nodes) {
    node.deadline_ns = 7;
    queue.insert(node);
  }
  queue.remove(nodes[0]);
  queue.remove(nodes[50]);
  queue.insert(nodes[0]);  // now the last
  for (std::size_t i = 1; i < nodes.size(); ++i) {
    if (i != 50) {
      ASSERT_EQ(queue.pop_due(7), &nodes[i]);
    }
  }
  EXPECT_EQ(queue.pop_due(7), &nodes[0]);
  EXPECT_TRUE(queue.empty());
}

TEST(TimerQueue, ItKnowsWhatItContains) {
  TimerQueue queue;
  TimerNode a;
  TimerNode b;
  EXPECT_FALSE(queue.contains(a));
  queue.insert(a);
  queue.insert(b);
  EXPECT_TRUE(queue.contains(a) && queue.contains(b));
  queue.remove(a);
  EXPECT_FALSE(queue.contains(a));
  EXPECT_TRUE(queue.contains(b));
  EXPECT_EQ(queue.pop_due(0), &b);
  EXPECT_FALSE(queue.contains(b));
}

TEST(TimerQueue, ExtremeDeadlinesKeepTheirOrder) {
  TimerQueue queue;
  std::vector<TimerNode> nodes(4);
  const std::int64_t deadlines[] = {kEnd, 0, kBegin, -1};
  for (std::size_t i = 0; i < 4; ++i) {
    nodes[i].deadline_ns = deadlines[i];
    queue.insert(nodes[i]);
  }
  EXPECT_EQ(queue.pop_due(kBegin), &nodes[2]);
  EXPECT_EQ(queue.pop_due(kBegin), nullptr);
  EXPECT_EQ(queue.pop_due(kEnd - 1), &nodes[3]);
  EXPECT_EQ(queue.pop_due(kEnd - 1), &nodes[1]);
  EXPECT_EQ(queue.pop_due(kEnd - 1), nullptr);
  EXPECT_EQ(queue.pop_due(kEnd), &nodes[0]);
}

// Ascending deadlines make all of them children of one node, descending ones a chain: both would
// overflow the stack of a heap that recurses.
TEST(TimerQueue, LongChainsAndWideRootsNeedNoStack) {
  constexpr std::size_t kCount = 300'000;
  for (const bool ascending : {true, false}) {
    TimerQueue queue;
    std::vector<TimerNode> nodes(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      const auto at = static_cast<std::int64_t>(i);
      nodes[i].deadline_ns = ascending ? at : -at;
      queue.insert(nodes[i]);
    }
    std::int64_t before = kBegin;
    std::size_t count = 0;
    while (TimerNode* node = queue.pop_due(kEnd)) {
      ASSERT_LT(before, node->deadline_ns);
      before = node->deadline_ns;
      ++count;
    }
    EXPECT_EQ(count, kCount);
  }
}

TEST(TimerQueue, ItAgreesWithAnOrderedMapInRandomOperations) {
  std::mt19937 random(seed_of_this_run());
  TimerQueue queue;
  std::vector<TimerNode> nodes(200);
  std::map<std::pair<std::int64_t, std::uint64_t>, TimerNode*> oracle;
  for (int step = 0; step < 200'000; ++step) {
    TimerNode& node = nodes[random() % nodes.size()];
    switch (random() % 4) {
      case 0:
      case 1:
        if (queue.contains(node)) break;
        node.deadline_ns = static_cast<std::int64_t>(random() % 50);
        queue.insert(node);
        oracle[{node.deadline_ns, node.sequence}] = &node;
        break;
      case 2:
        if (!queue.contains(node)) break;
        queue.remove(node);
        oracle.erase({node.deadline_ns, node.sequence});
        break;
      default: {
        const auto now = static_cast<std::int64_t>(random() % 50);
        TimerNode* due = nullptr;
        if (!oracle.empty() && oracle.begin()->first.first <= now) {
          due = oracle.begin()->second;
          oracle.erase(oracle.begin());
        }
        ASSERT_EQ(queue.pop_due(now), due);
      }
    }
    ASSERT_EQ(queue.size(), oracle.size());
    ASSERT_EQ(queue.earliest(), oracle.empty() ? nullptr : oracle.begin()->second);
  }
}

TEST(TimerWord, ATimerThatIsOffDoesNotFire) {
  TimerWord<> word;
  EXPECT_TRUE(word.disarm());
  EXPECT_FALSE(word.begin_fire());
}

TEST(TimerWord, ATimerThatHasFiredDoesNotFireAgain) {
  TimerWord<> word;
  ASSERT_TRUE(word.begin_fire());
  EXPECT_FALSE(word.begin_fire());
  word.end_fire();
  EXPECT_FALSE(word.begin_fire());
  EXPECT_FALSE(word.disarm());
}

TEST(TimerWord, DisarmWaitsForTheEndOfAFiringAndSeesWhatItDid) {
  for (int round = 0; round < 200; ++round) {
    TimerWord<> word;
    int written = 0;
    std::thread monitor([&] {
      if (!word.begin_fire()) return;
      written = 1;
      std::this_thread::yield();
      word.end_fire();
    });
    const bool unfired = word.disarm();
    EXPECT_EQ(written, unfired ? 0 : 1);
    monitor.join();
  }
}

TEST(TimerWord, DisarmSleepsWhileAFiringTakesItsTime) {
  TimerWord<> word;
  ASSERT_TRUE(word.begin_fire());
  int written = 0;
  std::atomic<pid_t> waits{0};
  std::thread frame([&] {
    waits = gettid();
    EXPECT_FALSE(word.disarm());
    EXPECT_EQ(written, 1);
  });
  EXPECT_TRUE(test::eventually([&] { return waits.load() != 0 && test::sleeps(waits.load()); }));
  written = 1;
  word.end_fire();
  frame.join();
}

}  // namespace
}  // namespace magpie::detail
