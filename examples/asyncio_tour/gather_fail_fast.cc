// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: await asyncio.gather(task_a(), task_b())
// The first failure cancels the others, which are waited for: nothing of them runs on behind our
// back.

#include <stdexcept>
#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<std::string> task_a() {
  co_await sleep_for(1s);
  throw std::runtime_error("oops in A");
}

Task<std::string> task_b() {
  const Result<void> slept = co_await as_result(sleep_for(2s));
  if (slept.is_cancelled()) tour::print("B is cancelled");
  slept.value();  // goes on being cancelled
  co_return "done B";
}

Task<void> program() {
  try {
    co_await gather(task_a(), task_b());
  } catch (const std::runtime_error& error) {
    tour::print("Caught: %s", error.what());
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
