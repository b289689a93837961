// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: a task is given away: write std::move(task)

#include <magpie/gather.h>
#include <magpie/task.h>

magpie::Task<int> one() {
  co_return 1;
}

magpie::Task<int> both() {
  magpie::Task<int> first = one();
#ifdef MAGPIE_COMPILE_FAIL
  auto [a, b] = co_await magpie::gather(first, one());
#else
  auto [a, b] = co_await magpie::gather(std::move(first), one());
#endif
  co_return a + b;
}
