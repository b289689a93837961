// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Unbalanced tree search: counts the nodes of trees whose shape nobody knows before, a task for
// every node. T1 is wide and shallow, T3 deep and lopsided: most subtrees are tiny, a few hold
// nearly everything.

#include <support/bench.h>
#include <support/uts.h>

#include <cstddef>
#include <cstdint>
#include <ranges>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

Task<std::uint64_t> walk(const uts::Tree& tree, uts::Node node) {
  const int n = tree.children_of(node);
  if (n == 0) co_return 1;
  auto children = std::views::iota(0, n) |
                  std::views::transform([&](int i) { return walk(tree, tree.child(node, i)); });
  const std::vector<std::uint64_t> below = co_await magpie::gather(children);
  std::uint64_t nodes = 1;
  for (const std::uint64_t b : below) nodes += b;
  co_return nodes;
}

std::uint64_t on_tbb(const uts::Tree& tree, const uts::Node& node) {
  const int n = tree.children_of(node);
  if (n == 0) return 1;
  std::vector<std::uint64_t> below(static_cast<std::size_t>(n));
  tbb::task_group group;
  for (int i = 0; i < n; ++i) {
    group.run([&tree, &node, &into = below[static_cast<std::size_t>(i)], i] {
      into = on_tbb(tree, tree.child(node, i));
    });
  }
  group.wait();
  std::uint64_t nodes = 1;
  for (const std::uint64_t b : below) nodes += b;
  return nodes;
}

// What the nodes cost by themselves: one thread, no tasks.
std::uint64_t in_turn(const uts::Tree& tree, const uts::Node& node) {
  const int n = tree.children_of(node);
  std::uint64_t nodes = 1;
  for (int i = 0; i < n; ++i) nodes += in_turn(tree, tree.child(node, i));
  return nodes;
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const uts::Workload& workload : uts::workloads(options)) {
    for (const std::size_t threads : options.threads) {
      add(workload.name, "magpie", threads,
          [threads, tree = workload.tree](benchmark::State& state) {
            std::uint64_t result = 0;
            measure_magpie(
                state, threads,
                [&](auto& executor) { result = executor.run(walk(tree, tree.root())); },
                [&] { return result == tree.nodes; });
          });
      add(workload.name, "tbb_task_group", threads,
          [threads, tree = workload.tree](benchmark::State& state) {
            std::uint64_t result = 0;
            measure_tbb(
                state, threads, [&] { result = on_tbb(tree, tree.root()); },
                [&] { return result == tree.nodes; });
          });
      if (threads != 1) continue;
      add(workload.name, "plain_functions", threads,
          [tree = workload.tree](benchmark::State& state) {
            std::uint64_t result = 0;
            measure(
                state, [&] { result = in_turn(tree, tree.root()); },
                [&] { return result == tree.nodes; });
          });
    }
  }
}

}  // namespace bench
