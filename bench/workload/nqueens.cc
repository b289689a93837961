// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// N queens: counts the ways to place n queens on a board, a task for every placement that is
// possible so far. An uneven tree with a little work in each node, forked down to the leaves; how
// many children a node has is known only when it runs.

#include <support/bench.h>
#include <support/problems.h>

#include <array>
#include <cstddef>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

Task<long> count(Board board, int row, int n) {
  if (row == n) co_return 1;
  std::vector<Task<long>> children;
  children.reserve(static_cast<std::size_t>(n));
  for (int column = 0; column < n; ++column) {
    if (!attacked(board, row, column))
      children.push_back(count(with_queen(board, row, column), row + 1, n));
  }
  const std::vector<long> solutions = co_await magpie::gather(std::move(children));
  long sum = 0;
  for (const long s : solutions) sum += s;
  co_return sum;
}

long on_tbb(const Board& board, int row, int n) {
  if (row == n) return 1;
  std::array<long, kMostQueens> solutions{};
  tbb::task_group group;
  for (int column = 0; column < n; ++column) {
    if (attacked(board, row, column)) continue;
    group.run([solution = &solutions[static_cast<std::size_t>(column)],
               next = with_queen(board, row, column), row,
               n] { *solution = on_tbb(next, row + 1, n); });
  }
  group.wait();
  long sum = 0;
  for (const long s : solutions) sum += s;
  return sum;
}

}  // namespace

void register_benchmarks(const Options& options) {
  const int n = queens(options);
  const auto expected = kQueensSolutions[static_cast<std::size_t>(n)];
  for (const std::size_t threads : options.threads) {
    add("nqueens", "magpie", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_magpie(
          state, threads, [&](auto& executor) { result = executor.run(count(Board{}, 0, n)); },
          [&] { return result == expected; });
    });
    add("nqueens", "tbb_task_group", threads, [=](benchmark::State& state) {
      long result = 0;
      measure_tbb(
          state, threads, [&] { result = on_tbb(Board{}, 0, n); },
          [&] { return result == expected; });
    });
  }
}

}  // namespace bench
