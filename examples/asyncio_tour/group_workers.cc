// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: async with asyncio.TaskGroup() as tg: task1 = tg.create_task(worker("A", 2)) ...
// The block ends when all its tasks have ended; the handles keep the results.

#include <cstdio>
#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> worker(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  tour::print("%s is done", name.c_str());
  char text[80];
  std::snprintf(text, sizeof text, "Worker %s done in %gs", name.c_str(), delay.count());
  co_return text;
}

Task<void> program() {
  JoinHandle<std::string> task1, task2, task3;
  co_await task_group([&](TaskGroup& group) -> Task<void> {
    task1 = group.spawn(worker("A", 2s));
    task2 = group.spawn(worker("B", 1s));
    task3 = group.spawn(worker("C", 3s));
    co_return;
  });
  for (const auto& task : {task1, task2, task3}) tour::print("%s", task.result().value().c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
