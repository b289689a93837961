// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: await asyncio.gather(work("A", 1), failing_work("B"), work("C", 2))
// The first failure is thrown, but only when the others have finished their work. (In asyncio it is
// thrown at once, and the others go on unwatched.)

#include <stdexcept>
#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  tour::print("%s finished", name.c_str());
  co_return name + " result";
}

Task<std::string> failing_work(std::string name) {
  co_await this_task::yield();
  throw std::invalid_argument(name + " failed");
}

Task<void> program() {
  try {
    co_await gather(keep_going, work("A", 1s), failing_work("B"), work("C", 2s));
  } catch (const std::invalid_argument& error) {
    tour::print("Caught: %s", error.what());
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
