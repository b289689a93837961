// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the benchmark programs share: how a benchmark is named, how many threads it gets, and how it
// fails.
//
// A benchmark is called <workload>/<side>/threads:<n>. Sides that begin with "magpie" are ours;
// run.py sets every other side of the same workload and number of threads beside them. Wall time is
// measured, and CPU time over all threads of the process.
//
// A program defines register_benchmarks(); main() is in main.cc.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <magpie/work_stealing_executor.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/task_arena.h>

namespace bench {

struct Options {
  std::vector<std::size_t>
      threads;        // 1, available_parallelism(), and what --threads= adds; ascending
  bool full = false;  // --full: the large sizes
};

/// Defined by each program: calls add() for each of its benchmarks.
void register_benchmarks(const Options& options);

using Body = std::function<void(benchmark::State&)>;
void add(const std::string& workload, const std::string& side, std::size_t threads, Body body);

/// A wrong result: an error in the report, and exit code 1 of the program.
void fail(benchmark::State& state, const std::string& what_is_wrong);

/// What the timed part took besides time, for one iteration: context switches; and the most memory
/// that the process has had. Counters "switches" and "peak_mb" of the report.
class Usage {
 public:
  Usage();
  void report(benchmark::State& state) const;

 private:
  long switches_;
};

/// Runs `once` as often as Google Benchmark wants; `correct` looks at its result outside the timed
/// part, first and last. The first run is not timed: it starts threads and touches memory.
template <class Once, class Correct>
void measure(benchmark::State& state, Once&& once, Correct&& correct) {
  once();
  if (!correct()) return fail(state, "wrong result");
  const Usage usage;
  for (auto _ : state) once();
  usage.report(state);
  if (!correct()) fail(state, "wrong result");
}

/// `once(executor)` on a work-stealing executor that is made before the timed part.
template <class Once, class Correct>
void measure_magpie(benchmark::State& state, std::size_t threads, Once&& once, Correct&& correct) {
  magpie::WorkStealingExecutor executor({.threads = threads});
  measure(state, [&] { once(executor); }, correct);
}

/// `once()` inside a oneTBB arena of so many threads, the calling one included.
template <class Once, class Correct>
void measure_tbb(benchmark::State& state, std::size_t threads, Once&& once, Correct&& correct) {
  // The arena alone cannot have more threads than oneTBB thinks the machine has.
  const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
  tbb::task_arena arena(static_cast<int>(threads));
  measure(state, [&] { arena.execute(once); }, correct);
}

/// For programs whose inner operation is what counts: gives nanoseconds per operation.
inline void count_operations(benchmark::State& state, std::size_t per_iteration) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(per_iteration));
}

}  // namespace bench
