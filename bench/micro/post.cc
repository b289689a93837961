// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Jobs from outside: one or two threads that are no workers post functions and wait until all have
// run.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <string>

#include <oneapi/tbb/task_arena.h>

namespace bench {

void register_benchmarks(const Options& options) {
  for (const std::size_t producers : {std::size_t{1}, std::size_t{2}}) {
    const std::string workload = "post_from_" + std::to_string(producers);
    for (const std::size_t threads : options.threads) {
      add(workload, "magpie", threads, [=](benchmark::State& state) {
        Countdown left;
        measure_magpie(
            state, threads,
            [&](auto& executor) {
              post_from_outside(producers, left, [&] { executor.post([&left] { left.done(); }); });
            },
            [&] { return left.is_done(); });
        count_operations(state, kPostedJobs);
      });
      add(workload, "tbb_enqueue", threads, [=](benchmark::State& state) {
        Countdown left;
        // One more than workers: the caller's own place, which it does not take.
        const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads + 1);
        tbb::task_arena arena(static_cast<int>(threads), 0);
        measure(
            state,
            [&] {
              post_from_outside(producers, left, [&] { arena.enqueue([&left] { left.done(); }); });
            },
            [&] { return left.is_done(); });
        count_operations(state, kPostedJobs);
      });
    }
  }
}

}  // namespace bench
