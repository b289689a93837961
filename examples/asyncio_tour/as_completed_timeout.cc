// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: for coro in asyncio.as_completed(tasks, timeout=3.0): ... except asyncio.TimeoutError
// The timeout is the stream's: next() throws once it is over. Leaving the block cancels the rest.

#include <string>
#include <utility>
#include <vector>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<std::string> work(std::string name, Seconds delay) {
  const Result<void> slept = co_await as_result(sleep_for(delay));
  if (!slept) tour::print("%s cancelled", name.c_str());
  slept.value();
  co_return name + " result";
}

Task<void> program() {
  std::vector<Task<std::string>> tasks;
  for (int i = 0; i < 4; ++i) tasks.push_back(work("T" + std::to_string(i), Seconds(i + 0.5)));

  co_await as_completed(
      std::move(tasks), 3s, [&](CompletionStream<std::string>& results) -> Task<void> {
        try {
          for (auto next = co_await results.next(); next; next = co_await results.next())
            tour::print("%s", next->value.value().c_str());
        } catch (const TimeoutError&) {
          tour::print("Iteration timeout");
        }
      });
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
