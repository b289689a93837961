// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Counts the words of every text file below a directory: one task a file, more for a big one, read
// off the workers, counted on them.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <magpie/task.h>

namespace wordcount {

/// What has been done so far; may be read at any time.
struct Progress {
  std::atomic<std::uint64_t> files{0}, bytes{0}, words{0}, binary{0}, unreadable{0};
};

struct Summary {
  std::uint64_t words = 0, different = 0;
  std::vector<std::pair<std::uint64_t, std::string>>
      top;  // the most frequent first, then in the order of bytes
};

/// `root`: a directory or a file, or a link to one; std::system_error if there is none. At most
/// `open_files` files are open at a time. What cannot be read is reported on stderr and left out.
/// `progress` must outlive the task.
magpie::Task<Summary> count_tree(std::string root, std::size_t open_files, std::size_t top,
                                 Progress& progress);

}  // namespace wordcount
