// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every test program has a watchdog: some time before ctest would end it (MAGPIE_TEST_TIMEOUT, in
// seconds; none without it, as by hand, and none for `./dev soak`) it prints which test hangs, and
// the tasks, workers and queues of all executors, and aborts.
//
// It is a timer of the kernel's and a signal: no thread, and nothing at all before the time is
// over. The handler does what handlers may not do, since the program ends anyway; if that hangs,
// too, a second signal ends it.

#include <chrono>

namespace magpie::test {

/// From now on; a later call puts it off. Once by itself at the start of the program.
void set_watchdog(std::chrono::nanoseconds after);

}  // namespace magpie::test
