// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The name of a thread, as debuggers and top show it: "<name>-<index>" within the kernel's 15
// bytes.

#include <cstddef>
#include <string>
#include <string_view>

namespace magpie::detail {

/// What fits: the name is cut, never the index.
std::string thread_name(const std::string& name, std::string_view kind, std::size_t index);
void name_this_thread(const std::string& name, std::string_view kind, std::size_t index) noexcept;

}  // namespace magpie::detail
