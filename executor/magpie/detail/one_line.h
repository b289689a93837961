// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Names and messages are the user's and may hold anything; a report has a line for each of them.

#include <string>

namespace magpie::detail {

/// The text with a blank for each control character, so that it ends no line and moves no cursor.
inline std::string in_one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '\x7f') c = ' ';
  }
  return text;
}

}  // namespace magpie::detail
