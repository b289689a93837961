// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <pthread.h>

#include <cstdint>

#include "core.h"

// The beginning and the end of a simulated thread.

namespace magpie::cores {

// Once before all others.
void prepare_threads();

pthread_t start_thread(Core& core, const pthread_attr_t* attributes, void* (*function)(void*),
                       void* argument);

Core& core_of(pthread_t thread);

// False: at the deadline it is still there.
bool wait_for_end(Core& core, const Core& other, std::uint64_t deadline);

}  // namespace magpie::cores
