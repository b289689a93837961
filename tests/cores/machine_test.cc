// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "machine.h"

namespace magpie::cores {
namespace {

constexpr std::uint64_t kTimes = 1000;

struct alignas(64) Counter {
  std::atomic<std::uint64_t> value{0};
};

// Each of four threads counts so often, all in one line or each in its own.
Reading count_on_four(bool together) {
  return simulate(4, [&](Meter& meter) {
    std::array<Counter, 4> counters;
    meter.measure([&] {
      std::vector<std::thread> threads;
      for (std::size_t i = 0; i < 4; ++i) {
        std::atomic<std::uint64_t>& counter = counters[together ? 0 : i].value;
        threads.emplace_back([&counter] {
          for (std::uint64_t n = 0; n < kTimes; ++n) counter.fetch_add(1);
        });
      }
      for (std::thread& thread : threads) thread.join();
    });
    EXPECT_EQ(counters[0].value, together ? 4 * kTimes : kTimes);
  });
}

TEST(SimulatedCores, ALineThatAllWriteTravels) {
  const Reading run = count_on_four(true);
  EXPECT_GE(run.traffic.travels(), kTimes);
  EXPECT_GE(run.traffic.locked, 4 * kTimes);
}

TEST(SimulatedCores, LinesOfTheirOwnStay) {
  EXPECT_LE(count_on_four(false).traffic.travels(), 100U);
}

TEST(SimulatedCores, TimeIsThatOfTheSimulatedComputer) {
  const auto before = std::chrono::steady_clock::now();
  simulate(1, [](Meter&) {
    const auto from = std::chrono::steady_clock::now();
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    EXPECT_EQ(never.wait_until(lock, from + std::chrono::hours(1)), std::cv_status::timeout);
    EXPECT_GE(std::chrono::steady_clock::now() - from, std::chrono::hours(1));
  });
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::minutes(30));
}

TEST(SimulatedCores, WhoeverWaitsIsWoken) {
  const Reading run = simulate(2, [](Meter& meter) {
    std::atomic<int> word{0};
    meter.measure([&] {
      std::thread other([&] {
        for (int turn = 1; turn < 100; turn += 2) {
          word.wait(turn - 1);
          while (word.load() != turn) word.wait(word.load());
          word.store(turn + 1);
          word.notify_one();
        }
      });
      for (int turn = 0; turn < 100; turn += 2) {
        word.store(turn + 1);
        word.notify_one();
        while (word.load() != turn + 2) word.wait(turn + 1);
      }
      other.join();
    });
  });
  EXPECT_GT(run.traffic.travels(), 20U);
}

}  // namespace
}  // namespace magpie::cores
