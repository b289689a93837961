// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// expect-error: this task's value cannot be copied

#include <memory>
#include <utility>

#include <magpie/join_handle.h>
#include <magpie/task.h>

magpie::Task<std::unique_ptr<int>> take(magpie::JoinHandle<std::unique_ptr<int>> handle) {
#ifdef MAGPIE_COMPILE_FAIL
  co_return co_await handle;
#else
  co_return co_await std::move(handle);
#endif
}

int main() {}
