// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Promises: made, set and awaited by one task, which never waits; and set by another task, so that
// every await parks.

#include <support/bench.h>

#include <cstddef>
#include <utility>
#include <vector>

#include <magpie/gather.h>
#include <magpie/promise.h>
#include <magpie/spawn.h>
#include <magpie/task.h>
#include <magpie/this_task.h>

namespace bench {
namespace {

using magpie::Future;
using magpie::Promise;
using magpie::Task;

constexpr std::size_t kPromises = 200'000;
constexpr std::size_t kAtOnce = 1'000;

Task<std::size_t> set_before() {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < kPromises; ++i) {
    Promise<std::size_t> promise;
    Future<std::size_t> future = promise.future();
    promise.set_value(1);
    sum += co_await std::move(future);
  }
  co_return sum;
}

Task<> set_all(std::vector<Promise<std::size_t>> promises) {
  for (auto& promise : promises) promise.set_value(1);
  co_return;
}

Task<std::size_t> set_after() {
  std::size_t sum = 0;
  for (std::size_t round = 0; round < kPromises / kAtOnce; ++round) {
    std::vector<Promise<std::size_t>> promises(kAtOnce);
    std::vector<Future<std::size_t>> futures;
    futures.reserve(kAtOnce);
    for (const auto& promise : promises) futures.push_back(promise.future());
    magpie::JoinHandle<std::vector<std::size_t>> all =
        magpie::spawn(magpie::gather(std::move(futures)));
    co_await magpie::this_task::yield();
    co_await set_all(std::move(promises));
    const std::vector<std::size_t> values = co_await std::move(all);
    for (const std::size_t value : values) sum += value;
  }
  co_return sum;
}

void add_one(const char* workload, std::size_t threads, Task<std::size_t> (*make)()) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == kPromises; });
    count_operations(state, kPromises);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("promise_set_before", threads, set_before);
    add_one("promise_set_after", threads, set_after);
  }
}

}  // namespace bench
