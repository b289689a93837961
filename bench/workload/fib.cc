// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Fork-join Fibonacci: nothing but forks. The tree of calls that any real program would cut off at
// some size is forked down to the leaves, so that the time is the cost of a fork and a join.

#include <support/bench.h>
#include <support/problems.h>

#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/task.h>
#include <oneapi/tbb/parallel_invoke.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

Task<long> fork(int n) {
  if (n < 2) co_return n;
  auto [a, b] = co_await magpie::gather(fork(n - 1), fork(n - 2));
  co_return a + b;
}

// The same coroutines, one after the other: what forking them adds is the ratio to this.
Task<long> in_turn(int n) {
  if (n < 2) co_return n;
  const long a = co_await in_turn(n - 1);
  const long b = co_await in_turn(n - 2);
  co_return a + b;
}

// One child goes on inline, the form that is fastest on oneTBB.
long on_tbb(int n) {
  if (n < 2) return n;
  long a = 0;
  tbb::task_group group;
  group.run([&a, n] { a = on_tbb(n - 1); });
  const long b = on_tbb(n - 2);
  group.wait();
  return a + b;
}

// Plain functions, no coroutine at all.
long shared_out(int n) {
  if (n < 2) return n;
  const auto [a, b] =
      magpie::fork_join([n] { return shared_out(n - 1); }, [n] { return shared_out(n - 2); });
  return a + b;
}

long invoked_by_tbb(int n) {
  if (n < 2) return n;
  long a = 0;
  long b = 0;
  tbb::parallel_invoke([&a, n] { a = invoked_by_tbb(n - 1); },
                       [&b, n] { b = invoked_by_tbb(n - 2); });
  return a + b;
}

Task<long> shared_out_in_a_task(int n) {
  co_return shared_out(n);
}

}  // namespace

void register_benchmarks(const Options& options) {
  const int n = fib_size(options);
  for (const std::size_t threads : options.threads) {
    add("fib", "magpie", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_magpie(
          state, threads, [&](auto& executor) { result = executor.run(fork(n)); },
          [&] { return result == fib_value(n); });
    });
    add("fib", "tbb_task_group", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_tbb(
          state, threads, [&] { result = on_tbb(n); }, [&] { return result == fib_value(n); });
    });
    add("fib_functions", "magpie", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_magpie(
          state, threads, [&](auto& executor) { result = executor.run(shared_out_in_a_task(n)); },
          [&] { return result == fib_value(n); });
    });
    add("fib_functions", "tbb_parallel_invoke", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_tbb(
          state, threads, [&] { result = invoked_by_tbb(n); },
          [&] { return result == fib_value(n); });
    });
    if (threads != 1) continue;  // it cannot use more
    add("fib", "sequential_awaits", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_magpie(
          state, threads, [&](auto& executor) { result = executor.run(in_turn(n)); },
          [&] { return result == fib_value(n); });
    });
  }
}

}  // namespace bench
