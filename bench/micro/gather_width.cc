// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Flat gathers: 10, 1,000 and 100,000 children that do nothing, from a vector. Nanoseconds per
// child.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kChildren = kGatheredChildren;

Task<std::size_t> one() {
  co_return 1;
}

Task<std::size_t> gathers(std::size_t width) {
  std::size_t sum = 0;
  for (std::size_t done = 0; done < kChildren; done += width) {
    std::vector<Task<std::size_t>> children;
    children.reserve(width);
    for (std::size_t i = 0; i < width; ++i) children.push_back(one());
    const std::vector<std::size_t> results = co_await magpie::gather(std::move(children));
    for (const std::size_t r : results) sum += r;
  }
  co_return sum;
}

std::size_t on_tbb(std::size_t width) {
  std::size_t sum = 0;
  for (std::size_t done = 0; done < kChildren; done += width) {
    std::vector<std::size_t> results(width);
    tbb::task_group group;
    for (std::size_t i = 0; i < width; ++i) group.run([&result = results[i]] { result = 1; });
    group.wait();
    for (const std::size_t r : results) sum += r;
  }
  return sum;
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t width : {std::size_t{10}, std::size_t{1'000}, std::size_t{100'000}}) {
    const std::string workload = "gather_" + std::to_string(width);
    for (const std::size_t threads : options.threads) {
      add(workload, "magpie", threads, [=](benchmark::State& state) {
        std::size_t result = 0;
        measure_magpie(
            state, threads, [&](auto& executor) { result = executor.run(gathers(width)); },
            [&] { return result == kChildren; });
        count_operations(state, kChildren);
      });
      add(workload, "tbb_task_group", threads, [=](benchmark::State& state) {
        std::size_t result = 0;
        measure_tbb(
            state, threads, [&] { result = on_tbb(width); }, [&] { return result == kChildren; });
        count_operations(state, kChildren);
      });
    }
  }
}

}  // namespace bench
