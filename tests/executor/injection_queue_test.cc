// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: gcc (hardly a coroutine)

#include <magpie/detail/injection_queue.h>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
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

// A node whose poster is held up after the exchange, before it links the node to the one before it:
// the link says so when it is about to be written, and waits.
struct HeldUp {
  struct Link {
    void store(HeldUp* to, std::memory_order order) {
      if (to != nullptr && to->slow) {
        to->exchanged = true;
        while (!to->may_go_on) std::this_thread::yield();
      }
      word.store(to, order);
    }
    HeldUp* load(std::memory_order order) { return word.load(order); }
    std::atomic<HeldUp*> word{nullptr};
  };
  Link next;
  bool slow = false;
  std::atomic<bool> exchanged{false};
  std::atomic<bool> may_go_on{false};
};

TEST(InjectionQueue, WhoHasOtherWorkDoesNotWaitForAPosterThatIsHeldUp) {
  InjectionQueue<StdEnv, HeldUp> queue;
  HeldUp slow;
  HeldUp behind;
  slow.slow = true;
  std::thread poster([&] { queue.push(slow); });
  while (!slow.exchanged) std::this_thread::yield();
  queue.push(behind);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(queue.try_pop(), nullptr);
    EXPECT_FALSE(queue.empty());
    EXPECT_FALSE(queue.still_empty());
  }
  slow.may_go_on = true;
  poster.join();
  EXPECT_EQ(queue.try_pop(), &slow);
  EXPECT_EQ(queue.try_pop(), &behind);
  EXPECT_EQ(queue.try_pop(), nullptr);
  EXPECT_TRUE(queue.still_empty());
}

TEST(InjectionQueue, ABatchTakesUpToItsLimit) {
  InjectionQueue<> queue;
  auto nodes = numbered(5);
  for (Numbered& node : nodes) queue.push(node);
  std::array<Runnable*, 3> taken{};
  EXPECT_EQ(queue.pop_batch(taken.data(), 0), 0U);
  EXPECT_EQ(queue.pop_batch(taken.data(), 3), 3U);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(taken[i], &nodes[i]);
  EXPECT_EQ(queue.pop_batch(taken.data(), 3), 2U);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(taken[i], &nodes[3 + i]);
  EXPECT_EQ(queue.pop_batch(taken.data(), 3), 0U);
  Numbered late;
  queue.push(late);
  EXPECT_EQ(queue.pop(), &late);
}

TEST(InjectionQueue, WhatComesLaterIsTakenLater) {
  InjectionQueue<> queue;
  auto nodes = numbered(4);
  queue.push(nodes[0]);
  queue.push(nodes[1]);
  EXPECT_EQ(queue.pop(), nodes.data());
  queue.push(nodes[2]);
  queue.push(nodes[3]);
  EXPECT_FALSE(queue.still_empty());
  for (int i = 1; i < 4; ++i) EXPECT_EQ(number_of(queue.pop()), i);
  EXPECT_TRUE(queue.still_empty());
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
    std::array<Runnable*, 7> batch{};
    const std::size_t count = queue.pop_batch(batch.data(), batch.size());
    for (std::size_t i = 0; i < count; ++i) {
      const auto* node = static_cast<Numbered*>(batch[i]);
      ASSERT_EQ(node->number, next[static_cast<std::size_t>(node->producer)]++);
    }
    taken += static_cast<int>(count);
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace magpie::detail
