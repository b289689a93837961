// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: except asyncio.CancelledError: await asyncio.sleep(0.5); raise
// Cleanup that itself awaits. The cancellation is not seen inside it, and goes on after it.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<void> clean_up() {
  tour::print("Worker cancelled, performing cleanup...");
  co_await sleep_for(500ms);
  tour::print("Cleaned up");
}

Task<void> cleanup_worker() {
  co_await finally(sleep_for(10s), clean_up);
  tour::print("never here");
}

Task<std::string> worker(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  co_return "Worker " + name + " done";
}

Task<void> program() {
  JoinHandle<void> cleaning;
  co_await task_group([&](TaskGroup& group) -> Task<void> {
    cleaning = group.spawn(cleanup_worker());
    const std::string fast = co_await worker("fast", 100ms);
    tour::print("%s", fast.c_str());
    group.cancel();  // we have what we wanted
  });
  tour::print("the group is over; the worker ended cancelled: %s",
              cleaning.cancelled() ? "yes" : "no");
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
