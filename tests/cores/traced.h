// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

// Comes before the first line of whatever is traced: -fsanitize=thread tells of accesses to memory,
// and a pause is none.

extern "C" void magpie_cores_pause() noexcept;
#define __builtin_ia32_pause magpie_cores_pause  // lint-allow: fence
