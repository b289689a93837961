// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: semaphore = Semaphore(n); async with semaphore: await coro; gather(*[limited(t) ...])
// Only so many at a time. map_concurrent makes the tasks one by one, too, just when they may start.

#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<int> fetch(int id) {
  co_await sleep_for(1s);
  co_return id* id;
}

Task<void> program() {
  std::vector<Task<int>> tasks;
  for (int id = 1; id <= 10; ++id) tasks.push_back(fetch(id));
  const std::vector<int> results = co_await gather_limited(4, std::move(tasks));
  tour::print("ten requests, four at a time: the last result is %d", results.back());

  std::vector<int> ids{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const std::vector<int> squares = co_await map_concurrent(ids, 5, fetch);
  tour::print("five at a time: the last result is %d", squares.back());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
