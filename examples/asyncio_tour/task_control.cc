// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// asyncio: task.done(), task.cancelled(), task.get_name(), task.set_name("MyTask"), task.result()
// Look at a task from outside.

#include <string>

#include <magpie/magpie.h>

#include "../support/tour.h"

using namespace magpie;
using namespace std::chrono_literals;
using tour::Seconds;

const char* yes_or_no(bool b) {
  return b ? "yes" : "no";
}

Task<std::string> work(std::string name, Seconds delay) {
  co_await sleep_for(delay);
  co_return name + " result";
}

Task<void> program() {
  JoinHandle<std::string> task = spawn(work("demo", 2s));
  tour::print("done: %s, cancelled: %s", yes_or_no(task.done()), yes_or_no(task.cancelled()));
  tour::print("it has a name of its own: %s", yes_or_no(task.name().starts_with("task-")));
  task.set_name("MyTask");
  tour::print("and now it is %s", task.name().c_str());
  try {
    task.result();
  } catch (const InvalidStateError& error) {
    tour::print("too early: %s", error.what());
  }

  co_await task;
  tour::print("done: %s, result: %s", yes_or_no(task.done()), task.result().value().c_str());
}

int main(int argc, char** argv) {
  return tour::run(argc, argv, program);
}
