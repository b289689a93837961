// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: this cannot be awaited

#include <magpie/task.h>

magpie::Task<int> number() {
#ifdef MAGPIE_COMPILE_FAIL
  co_await 5;
#endif
  co_return 5;
}
