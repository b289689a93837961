// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: asyncio.wait(tasks, return_when=FIRST_COMPLETED), FIRST_EXCEPTION, ALL_COMPLETED
// Three answers to the question when a wait is over. None of them cancels anything.

#include <stdexcept>
#include <string>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  if (name == "T2") throw std::runtime_error(name + " failed");
  co_return name + " result";
}

void show(const char* strategy, const WaitResult<std::string>& result) {
  tour::print("%s: %zu done, %zu pending", strategy, result.done.size(), result.pending.size());
  for (const auto& task : result.done) {
    const Result<std::string>& outcome = task.result();
    tour::print("  %s", outcome ? outcome.value().c_str() : tour::what(outcome.error()).c_str());
  }
}

Task<void> program() {
  std::vector<JoinHandle<std::string>> tasks;
  for (int i = 0; i < 5; ++i)
    tasks.push_back(spawn(work("T" + std::to_string(i), std::chrono::seconds(i + 1))));

  show("FIRST_COMPLETED", co_await wait(tasks, ReturnWhen::first_completed));
  show("FIRST_EXCEPTION", co_await wait(tasks, ReturnWhen::first_exception));
  show("ALL_COMPLETED", co_await wait(tasks, ReturnWhen::all_completed));
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
