// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: a task-local's value is copied to whoever asks

#include <memory>

#include <magpie/task_local.h>

int main() {
#ifdef MAGPIE_COMPILE_FAIL
  magpie::TaskLocal<std::unique_ptr<int>> local{nullptr};
#else
  magpie::TaskLocal<std::shared_ptr<int>> local{nullptr};
#endif
  (void)local;
}
