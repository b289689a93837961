// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: done, pending = await asyncio.wait(tasks)
// Waits for started tasks and says which are done. It takes no result and throws none of their
// errors.

#include <chrono>
#include <string>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  co_return name + " result";
}

Task<void> program() {
  std::vector<JoinHandle<std::string>> tasks;
  for (int i = 0; i < 5; ++i)
    tasks.push_back(spawn(work("T" + std::to_string(i), std::chrono::seconds(i))));

  auto [done, pending] = co_await wait(tasks);
  tour::print("Completed: %zu, pending: %zu", done.size(), pending.size());
  for (const auto& task : done) tour::print("%s", task.result().value().c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
