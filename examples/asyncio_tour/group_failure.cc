// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: try: async with asyncio.TaskGroup() as tg: ...  except* ValueError as eg: ...
// One worker fails: the others are cancelled, and the failures come as a group that is sorted by
// type.

#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<void> worker(std::string name, Seconds delay) {
  const Result<void> slept = co_await as_result(sleep_for(delay));
  if (!slept) tour::print("%s is cancelled", name.c_str());
  slept.value();
}

Task<void> failing_worker(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  throw std::invalid_argument(name + " failed after 1s");
}

// One more failure, of another type, on the way out.
Task<void> clumsy_worker(std::string name) {
  co_await finally(sleep_for(2s), []() -> Task<void> {
    co_await sleep_for(200ms);
    throw std::system_error(std::make_error_code(std::errc::no_space_on_device), "cannot save");
  });
  tour::print("%s is never here", name.c_str());
}

Task<void> program() {
  try {
    co_await task_group([](TaskGroup& group) -> Task<void> {
      group.spawn(worker("A", 3s));
      group.spawn(failing_worker("B", 1s));
      group.spawn(clumsy_worker("C"));
      co_return;
    });
  } catch (const ExceptionGroup& errors) {
    tour::print("%zu failures", errors.exceptions().size());
    errors.for_each<std::invalid_argument>(
        [](const auto& error) { tour::print("Caught: %s", error.what()); });
    const auto [os_errors, rest] = errors.split<std::system_error>();
    if (os_errors) tour::print("From the system: %s", os_errors->what());
    if (rest) tour::print("The rest: %s", rest->what());
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
