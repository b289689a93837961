// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: semaphore = asyncio.Semaphore(rate_limit); async with semaphore: return await coro
// That limits how many run at the same time, not how many start in a second. Here are both.

#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;

Task<int> request(int number) {
  tour::print("request %d", number);
  co_await sleep_for(1500ms);
  co_return number;
}

std::vector<Task<int>> requests(int count) {
  std::vector<Task<int>> tasks;
  for (int i = 1; i <= count; ++i) tasks.push_back(request(i));
  return tasks;
}

Task<void> program() {
  RateLimiter limiter(2, 1);  // two starts a second, and one at once
  std::vector<int> numbers = co_await gather_rate_limited(limiter, requests(5));
  tour::print("%zu answers", numbers.size());

  // The limiter alone, for whatever starts elsewhere.
  for (int i = 6; i <= 8; ++i) {
    co_await limiter.acquire();
    tour::print("start %d", i);
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
