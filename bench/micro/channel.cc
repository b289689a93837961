// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Values through a channel: one producer and one consumer with buffers of several sizes and without
// one; four and four; and by one task that sends and receives in turn, which never waits.

#include <support/bench.h>
#include <support/problems.h>

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <magpie/channel.h>
#include <magpie/gather.h>
#include <magpie/task.h>

namespace bench {
namespace {

using magpie::Channel;
using magpie::Task;

constexpr std::size_t kValues = kChannelValues;

Task<std::size_t> produce(Channel<std::size_t>& channel, std::size_t n) {
  for (std::size_t i = 1; i <= n; ++i) co_await channel.send(i);
  co_return n;
}

Task<std::size_t> consume(Channel<std::size_t>& channel, std::size_t n) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::optional<std::size_t> value = co_await channel.receive();
    if (value) ++count;
  }
  co_return count;
}

Task<std::size_t> through(std::size_t capacity, std::size_t ends) {
  Channel<std::size_t> channel(capacity);
  std::vector<Task<std::size_t>> tasks;
  for (std::size_t i = 0; i < ends; ++i) {
    tasks.push_back(produce(channel, kValues / ends));
    tasks.push_back(consume(channel, kValues / ends));
  }
  const std::vector<std::size_t> results = co_await magpie::gather(std::move(tasks));
  std::size_t received = 0;
  for (std::size_t i = 1; i < results.size(); i += 2) received += results[i];
  co_return received;
}

Task<std::size_t> in_turn() {
  Channel<std::size_t> channel(16);
  std::size_t count = 0;
  for (std::size_t i = 0; i < kValues; ++i) {
    co_await channel.send(i);
    const std::optional<std::size_t> value = co_await channel.receive();
    if (value == i) ++count;
  }
  co_return count;
}

template <class Make>
void add_one(const std::string& workload, std::size_t threads, Make make) {
  add(workload, "magpie", threads, [=](benchmark::State& state) {
    std::size_t result = 0;
    measure_magpie(
        state, threads, [&](auto& executor) { result = executor.run(make()); },
        [&] { return result == kValues; });
    count_operations(state, kValues);
  });
}

}  // namespace

void register_benchmarks(const Options& options) {
  for (const std::size_t threads : options.threads) {
    add_one("channel_in_turn", threads, [] { return in_turn(); });
    for (const std::size_t capacity :
         {std::size_t{0}, std::size_t{1}, std::size_t{64}, std::size_t{1024}}) {
      add_one("channel_1_to_1_of_" + std::to_string(capacity), threads,
              [=] { return through(capacity, 1); });
    }
    add_one("channel_4_to_4_of_64", threads, [] { return through(64, 4); });
  }
}

}  // namespace bench
