// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: done, pending = await asyncio.wait(tasks, timeout=2.0), then cancel what is pending
// A timeout is no error here: it is one more reason to look at what is done.

#include <string>
#include <vector>

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
  std::vector<JoinHandle<std::string>> tasks;
  for (int i = 0; i < 5; ++i) {
    const std::string name = "T" + std::to_string(i);
    tasks.push_back(spawn(work(name, Seconds(i + 0.5)), name));
  }

  auto [done, pending] = co_await wait(tasks, ReturnWhen::all_completed, 2s);
  tour::print("Done: %zu, Pending: %zu", done.size(), pending.size());

  for (auto& task : pending) task.cancel();
  auto rest = co_await wait(pending);
  for (const auto& task : rest.done)
    tour::print("%s was cancelled: %s", task.name().c_str(), task.cancelled() ? "yes" : "no");
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
