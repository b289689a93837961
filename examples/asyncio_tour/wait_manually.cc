// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: pending = {create_task(fetch_user(1)): "user1", ...}; wait(FIRST_COMPLETED, timeout=3)
// Each result as it comes, until the time is over; then the rest is cancelled. Handles are values:
// their names say which is which.

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> fetch_user(int id) {
  co_await sleep_for(Seconds(id == 3 ? 5 : 0.5 * id));
  if (id == 2) throw std::runtime_error("no such user");
  co_return "user_" + std::to_string(id);
}

Task<void> program() {
  std::vector<JoinHandle<std::string>> pending;
  for (int id = 1; id <= 4; ++id)
    pending.push_back(spawn(fetch_user(id), "user" + std::to_string(id)));

  const Deadline deadline = deadline_after(co_await this_task::now(), 3s);
  while (!pending.empty()) {
    const Duration left = time_until(deadline, co_await this_task::now());
    auto round = co_await wait(std::move(pending), ReturnWhen::first_completed, left);
    for (const auto& task : round.done) {
      const Result<std::string>& result = task.result();
      tour::print("%s: %s", task.name().c_str(),
                  result ? result.value().c_str() : tour::what(result.error()).c_str());
    }
    pending = std::move(round.pending);
    if (round.done.empty()) break;  // the time is over
  }
  for (auto& task : pending) {
    task.cancel();
    tour::print("%s: cancelled", task.name().c_str());
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
