// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// expect-error: post() calls a plain function

// These two headers are all that a program needs to run tasks and to move them.
#include <magpie/executor.h>
#include <magpie/task.h>

magpie::Task<int> one() {
  co_return 1;
}

magpie::Task<int> elsewhere(magpie::Executor& executor) {
  co_await magpie::resume_on(executor);
  auto handle = magpie::spawn(one());
  co_return co_await handle;
}

int main() {
  if (magpie::run(one(), {.threads = 1}) != 1) {
    return 1;
  }
  magpie::WorkStealingExecutor executor({.threads = 1});
  executor.post([] { return 1; });
  executor.post([&] { return executor.spawn(elsewhere(executor)); });
#ifdef MAGPIE_COMPILE_FAIL
  executor.post([]() -> magpie::Task<> { co_return; });
#endif
}
