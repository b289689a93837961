// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// CPU loops beside oneTBB's: a loop over a million numbers and a sum of them with the grain that
// each library chooses; the same with grains of 64 elements, which shows the cost of a grain; and
// loops over 100 elements one after the other, which show the cost of a loop. Nanoseconds per
// element; of short loops, per loop.

#include <support/bench.h>

#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <magpie/parallel.h>
#include <magpie/task.h>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/parallel_reduce.h>

namespace bench {
namespace {

using magpie::Task;
using Range = tbb::blocked_range<std::size_t>;

constexpr std::size_t kElements = 1'000'000;
constexpr std::size_t kShort = 100;
constexpr std::size_t kLoops = 10'000;
// A loop over the million takes about as long as to wake a worker and the thread that waits for
// it, which `wake` measures: so many lie in one task.
constexpr std::size_t kLongLoops = 16;

Task<> magpie_for(std::vector<float>& values, std::size_t grain) {
  float* const v = values.data();
  co_await magpie::parallel_for(std::size_t{0}, values.size(), grain,
                                [v](std::size_t i) { v[i] += 1; });
}

Task<> magpie_fors(std::vector<float>& values, std::size_t grain) {
  for (std::size_t i = 0; i < kLongLoops; ++i) co_await magpie_for(values, grain);
}

void tbb_for(std::vector<float>& values, std::size_t grain) {
  float* const v = values.data();
  const auto body = [v](const Range& r) {
    for (std::size_t i = r.begin(); i != r.end(); ++i) v[i] += 1;
  };
  if (grain == 0) {
    tbb::parallel_for(Range(0, values.size()), body);
  } else {
    tbb::parallel_for(Range(0, values.size(), grain), body, tbb::simple_partitioner());
  }
}

Task<std::size_t> magpie_sum(const std::vector<std::size_t>& values, std::size_t grain) {
  const std::size_t* const v = values.data();
  co_return co_await magpie::parallel_reduce(
      std::size_t{0}, values.size(), grain, std::size_t{0}, [v](std::size_t i) { return v[i]; },
      std::plus<>());
}

Task<std::size_t> magpie_sums(const std::vector<std::size_t>& values, std::size_t grain) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kLongLoops; ++i) sum += co_await magpie_sum(values, grain);
  co_return sum;
}

std::size_t tbb_sum(const std::vector<std::size_t>& values, std::size_t grain) {
  const std::size_t* const v = values.data();
  const auto body = [v](const Range& r, std::size_t sum) {
    for (std::size_t i = r.begin(); i != r.end(); ++i) sum += v[i];
    return sum;
  };
  if (grain == 0) {
    return tbb::parallel_reduce(Range(0, values.size()), std::size_t{0}, body, std::plus<>());
  }
  return tbb::parallel_reduce(Range(0, values.size(), grain), std::size_t{0}, body, std::plus<>(),
                              tbb::simple_partitioner());
}

Task<> short_loops(std::vector<float>& values, std::size_t grain) {
  for (std::size_t i = 0; i < kLoops; ++i) co_await magpie_for(values, grain);
}

void add_for(std::size_t grain, std::size_t threads) {
  const std::string workload = grain == 0 ? "for_auto" : "for_grain_" + std::to_string(grain);
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::vector<float> values(kElements);
    measure_magpie(
        state, threads, [&](auto& executor) { executor.run(magpie_fors(values, grain)); },
        [&] { return values.front() == values.back() && values[0] > 0; });
    count_operations(state, kLongLoops * kElements);
  });
  add(workload, "tbb_parallel_for", threads, [=](benchmark::State& state) {
    std::vector<float> values(kElements);
    measure_tbb(
        state, threads,
        [&] {
          for (std::size_t i = 0; i < kLongLoops; ++i) tbb_for(values, grain);
        },
        [&] { return values.front() == values.back() && values[0] > 0; });
    count_operations(state, kLongLoops * kElements);
  });
}

void add_sum(std::size_t grain, std::size_t threads) {
  const std::string workload = grain == 0 ? "reduce_auto" : "reduce_grain_" + std::to_string(grain);
  std::vector<std::size_t> values(kElements);
  std::iota(values.begin(), values.end(), std::size_t{0});
  constexpr std::size_t kSum = kElements * (kElements - 1) / 2;
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t sum = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { sum = executor.run(magpie_sums(values, grain)); },
        [&] { return sum == kLongLoops * kSum; });
    count_operations(state, kLongLoops * kElements);
  });
  add(workload, "tbb_parallel_reduce", threads, [=](benchmark::State& state) {
    std::size_t sum = 0;
    measure_tbb(
        state, threads,
        [&] {
          sum = 0;
          for (std::size_t i = 0; i < kLongLoops; ++i) sum += tbb_sum(values, grain);
        },
        [&] { return sum == kLongLoops * kSum; });
    count_operations(state, kLongLoops * kElements);
  });
}

void add_short(std::size_t grain, std::size_t threads) {
  const std::string workload = grain == 0 ? "short_loop_auto" : "short_loop_one_grain";
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::vector<float> values(kShort);
    measure_magpie(
        state, threads, [&](auto& executor) { executor.run(short_loops(values, grain)); },
        [&] { return values.front() > 0; });
    count_operations(state, kLoops);
  });
  add(workload, "tbb_parallel_for", threads, [=](benchmark::State& state) {
    std::vector<float> values(kShort);
    measure_tbb(
        state, threads,
        [&] {
          for (std::size_t i = 0; i < kLoops; ++i) tbb_for(values, grain);
        },
        [&] { return values.front() > 0; });
    count_operations(state, kLoops);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    for (const std::size_t grain : {std::size_t{0}, std::size_t{64}}) {
      add_for(grain, threads);
      add_sum(grain, threads);
    }
    add_short(0, threads);
    add_short(kShort, threads);
  }
}

}  // namespace bench
