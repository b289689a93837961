// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: async with asyncio.timeout(timeout): await asyncio.sleep(delay)  ...in each task of a
// TaskGroup Each worker has its own limit and says itself how it ended, so that nobody else is
// cancelled.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> timed_worker(std::string name, Seconds delay, Seconds limit) {
  const Result<void> slept = co_await try_timeout(sleep_for(delay), limit);
  co_return name + (slept.is_timeout() ? " timed out" : " completed");
}

Task<void> program() {
  JoinHandle<std::string> task1, task2, task3;
  co_await task_group([&](TaskGroup& group) -> Task<void> {
    task1 = group.spawn(timed_worker("A", 5s, 2s));   // times out
    task2 = group.spawn(timed_worker("B", 1s, 3s));   // completes
    task3 = group.spawn(timed_worker("C", 3s, 10s));  // completes
    co_return;
  });
  for (const auto& task : {task1, task2, task3}) tour::print("%s", task.result().value().c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
