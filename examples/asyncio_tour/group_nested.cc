// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: a TaskGroup inside a task of a TaskGroup
// A hierarchy of groups: when an inner one fails, its outer group cancels the rest.

#include <stdexcept>
#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

Task<void> worker(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  tour::print("%s done", name.c_str());
}

Task<void> failing(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  throw std::runtime_error(name + " failed");
}

Task<void> sub_worker(std::string label, Seconds first) {
  co_await task_group([&](TaskGroup& inner) -> Task<void> {
    inner.spawn(worker(label + "-1", first));
    inner.spawn(worker(label + "-2", first + 500ms));
    co_return;
  });
  tour::print("group %s is complete", label.c_str());
}

Task<void> failing_sub_worker() {
  co_await task_group([](TaskGroup& inner) -> Task<void> {
    inner.spawn(failing("Z-1", 200ms));
    inner.spawn(worker("Z-2", 1s));
    co_return;
  });
}

Task<void> program() {
  co_await task_group([](TaskGroup& outer) -> Task<void> {
    outer.spawn(sub_worker("X", 500ms));
    outer.spawn(sub_worker("Y", 600ms));
    co_return;
  });
  try {
    co_await task_group([](TaskGroup& outer) -> Task<void> {
      outer.spawn(sub_worker("X", 100ms));  // gets half of its work done
      outer.spawn(failing_sub_worker());
      co_return;
    });
  } catch (const ExceptionGroup& errors) {
    // A group in a group; the queries look into it.
    errors.for_each<std::runtime_error>(
        [](const auto& error) { tour::print("Caught: %s", error.what()); });
  }
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
