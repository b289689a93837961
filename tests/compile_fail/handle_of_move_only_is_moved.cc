// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: this task's value cannot be copied: move it out

#include <memory>

#include <magpie/join_handle.h>
#include <magpie/task.h>

magpie::Task<int> waiter(magpie::JoinHandle<std::unique_ptr<int>> handle) {
#ifdef MAGPIE_COMPILE_FAIL
  std::unique_ptr<int> value = co_await handle;
#else
  std::unique_ptr<int> value = co_await std::move(handle);
#endif
  co_return *value;
}
