// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <cstddef>
#include <cstdint>

// The lines of memory, and which cores have them.

namespace magpie::cores {

// The place that has called the function in which it stands.
#define MAGPIE_HERE __builtin_return_address(0)

enum class Access : std::uint8_t { read, write, locked };

// Called by the thread that makes the access, immediately before it; nothing if it is not
// simulated. `place` is where in the program that is.
void touch(const volatile void* memory, std::size_t bytes, Access access, const void* place);

void forget_lines();
void forget_places();

}  // namespace magpie::cores
