// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: wait(FIRST_COMPLETED) on two options, then go on with process_a or process_b
// The first result decides how we go on: a race and an if.

#include <string>
#include <utility>
#include <variant>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

struct OptionA {
  int price;
};
struct OptionB {
  std::string offer;
};

Task<OptionA> fetch_option_a() {
  co_await sleep_for(3s);
  co_return OptionA{42};
}
Task<OptionB> fetch_option_b() {
  co_await sleep_for(1s);
  co_return OptionB{"two for one"};
}

Task<void> process_a(OptionA option) {
  co_await sleep_for(1s);
  tour::print("A for %d", option.price);
}
Task<void> process_b(OptionB option) {
  co_await sleep_for(1s);
  tour::print("B: %s", option.offer.c_str());
}

Task<void> program() {
  auto first = co_await race(fetch_option_a(), fetch_option_b());  // two types: a variant
  if (first.index == 0) {
    OptionA a = std::get<0>(first.value);
    co_await process_a(a);
  } else {
    OptionB b = std::get<1>(std::move(first.value));
    co_await process_b(std::move(b));
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
