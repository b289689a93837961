// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: start() takes a callable f(ReadySignal<V>) -> Task<void>

#include <magpie/task_group.h>

magpie::Task<int> start_one(magpie::TaskGroup& group) {
#ifdef MAGPIE_COMPILE_FAIL
  auto child = [](magpie::ReadySignal<int> ready) -> magpie::Task<int> {
    ready.set(1);
    co_return 2;
  };
#else
  auto child = [](magpie::ReadySignal<int> ready) -> magpie::Task<void> {
    ready.set(1);
    co_return;
  };
#endif
  co_return co_await group.start(child);
}
