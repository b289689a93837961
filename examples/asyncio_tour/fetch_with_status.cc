// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: fetch_with_status(coro, timeout) -> SuccessResult | TimeoutResult
// Which fetches succeeded, which timed out, and which failed? A Result<T> tells the three apart.

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
  co_await sleep_for(id == 3 ? 5s : 2s);
  if (id == 4) throw std::runtime_error("no such user");
  co_return "user_" + std::to_string(id);
}

Task<Result<std::string>> fetch_with_status(int id, Seconds limit) {
  co_return co_await try_timeout(fetch_user(id), limit);
}

Task<void> program() {
  std::vector<Task<Result<std::string>>> fetches;
  fetches.push_back(fetch_with_status(1, 10s));
  fetches.push_back(fetch_with_status(3, 3s));
  fetches.push_back(fetch_with_status(4, 10s));
  const auto results = co_await gather(std::move(fetches));
  for (const Result<std::string>& result : results) {
    if (result) {
      tour::print("success: %s", result.value().c_str());
    } else if (result.is_timeout()) {
      tour::print("timed out");
    } else {
      tour::print("failed: %s", tour::what(result.error()).c_str());
    }
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
