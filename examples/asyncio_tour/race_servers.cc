// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: asyncio.wait([server1, server2], return_when=FIRST_COMPLETED), then cancel what is
// pending The first of two answers; the loser is cancelled and has ended when we go on.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> fetch_from_server(int number, Seconds delay) {
  const Result<void> slept = co_await as_result(sleep_for(delay));
  if (!slept) tour::print("server %d is not needed any more", number);
  slept.value();
  co_return "answer of server " + std::to_string(number);
}

Task<void> program() {
  const auto first = co_await race(fetch_from_server(1, 2s), fetch_from_server(2, 1s));
  tour::print("%s (index %zu)", first.value.c_str(), first.index);
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
