// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: result1 = await step1(); result2 = await step2(result1); result3 = await step3(result2)
// The same as one expression: each result goes to the next step, a coroutine or a plain function.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<int> step1() {
  co_await sleep_for(1s);
  co_return 20;
}
Task<int> step2(int number) {
  co_await sleep_for(1s);
  co_return number + 1;
}
std::string step3(int number) {
  return "result " + std::to_string(2 * number);
}

Task<int> fails(int) {
  co_await sleep_for(1s);
  throw std::runtime_error("step 2 failed");
}

Task<void> program() {
  const std::string result = co_await chain(step1(), step2, step3);
  tour::print("%s", result.c_str());
  try {
    co_await chain(step1(), fails, step3);  // the first failure ends it
  } catch (const std::runtime_error& error) {
    tour::print("%s", error.what());
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
