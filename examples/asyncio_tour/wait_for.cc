// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: try: await asyncio.wait_for(work("slow", 10), timeout=2.0)  except asyncio.TimeoutError:
// ... One task, one limit.

#include <string>

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
  const std::string result = co_await timeout(work("quick", 1s), 2s);
  tour::print("%s", result.c_str());
  try {
    co_await timeout(work("slow", 10s), 2s);
  } catch (const TimeoutError&) {
    tour::print("Task timed out");
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
