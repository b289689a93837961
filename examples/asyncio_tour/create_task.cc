// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: task = asyncio.create_task(work("task1", 1)); result = await task
// A spawned task runs while we do something else; awaiting its handle gives the result.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  tour::print("%s started", name.c_str());
  co_await sleep_for(delay);
  tour::print("%s finished", name.c_str());
  co_return name + " result";
}

Task<void> program() {
  JoinHandle<std::string> task = spawn(work("task1", 1s));
  co_await sleep_for(500ms);
  tour::print("meanwhile, here");
  JoinHandle<std::string> task2 = spawn(work("task2", 1s));
  const std::string result = co_await task;
  tour::print("%s", result.c_str());
  const std::string result2 = co_await task2;
  tour::print("%s", result2.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
