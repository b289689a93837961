// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: task = create_task(...); await asyncio.wait_for(task, timeout=1.0)  # cancels the task
// A timeout cancels the task that it was given and waits for its end. Given a handle it ends the
// wait alone: the task behind it may have other waiters, so whoever wants its end says so.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<std::string> work(std::string name) {
  const Result<void> slept = co_await as_result(sleep_for(10s));
  tour::print("%s %s", name.c_str(), slept ? "finished" : "was cancelled");
  slept.value();
  co_return name + " result";
}

Task<void> program() {
  try {
    co_await timeout(work("the task"), 1s);
  } catch (const TimeoutError&) {
    tour::print("Timeout, task cancelled automatically");
  }

  JoinHandle<std::string> task = spawn(work("the task behind the handle"));
  const Result<std::string> result = co_await try_timeout(task, 1s);
  tour::print("Timeout: %s; done: %s", result.is_timeout() ? "yes" : "no",
              task.done() ? "yes" : "no");
  task.cancel();
  const Result<std::string> ended = co_await as_result(task);
  tour::print("cancelled by hand: %s", ended.is_cancelled() ? "yes" : "no");
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
