// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// expect-error: private

#include <chrono>
#include <type_traits>

#include <magpie/cancellation.h>
#include <magpie/sleep.h>
#include <magpie/task_group.h>
#include <magpie/timeout.h>

magpie::Task<void> children(magpie::TaskGroup& group) {
  group.spawn(magpie::sleep_for(std::chrono::seconds(1)));
  co_return;
}

magpie::Task<void> program() {
#ifdef MAGPIE_COMPILE_FAIL
  magpie::TaskGroup group;
  co_await children(group);
#else
  co_await magpie::task_group(children);
#endif
}

static_assert(!std::is_default_constructible_v<magpie::TaskGroup>);
static_assert(!std::is_default_constructible_v<magpie::CancelScope>);
static_assert(!std::is_default_constructible_v<magpie::TimeoutScope>);
