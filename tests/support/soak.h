// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests that run random programs for a while: how long that is, and an end for those that hang.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <iterator>
#include <mutex>
#include <stop_token>
#include <thread>
#include <utility>

#include <magpie/executor.h>
#include <magpie/stats.h>

namespace magpie::test {

/// MAGPIE_SOAK_MINUTES from the environment, as `./dev soak` sets it, or the short time.
inline std::chrono::milliseconds soak_time(std::chrono::milliseconds otherwise) {
  const char* const minutes = std::getenv("MAGPIE_SOAK_MINUTES");
  return minutes != nullptr ? std::chrono::minutes(std::strtol(minutes, nullptr, 10)) : otherwise;
}

/// So many operations at least, however long it takes: `./dev soak --operations N`.
inline std::uint64_t soak_operations() {
  const char* const operations = std::getenv("MAGPIE_SOAK_OPERATIONS");
  return operations != nullptr ? std::strtoull(operations, nullptr, 10) : 0;
}

/// On how many threads the rounds of a stress test run, one after the other: all of 1, 2, 3, 8 and
/// 64, and mostly as many as there may be cores.
inline std::size_t soak_threads(std::size_t round) {
  constexpr std::size_t kNumbers[] = {2, 3, 1, 4, 2, 3, 1, 8, 2, 3, 1, 4, 2, 3, 1, 64};
  return kNumbers[round % std::size(kNumbers)];
}

/// What an executor that hangs is about: its tasks, its workers, what lies in their queues.
inline void show_all(std::ostream& out, const Executor& executor) {
  executor.dump_tasks(out);
  out << to_prometheus(executor.stats()) << std::flush;
}

/// Ends the process when the count stands still for two minutes: a hang. Before that `show` prints
/// what hangs.
class Watchdog {
 public:
  Watchdog(std::atomic<std::uint64_t>& count, std::uint64_t seed,
           std::function<void(std::ostream&)> show)
      : thread_([this, &count, seed, show = std::move(show)] {
          std::uint64_t last = count.load();
          int still = 0;
          while (!stop_.load()) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            const std::uint64_t now = count.load();
            still = now == last ? still + 1 : 0;
            last = now;
            if (still < 1200) continue;
            std::cerr << "nothing has happened for two minutes; seed " << seed << "\n";
            show(std::cerr);
            std::abort();
          }
        }) {}
  ~Watchdog() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// Ends the process when an executor is still in use after eight minutes, and shows it before that.
class LifeLimit {
 public:
  explicit LifeLimit(const Executor& executor)
      : thread_([&executor](std::stop_token stop) {
          std::mutex mutex;
          std::condition_variable_any never;
          std::unique_lock lock(mutex);
          never.wait_for(lock, stop, std::chrono::minutes(8), [] { return false; });
          if (stop.stop_requested()) return;
          std::cerr << "no end in sight\n";
          show_all(std::cerr, executor);
          std::abort();
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace magpie::test
