// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <time.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "core.h"

// What the simulated computer's kernel does: time, futexes, membarriers.

namespace magpie::cores {

extern std::size_t processors;

// A computer that was just started, with so many processors as far as programs know.
void boot(std::size_t processors);

timespec now(Core& core);
// In cycles; never, if that is further away than they can say.
std::uint64_t cycles_of(const timespec& time);
std::uint64_t deadline_of(const timespec& time);

// The arguments are those of the system call.
long futex(Core& core, const std::array<long, 6>& arguments);
long membarrier(Core& core, long command);

}  // namespace magpie::cores
