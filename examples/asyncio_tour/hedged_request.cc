// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: nothing in the library; a task, a wait(timeout=0.5), another task, and much care
// The same request again when it is slow, and different ways to get there, one after the other.

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> ask(std::string whom, Seconds delay) {
  tour::print("asking %s", whom.c_str());
  co_await sleep_for(delay);
  if (whom == "an unreachable address") throw std::runtime_error("no route");
  co_return "answer of " + whom;
}

Task<void> program() {
  int attempt = 0;
  auto request = [&] { return ask("the service", Seconds(attempt++ == 0 ? 10 : 1)); };
  const std::string answer = co_await hedge(request, HedgeOptions().delay(500ms).max_attempts(3));
  tour::print("%s", answer.c_str());

  std::vector<TaskFactory<std::string>> ways;
  ways.push_back([] { return ask("an unreachable address", Seconds(0.1)); });
  ways.push_back([] { return ask("a slow address", Seconds(5)); });
  ways.push_back([] { return ask("a good address", Seconds(0.2)); });
  const auto first = co_await staggered_race(std::move(ways), 250ms);
  tour::print("%s (way %zu)", first.value.c_str(), first.index);
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
