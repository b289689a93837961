// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// expect-error: explore() takes a plain function, not a coroutine

#include <magpie/sleep.h>
#include <magpie/testing/simulated_executor.h>

int main() {
  magpie::testing::explore(
      1, [](magpie::testing::SimulatedExecutor& executor) { return executor.steps(); });
#ifdef MAGPIE_COMPILE_FAIL
  magpie::testing::explore(
      1, [](magpie::testing::SimulatedExecutor&) -> magpie::Task<> { co_return; });
#endif
}
