// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/detail/deque.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include <support/scale.h>

// Real threads, random operations from a seed (SEED= sets it), every item taken once.

namespace magpie::detail {
namespace {

std::uint64_t seed_of_this_run() {
  const char* given = std::getenv("SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 1;
  std::printf("SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

struct Tally {
  explicit Tally(std::size_t count)
      : taken(std::make_unique<std::atomic<std::uint8_t>[]>(count + 1)), payload(count + 1) {}

  // The payload is plain: ThreadSanitizer watches whether a taker may read it.
  void take(std::uintptr_t item) {
    if (item == 0) return;
    if (payload[item] != item * 3) wrong.fetch_add(1, std::memory_order_relaxed);
    if (taken[item].fetch_add(1, std::memory_order_relaxed) != 0) {
      wrong.fetch_add(1, std::memory_order_relaxed);
    }
  }

  void take_stolen(std::uintptr_t item) {
    if (item != 0) stolen.fetch_add(1, std::memory_order_relaxed);
    take(item);
  }

  std::unique_ptr<std::atomic<std::uint8_t>[]> taken;
  std::vector<std::uintptr_t> payload;
  std::atomic<int> wrong{0};
  std::atomic<std::size_t> stolen{0};
};

// More than the longest dwell.
constexpr std::uint64_t kClockStep = 100'000'000;
constexpr unsigned kTendEvery = 16;

// `pace`: how many operations of the owner for one look at the clock of the bias. Time runs fast
// there, so that the bias comes and goes all the while.
void stress(std::uint64_t seed, int thieves, std::size_t items, unsigned pace) {
  Deque<> deque(2);
  Tally tally(items);
  std::atomic<bool> done{false};
  const std::uint64_t barriers = StdEnv::heavy_fences();
  std::deque<ThiefMark<>> marks(static_cast<std::size_t>(thieves));
  const auto any = [&](auto&& shows) { return std::ranges::any_of(marks, shows); };
  std::vector<std::thread> threads;
  for (int i = 0; i < thieves; ++i) {
    threads.emplace_back([&, i] {
      std::mt19937_64 random(seed * 31 + static_cast<std::uint64_t>(i));
      const auto thief = deque.thief(marks[static_cast<std::size_t>(i)]);
      while (!done.load(std::memory_order_acquire)) {
        for (std::uint64_t n = random() % 64; n > 0; --n) {
          if (random() % 4 == 0 && thief.peek() > items) tally.wrong.fetch_add(1);
          tally.take_stolen(thief.steal().item);
        }
        // Pauses long enough for the bias to come back.
        for (std::uint64_t n = random() % 20'000; n > 0; --n) StdEnv::pause();
        if (random() % 8 == 0) std::this_thread::yield();
      }
    });
  }
  std::mt19937_64 random(seed);
  const auto owner = deque.owner();
  std::uint64_t now = StdEnv::now_ns();
  std::uintptr_t next = 1;
  unsigned operations = 0;
  while (next <= items) {
    for (std::uint64_t n = random() % (random() % 16 == 0 ? 200 : 4); n > 0 && next <= items; --n) {
      tally.payload[next] = next * 3;
      ASSERT_TRUE(owner.push(next));
      ++next;
    }
    for (std::uint64_t n = random() % 6; n > 0; --n) tally.take(owner.pop());
    if (random() % 16 == 0) tally.take(owner.take_oldest());
    if (++operations % pace == 0) owner.between_operations(now += kClockStep);
    // Rings come and go, too.
    if (operations % kTendEvery == 0) owner.tend_rings(now += kClockStep, any);
  }
  done.store(true, std::memory_order_release);
  for (std::thread& thread : threads) thread.join();
  while (const std::uintptr_t item = owner.pop()) tally.take(item);
  std::printf("%zu of %zu items stolen, %llu revocations\n",
              tally.stolen.load(std::memory_order_relaxed), items,
              static_cast<unsigned long long>(StdEnv::heavy_fences() - barriers));
  EXPECT_EQ(tally.wrong.load(std::memory_order_relaxed), 0);
  for (std::size_t item = 1; item <= items; ++item) {
    ASSERT_EQ(tally.taken[item].load(std::memory_order_relaxed), 1) << "item " << item;
  }
}

constexpr std::size_t kItems = test::kScale == 1 ? 2'000'000 : 500'000;

TEST(DequeStress, OneThief) {
  StdEnv::prepare();
  stress(seed_of_this_run(), 1, kItems, 5'000);
}

TEST(DequeStress, ManyThieves) {
  StdEnv::prepare();
  stress(seed_of_this_run(), 7, kItems, 5'000);
}

TEST(DequeStress, WithoutMembarrier) {
  MembarrierForTests::refuse();
  stress(seed_of_this_run(), 3, kItems, 5'000);
  MembarrierForTests::restore();
}

}  // namespace
}  // namespace magpie::detail
