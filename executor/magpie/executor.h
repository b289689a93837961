// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The abstract executor with run, spawn and post: see detail/executor_core.h for the class. Whoever
// includes this header can also run a task: it brings <magpie/work_stealing_executor.h> (with the
// free run) and <magpie/spawn.h>. Other executors: <magpie/tbb_executor.h>,
// <magpie/testing/simulated_executor.h>.

#include <magpie/detail/executor_core.h>
#include <magpie/detail/spawn_impl.h>
#include <magpie/executor_options.h>
#include <magpie/topology.h>

// After the rest, because these two build on it.
#include <magpie/spawn.h>
#include <magpie/work_stealing_executor.h>
