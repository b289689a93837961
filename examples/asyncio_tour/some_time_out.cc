// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: gather(..., with_timeout(fetch_user(3), 3, default="timeout"), ...)
// Four fetches; the slow one times out to a default, the others go on.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<std::string> fetch_user(int id) {
  co_await sleep_for(id == 3 ? 5s : 2s);  // user 3 is slow on purpose
  co_return "user_" + std::to_string(id);
}

Task<void> program() {
  auto [one, two, three, four] = co_await gather(
      fetch_user(1), fetch_user(2), with_timeout(fetch_user(3), 3s, "timeout"), fetch_user(4));
  tour::print("%s, %s, %s, %s", one.c_str(), two.c_str(), three.c_str(), four.c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
