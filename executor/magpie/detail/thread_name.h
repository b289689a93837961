// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the system knows of a thread: its name, as debuggers and top show it ("<name>-<index>"
// within the kernel's 15 bytes), and the processors that it may use.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace magpie::detail {

/// What fits: the name is cut, never the index.
std::string thread_name(const std::string& name, std::string_view kind, std::size_t index);
void name_this_thread(const std::string& name, std::string_view kind, std::size_t index) noexcept;

/// None given: leaves all as it is. A hint: what fails changes nothing.
void keep_this_thread_on(std::span<const int> processors) noexcept;

}  // namespace magpie::detail
