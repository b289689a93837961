// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: for coro in asyncio.as_completed(tasks): result = await coro
// Results in the order in which they come. The block owns its tasks: none is left when it ends.

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

Task<void> program() {
  std::vector<Task<std::string>> tasks;
  for (int i = 0; i < 5; ++i)  // T4 is the first to end
    tasks.push_back(work("T" + std::to_string(i), std::chrono::seconds(5 - i)));

  co_await as_completed(
      std::move(tasks), [&](CompletionStream<std::string>& results) -> Task<void> {
        for (auto next = co_await results.next(); next; next = co_await results.next())
          tour::print("Got result: %s (task %zu)", next->value.value().c_str(), next->index);
      });
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
