// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Directories as names. It blocks: call it through to_thread. Errors: std::system_error.

#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace support {

struct Listing {
  std::vector<std::string> directories, files;
};

/// What is in a directory. Symbolic links are left out: nothing is met twice, no loop is entered.
inline Listing list_directory(const std::string& path) {
  Listing listing;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    std::error_code error;  // opening it will say what is wrong
    const auto type = entry.symlink_status(error).type();
    if (type == std::filesystem::file_type::directory) listing.directories.push_back(entry.path());
    if (type == std::filesystem::file_type::regular || error) listing.files.push_back(entry.path());
  }
  return listing;
}

}  // namespace support
