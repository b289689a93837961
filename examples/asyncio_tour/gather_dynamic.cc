// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: await asyncio.gather(*[work(f"Task-{i}", i % 3 + 1) for i in range(10)])
// As many tasks as there happen to be.

#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  co_return name + " result";
}

Task<void> program() {
  std::vector<Task<std::string>> tasks;
  for (int i = 0; i < 10; ++i) {
    tasks.push_back(work("Task-" + std::to_string(i), Seconds(i % 3 + 1)));
  }
  const std::vector<std::string> results = co_await gather(std::move(tasks));
  for (const std::string& result : results) tour::print("%s", result.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
