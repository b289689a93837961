// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: a Task is awaited once and as an rvalue

#include <magpie/task.h>

magpie::Task<int> one() {
  co_return 1;
}

magpie::Task<int> twice() {
  magpie::Task<int> task = one();
#ifdef MAGPIE_COMPILE_FAIL
  co_return co_await task;
#else
  co_return co_await std::move(task);
#endif
}
