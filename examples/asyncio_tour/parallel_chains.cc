// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: results = await asyncio.gather(chain_tasks(), chain_tasks(), chain_tasks())
// Three chains side by side, each as fast as its own steps.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<int> fetch(int id) {
  co_await sleep_for(id * 1s);
  co_return id;
}
Task<int> parse(int id) {
  tour::print("parse %d", id);
  co_await sleep_for(500ms);
  co_return id * 100;
}
std::string render(int number) {
  return "page " + std::to_string(number);
}

Task<void> program() {
  auto [a, b, c] = co_await gather(chain(fetch(1), parse, render), chain(fetch(2), parse, render),
                                   chain(fetch(3), parse, render));
  tour::print("%s, %s, %s", a.c_str(), b.c_str(), c.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
