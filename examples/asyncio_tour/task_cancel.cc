// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: task.cancel(); try: await task; except asyncio.CancelledError: ...
// A request, which the task sees at its next await; it may clean up first.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<std::string> cancelable_work() {
  const Result<void> slept = co_await as_result(sleep_for(10s));
  if (slept.is_cancelled()) {
    tour::print("Cleanup before cancel");
    slept.value();  // throws the cancellation on
  }
  co_return "never here";
}

Task<void> program() {
  JoinHandle<std::string> task = spawn(cancelable_work(), "cancelable");
  co_await sleep_for(1s);
  task.cancel("we changed our mind");
  try {
    co_await task;
  } catch (const CancelledError& error) {
    tour::print("Task was cancelled: %s", error.reason().message.c_str());
  }
  tour::print("task.cancelled(): %s", task.cancelled() ? "yes" : "no");
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
