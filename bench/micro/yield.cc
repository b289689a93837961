// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// One task that yields in a loop, a hundred that yield in turn, and a loop over checkpoint(), which
// does not suspend.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kCheckpoints = 20'000'000;

Task<std::size_t> yields(std::size_t n) {
  std::size_t done = 0;
  for (; done < n; ++done) co_await magpie::this_task::yield();
  co_return done;
}

Task<std::size_t> yields_of(std::size_t tasks) {
  std::vector<Task<std::size_t>> children;
  for (std::size_t i = 0; i < tasks; ++i) children.push_back(yields(kYields / tasks));
  const std::vector<std::size_t> results = co_await magpie::gather(std::move(children));
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  co_return sum;
}

Task<std::size_t> checkpoints() {
  std::size_t done = 0;
  for (; done < kCheckpoints; ++done) co_await magpie::this_task::checkpoint();
  co_return done;
}

void add_one(const char* workload, std::size_t threads, std::size_t operations,
             Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == operations; });
    count_operations(state, operations);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("yield_of_1", threads, kYields, [] { return yields(kYields); });
    add_one("yield_of_100", threads, kYields, [] { return yields_of(100); });
  }
  add_one("checkpoint", 1, kCheckpoints, checkpoints);
}

}  // namespace bench
