// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// N queens: counts the ways to place n queens on a board, a task for every placement that is
// possible so far. An uneven tree with a little work in each node, forked down to the leaves; how
// many children a node has is known only when it runs.

#include <support/bench.h>

#include <array>
#include <cstddef>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

constexpr int kMost = 16;
using Board = std::array<signed char, kMost>;  // the column of the queen in each row

bool attacked(const Board& board, int row, int column) {
  for (int r = 0; r < row; ++r) {
    const int distance = column - board[static_cast<std::size_t>(r)];
    if (distance == 0 || distance == row - r || distance == r - row) return true;
  }
  return false;
}

Board with_queen(Board board, int row, int column) {
  board[static_cast<std::size_t>(row)] = static_cast<signed char>(column);
  return board;
}

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
  std::array<long, kMost> solutions{};
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

// Known counts, so that a program that is wrong in the same way on both sides is found out too.
constexpr std::array<long, 14> kSolutions{1,  1,  0,   0,   2,     10,     4,
                                          40, 92, 352, 724, 2'680, 14'200, 73'712};

}  // namespace

void register_benchmarks(const Options& options) {
  const int n = options.full ? 12 : 11;
  const auto expected = kSolutions[static_cast<std::size_t>(n)];
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
