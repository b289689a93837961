// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// OpenMP tasks, of the runtime that the compiler brings along: libomp with clang++, libgomp with
// g++. One child goes on inline where a node has few, as on oneTBB.

#include <support/bench.h>
#include <support/problems.h>
#include <support/uts.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {
namespace {

/// `once()` by one thread of a team of so many; the others run its tasks.
template <class Once, class Correct>
void measure_openmp(benchmark::State& state, std::size_t threads, Once&& once, Correct&& correct) {
  const int team = static_cast<int>(threads);
  measure(
      state,
      [&] {
#pragma omp parallel num_threads(team) shared(once)
#pragma omp single
        once();
      },
      correct);
}

long fib(int n) {
  if (n < 2) return n;
  long a = 0;
#pragma omp task shared(a) firstprivate(n)
  a = fib(n - 1);
  const long b = fib(n - 2);
#pragma omp taskwait
  return a + b;
}

std::uint64_t skynet(std::uint64_t first, std::uint64_t leaves) {
  if (leaves == 1) return first;
  const std::uint64_t part = leaves / kSkynetChildren;
  std::uint64_t sums[kSkynetChildren];
  for (std::size_t i = 1; i < kSkynetChildren; ++i) {
#pragma omp task shared(sums) firstprivate(i, first, part)
    sums[i] = skynet(first + i * part, part);
  }
  sums[0] = skynet(first, part);
#pragma omp taskwait
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum += s;
  return sum;
}

long count_queens(const Board& board, int row, int n) {
  if (row == n) return 1;
  std::array<long, kMostQueens> solutions{};
  for (int column = 0; column < n; ++column) {
    if (attacked(board, row, column)) continue;
    const Board next = with_queen(board, row, column);
#pragma omp task shared(solutions) firstprivate(next, row, column, n)
    solutions[static_cast<std::size_t>(column)] = count_queens(next, row + 1, n);
  }
#pragma omp taskwait
  long sum = 0;
  for (const long s : solutions) sum += s;
  return sum;
}

std::uint64_t walk(const uts::Tree& tree, const uts::Node& node) {
  const int n = tree.children_of(node);
  if (n == 0) return 1;
  std::vector<std::uint64_t> below(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    std::uint64_t* const into = &below[static_cast<std::size_t>(i)];
#pragma omp task shared(tree, node) firstprivate(i, into)
    *into = walk(tree, tree.child(node, i));
  }
#pragma omp taskwait
  std::uint64_t nodes = 1;
  for (const std::uint64_t b : below) nodes += b;
  return nodes;
}

std::size_t tasks_of(std::size_t n) {
  std::vector<std::size_t> results(n);
  for (std::size_t& result : results) {
    std::size_t* const into = &result;
#pragma omp task firstprivate(into)
    *into = 1;
  }
#pragma omp taskwait
  std::size_t sum = 0;
  for (const std::size_t r : results) sum += r;
  return sum;
}

std::size_t gathers(std::size_t width) {
  std::size_t sum = 0;
  for (std::size_t done = 0; done < kGatheredChildren; done += width) sum += tasks_of(width);
  return sum;
}

template <class Value, class Make>
void add_one(const std::string& workload, std::size_t threads, std::size_t operations,
             Value expected, Make make) {
  add(workload, "openmp_tasks", threads, [=](benchmark::State& state) {
    Value result{};
    measure_openmp(state, threads, [&] { result = make(); }, [&] { return result == expected; });
    if (operations != 0) count_operations(state, operations);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  const int n = fib_size(options);
  const std::uint64_t leaves = skynet_leaves(options);
  const int board = queens(options);
  for (const std::size_t threads : options.threads) {
    add_one("fib", threads, 0, fib_value(n), [=] { return fib(n); });
    add_one("skynet", threads, 0, skynet_sum(leaves), [=] { return skynet(0, leaves); });
    add_one("nqueens", threads, 0, kQueensSolutions[static_cast<std::size_t>(board)],
            [=] { return count_queens(Board{}, 0, board); });
    for (const uts::Workload& workload : uts::workloads(options)) {
      add_one(workload.name, threads, 0, workload.tree.nodes,
              [tree = workload.tree] { return walk(tree, tree.root()); });
    }
    add_one("spawn_and_wait", threads, kSpawnedTasks, kSpawnedTasks,
            [] { return tasks_of(kSpawnedTasks); });
    for (const std::size_t width : {std::size_t{10}, std::size_t{1'000}, std::size_t{100'000}}) {
      add_one("gather_" + std::to_string(width), threads, kGatheredChildren, kGatheredChildren,
              [=] { return gathers(width); });
    }
  }
}

}  // namespace bench
