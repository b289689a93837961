// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The abstract executor with run, spawn and post: see detail/executor_core.h for the class.
// Concrete ones: <magpie/work_stealing_executor.h>, <magpie/tbb_executor.h>,
// <magpie/testing/simulated_executor.h>.

#include <magpie/detail/executor_core.h>
#include <magpie/detail/spawn_impl.h>
#include <magpie/executor_options.h>
#include <magpie/topology.h>
