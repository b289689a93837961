// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: results = await asyncio.gather(work("A", 1), work("B", 2), work("C", 1))
// The results come in the order of the arguments, whoever was first; it takes as long as the
// slowest.

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
  auto [a, b, c] = co_await gather(work("A", 1s), work("B", 2s), work("C", 1s));
  tour::print("%s, %s, %s", a.c_str(), b.c_str(), c.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
