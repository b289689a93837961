// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/detail/injection_queue.h>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

namespace magpie::detail {
namespace {

struct Numbered : Runnable {
  int producer = 0;
  int number = 0;
};

int number_of(Runnable* runnable) {
  return static_cast<Numbered*>(runnable)->number;
}

std::vector<Numbered> numbered(int count) {
  std::vector<Numbered> nodes(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) nodes[static_cast<std::size_t>(i)].number = i;
  return nodes;
}

InjectionQueue<>::Chain chain_of(std::vector<Numbered>& nodes) {
  for (std::size_t i = 0; i + 1 < nodes.size(); ++i) nodes[i].next = &nodes[i + 1];
  return {&nodes.front(), &nodes.back(), nodes.size()};
}

TEST(InjectionQueue, RunnablesComeOutInTheOrderInWhichTheyWentIn) {
  InjectionQueue<> queue;
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.pop(), nullptr);
  auto nodes = numbered(3);
  for (Numbered& node : nodes) queue.push(node);
  EXPECT_FALSE(queue.empty());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(number_of(queue.pop()), i);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.pop(), nullptr);
}

TEST(InjectionQueue, ARunnableMayGoInAgainOnceItIsOut) {
  InjectionQueue<> queue;
  Numbered node;
  for (int i = 0; i < 3; ++i) {
    queue.push(node);
    EXPECT_EQ(queue.pop(), &node);
  }
}

TEST(InjectionQueue, AChainGoesInAsAWhole) {
  InjectionQueue<> queue;
  Numbered first;
  first.number = -1;
  auto nodes = numbered(3);
  queue.push_all({});
  EXPECT_TRUE(queue.empty());
  queue.push(first);
  queue.push_all(chain_of(nodes));
  for (int i = -1; i < 3; ++i) EXPECT_EQ(number_of(queue.pop()), i);
  EXPECT_TRUE(queue.empty());
}

TEST(InjectionQueue, ABatchTakesUpToItsLimit) {
  InjectionQueue<> queue;
  auto nodes = numbered(5);
  queue.push_all(chain_of(nodes));
  EXPECT_EQ(queue.pop_batch(0).count, 0U);
  auto batch = queue.pop_batch(3);
  EXPECT_EQ(batch.count, 3U);
  EXPECT_EQ(batch.first, &nodes[0]);
  EXPECT_EQ(batch.last, &nodes[2]);
  EXPECT_EQ(batch.last->next, nullptr);
  batch = queue.pop_batch(3);
  EXPECT_EQ(batch.count, 2U);
  EXPECT_EQ(batch.first, &nodes[3]);
  EXPECT_EQ(queue.pop_batch(3).first, nullptr);
  Numbered late;
  queue.push(late);
  EXPECT_EQ(queue.pop(), &late);
}

TEST(InjectionQueue, EachProducersOrderIsKeptAmongMany) {
  constexpr int kProducers = 3;
  constexpr int kEach = 5'000;
  InjectionQueue<> queue;
  std::array<std::vector<Numbered>, kProducers> nodes;
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    auto& mine = nodes[static_cast<std::size_t>(p)];
    mine = numbered(kEach);
    for (Numbered& node : mine) node.producer = p;
    producers.emplace_back([&] {
      for (Numbered& node : mine) queue.push(node);
    });
  }
  std::array<int, kProducers> next{};
  for (int taken = 0; taken < kProducers * kEach;) {
    for (auto batch = queue.pop_batch(7); batch.first != nullptr; ++taken) {
      auto* node = static_cast<Numbered*>(batch.first);
      batch.first = node->next;
      ASSERT_EQ(node->number, next[static_cast<std::size_t>(node->producer)]++);
    }
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace magpie::detail
