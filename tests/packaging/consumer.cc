// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
//
// A stranger's program: it knows the installed headers and the one library, nothing of the tree. It
// may be compiled by another compiler than the library was, so it uses what goes to and fro between
// a program and the library's binary.
#include <magpie/magpie.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace {

magpie::Task<int> twice(int x) {
  co_return 2 * x;
}

magpie::Task<int> sum() {
  auto [a, b] = co_await magpie::gather(twice(20), twice(1));
  co_return a + b;
}

magpie::Task<int> held(magpie::Task<int> inner) {
  int x = co_await std::move(inner);
  co_return x;
}

magpie::Task<void> is_ready(magpie::ReadySignal<int> ready) {
  ready.set(5);
  co_await magpie::sleep_for(std::chrono::milliseconds(1));
}

magpie::Task<int> group() {
  co_return co_await magpie::task_group([](magpie::TaskGroup& group) -> magpie::Task<int> {
    int started = co_await group.start<int>(is_ready);
    co_return started;
  });
}

magpie::Task<void> nothing() {
  co_return;
}

magpie::Task<std::size_t> everything() {
  std::vector<magpie::Task<int>> tasks;
  for (int i = 0; i < 10; ++i) tasks.push_back(held(twice(i)));
  auto gathered = co_await magpie::gather_limited(3, std::move(tasks));
  std::vector<magpie::TaskFactory<int>> ways;
  ways.push_back([] { return twice(9); });
  auto raced = co_await magpie::staggered_race(std::move(ways), std::chrono::seconds(1));
  auto mapped = co_await magpie::map_concurrent(gathered, 2, twice);
  auto batched = co_await magpie::batch(gathered, 4, twice);
  auto handle = magpie::spawn(magpie::finally(group(), nothing), "named");
  int started = co_await handle;
  auto again = [] { return twice(7); };
  int retried = co_await magpie::retry(again, magpie::RetryPolicy());
  auto in_time = co_await magpie::try_timeout(magpie::shield(twice(1)), std::chrono::hours(1));
  auto late = co_await magpie::try_timeout(magpie::sleep_for(std::chrono::hours(1)),
                                           std::chrono::milliseconds(1));
  auto text = co_await magpie::to_thread([] { return std::string("blocking"); });
  co_return gathered.size() + mapped.size() + batched.size() + text.size() +
      static_cast<std::size_t>(raced.value + started + retried + in_time.value()) +
      (late.is_timeout() ? 1 : 0);
}

}  // namespace

int main() {
  const int result = magpie::run(sum());
  const std::size_t all = magpie::run(everything());
  std::printf("%d %zu\n", result, all);
  return result == 42 && all == 78 ? 0 : 1;
}
