// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// expect-error: post() calls a plain function

#include <magpie/sleep.h>
#include <magpie/spawn.h>
#include <magpie/work_stealing_executor.h>

int main() {
  magpie::WorkStealingExecutor executor({.threads = 1});
  executor.post([] { return 1; });
  executor.post([&] { return executor.spawn(magpie::sleep_for(magpie::Duration())); });
#ifdef MAGPIE_COMPILE_FAIL
  executor.post([]() -> magpie::Task<> { co_return; });
#endif
}
