// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: result1 = await step1(); result2 = await step2(result1); ...  and three such chains in a
// gather A chain is one await after the other; chains side by side are a gather of them.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<int> step1(int seed) {
  co_await sleep_for(1s);
  co_return seed + 1;
}
Task<int> step2(int number) {
  co_await sleep_for(1s);
  co_return number * 2;
}
Task<std::string> step3(int number) {
  co_await sleep_for(1s);
  co_return "result " + std::to_string(number);
}

Task<std::string> chain_tasks(int seed) {
  const int first = co_await step1(seed);
  const int second = co_await step2(first);
  co_return co_await step3(second);
}

Task<void> program() {
  const std::string one = co_await chain_tasks(0);
  tour::print("one chain: %s", one.c_str());
  auto [a, b, c] = co_await gather(chain_tasks(1), chain_tasks(2), chain_tasks(3));
  tour::print("three at once: %s, %s, %s", a.c_str(), b.c_str(), c.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
