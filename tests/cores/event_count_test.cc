// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include <magpie/detail/atomic.h>
#include <magpie/detail/event_count.h>

#include "machine.h"

// Many threads at one event count, as workers are that find nothing: each of its steps is an
// addition, so its line comes to whoever waits three times (E1 to E3), however many others do the
// same. With steps that are tried again whenever somebody else was first it comes the more often
// the more there are, and all of them are late by that.

namespace magpie::cores {
namespace {

using namespace std::chrono_literals;
using detail::EventCount;
using detail::StdEnv;

constexpr std::size_t kWaits = 30;            // of each thread
constexpr std::uint64_t kTogether = 200'000;  // their sleeps end at multiples of so many ns
constexpr double kLinesOfAWait = 4;           // three, and what notifications take away in between

// So many sleep until the same moments, and count out at once, while somebody notifies one of them
// each `pause`. Lines that travel for each wait.
double lines_of_a_wait(std::size_t threads, std::chrono::nanoseconds pause) {
  const Reading run = simulate(threads + 1, [=](Meter& meter) {
    EventCount<> event;
    StdEnv::Atomic<std::size_t> waiting(threads);
    const auto wait_often = [&] {
      for (std::size_t n = 0; n < kWaits; ++n) {
        const std::uint64_t deadline = (StdEnv::now_ns() / kTogether + 1) * kTogether;
        event.wait(event.prepare(), deadline);
      }
      waiting.fetch_sub(1, std::memory_order_relaxed);
    };
    meter.measure([&] {
      std::vector<std::thread> waiters;
      for (std::size_t i = 0; i < threads; ++i) waiters.emplace_back(wait_often);
      while (waiting.load(std::memory_order_relaxed) != 0) {
        event.notify_one();
        if (pause != 0ns) std::this_thread::sleep_for(pause);
      }
      for (std::thread& waiter : waiters) waiter.join();
    });
    EXPECT_EQ(event.waiters(), 0U);
  });
  const double waits = static_cast<double>(threads * kWaits);
  const double lines = static_cast<double>(run.traffic.travels()) / waits;
  std::printf("%3zu threads: %5.2f lines a wait, %5.1f us, %llu wake-ups\n", threads, lines,
              run.ns / 1e3 / kWaits, static_cast<unsigned long long>(run.traffic.wakes));
  return lines;
}

TEST(ACrowdAtAnEventCount, TakesItsLineThreeTimesAWaitHoweverManyThereAre) {
  for (const std::size_t threads : {7U, 31U, 127U}) {
    EXPECT_LE(lines_of_a_wait(threads, 1us), kLinesOfAWait) << threads;
    EXPECT_LE(lines_of_a_wait(threads, 0us), kLinesOfAWait) << threads;
  }
}

}  // namespace
}  // namespace magpie::cores
