// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// A task on a worker spawns tasks that do nothing and waits for all of them: what a task with id,
// handle and a place in the dump costs, against a bare job.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <vector>

#include <magpie/join_handle.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kTasks = kSpawnedTasks;

Task<std::size_t> one() {
  co_return 1;
}

Task<std::size_t> spawn_and_wait() {
  std::vector<magpie::JoinHandle<std::size_t>> handles;
  handles.reserve(kTasks);
  for (std::size_t i = 0; i < kTasks; ++i) handles.push_back(magpie::spawn(one()));
  std::size_t sum = 0;
  for (auto& handle : handles) sum += co_await handle;
  co_return sum;
}

std::size_t on_tbb() {
  std::vector<std::size_t> results(kTasks);
  tbb::task_group group;
  for (std::size_t i = 0; i < kTasks; ++i) group.run([&result = results[i]] { result = 1; });
  group.wait();
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  return sum;
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add("spawn_and_wait", "magpie", threads, [=](benchmark::State& state) {
      std::size_t result = 0;
      measure_magpie(
          state, threads, [&](auto& executor) { result = executor.run(spawn_and_wait()); },
          [&] { return result == kTasks; });
      count_operations(state, kTasks);
    });
    add("spawn_and_wait", "tbb_task_group", threads, [=](benchmark::State& state) {
      std::size_t result = 0;
      measure_tbb(state, threads, [&] { result = on_tbb(); }, [&] { return result == kTasks; });
      count_operations(state, kTasks);
    });
  }
}

}  // namespace bench
