// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// std::async with std::launch::async: a thread for each task, as many as the system lets run. So it
// has rows only for the largest number of threads, and fewer operations in a run: what one of them
// costs is compared.

#include <support/bench.h>
#include <support/problems.h>

#include <algorithm>
#include <cstddef>
#include <future>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr std::size_t kTasks = 1'000;

std::size_t tasks_of(std::size_t width) {
  std::size_t sum = 0;
  std::vector<std::future<std::size_t>> futures;
  futures.reserve(width);
  for (std::size_t done = 0; done < kTasks; done += width) {
    for (std::size_t i = 0; i < width; ++i)
      futures.push_back(std::async(std::launch::async, [] { return std::size_t{1}; }));
    for (auto& future : futures) sum += future.get();
    futures.clear();
  }
  return sum;
}

void add_one(const std::string& workload, std::size_t threads, std::size_t width) {
  add(workload, "std_async", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure(state, [&] { result = tasks_of(width); }, [&] { return result == kTasks; });
    count_operations(state, kTasks);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  const std::size_t threads = *std::max_element(options.threads.begin(), options.threads.end());
  add_one("spawn_and_wait", threads, kTasks);
  add_one("gather_10", threads, 10);
  add_one("gather_1000", threads, 1'000);
}

}  // namespace bench
