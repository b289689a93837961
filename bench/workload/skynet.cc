// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Skynet: a tree in which every node has ten children and every leaf gives its number; the root
// gets their sum. Wide forks of tasks that do nothing: once with gather of a pack (one frame and
// nothing else per task), once with gather of a vector.

#include <support/bench.h>
#include <support/problems.h>

#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include <magpie/gather.h>
#include <magpie/task.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;

constexpr std::size_t kChildren = kSkynetChildren;

Task<std::uint64_t> of_pack(std::uint64_t first, std::uint64_t leaves) {
  if (leaves == 1) co_return first;
  const std::uint64_t part = leaves / kChildren;
  const auto children = [&]<std::size_t... I>(std::index_sequence<I...>) {
    return magpie::gather(of_pack(first + I * part, part)...);
  };
  const auto sums = co_await children(std::make_index_sequence<kChildren>());
  co_return std::apply([](auto... sum) { return (sum + ...); }, sums);
}

Task<std::uint64_t> of_vector(std::uint64_t first, std::uint64_t leaves) {
  if (leaves == 1) co_return first;
  const std::uint64_t part = leaves / kChildren;
  std::vector<Task<std::uint64_t>> children;
  children.reserve(kChildren);
  for (std::size_t i = 0; i < kChildren; ++i) children.push_back(of_vector(first + i * part, part));
  const std::vector<std::uint64_t> sums = co_await magpie::gather(std::move(children));
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum += s;
  co_return sum;
}

std::uint64_t on_tbb(std::uint64_t first, std::uint64_t leaves) {
  if (leaves == 1) return first;
  const std::uint64_t part = leaves / kChildren;
  std::uint64_t sums[kChildren];
  tbb::task_group group;
  for (std::size_t i = 1; i < kChildren; ++i) {
    group.run([&sums, i, first, part] { sums[i] = on_tbb(first + i * part, part); });
  }
  sums[0] = on_tbb(first, part);
  group.wait();
  std::uint64_t sum = 0;
  for (const std::uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

void register_benchmarks(const Options& options) {
  const std::uint64_t leaves = skynet_leaves(options);
  const std::uint64_t expected = skynet_sum(leaves);
  for (const std::size_t threads : options.threads) {
    const auto add_magpie = [=](const char* side,
                                Task<std::uint64_t> (*tree)(std::uint64_t, std::uint64_t)) {
      add("skynet", side, threads, [=](benchmark::State& state) {
        std::uint64_t result = 0;
        measure_magpie(
            state, threads, [&](auto& executor) { result = executor.run(tree(0, leaves)); },
            [&] { return result == expected; });
      });
    };
    add_magpie("magpie", of_pack);
    add("skynet", "tbb_task_group", threads, [=](benchmark::State& state) {
      std::uint64_t result = 0;
      measure_tbb(
          state, threads, [&] { result = on_tbb(0, leaves); }, [&] { return result == expected; });
    });
    add_magpie("magpie_vector", of_vector);
  }
}

}  // namespace bench
