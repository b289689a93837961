// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: this future's value cannot be copied: move it out

#include <memory>

#include <magpie/promise.h>
#include <magpie/task.h>

magpie::Task<int> waiter(magpie::Future<std::unique_ptr<int>> future) {
#ifdef MAGPIE_COMPILE_FAIL
  std::unique_ptr<int> value = co_await future;
#else
  std::unique_ptr<int> value = co_await std::move(future);
#endif
  co_return *value;
}
