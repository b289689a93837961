// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: results = await asyncio.gather(..., return_exceptions=True)
// Every task runs to its end; a failure is a result like any other.

#include <stdexcept>
#include <string>
#include <utility>
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

Task<std::string> failing_work(std::string name) {
  co_await this_task::yield();
  throw std::invalid_argument(name + " failed");
}

Task<void> program() {
  std::vector<Task<std::string>> tasks;
  tasks.push_back(work("A", 1s));
  tasks.push_back(failing_work("B"));
  tasks.push_back(work("C", 1s));
  const auto results = co_await gather(return_exceptions, std::move(tasks));
  for (const Result<std::string>& result : results) {
    if (result) {
      tour::print("Success: %s", result.value().c_str());
    } else {
      tour::print("Error: %s", tour::what(result.error()).c_str());
    }
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
