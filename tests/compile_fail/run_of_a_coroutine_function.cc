// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// expect-error: a coroutine has to be called

#include <magpie/executor.h>
#include <magpie/task.h>

int main() {
  magpie::WorkStealingExecutor executor({.threads = 1});
  const auto one = []() -> magpie::Task<int> { co_return 1; };
#ifdef MAGPIE_COMPILE_FAIL
  return executor.run(one);
#else
  return executor.run(one()) == 1 ? 0 : 1;
#endif
}
