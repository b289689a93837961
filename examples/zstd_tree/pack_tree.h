// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Compresses every file below a directory: a walk, readers, compressors and writers, joined by
// channels of bounded length.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include <magpie/task.h>

namespace zstd_tree {

/// What has been done so far; may be read at any time.
struct Progress {
  std::atomic<std::uint64_t> files{0}, bytes_read{0}, bytes_written{0}, retries{0}, failed{0};
};

struct Settings {
  int level = 3;
  std::size_t compressors = 1;  // as many as there are workers
  std::size_t readers = 8;      // files that are open for reading at a time
  std::size_t writers = 4;      // writes that are under way at a time
  double flakiness = 0;         // probability with which a read or write is made to fail
};

/// Makes TARGET/path.zst of each SOURCE/path; links are left out. A .zst file is there whole or not
/// at all, also after a cancellation. Reads and writes that fail for a passing reason are tried
/// again; a file that fails for good is reported on stderr, counted in `failed`, and left out.
/// `progress` must outlive the task. std::system_error if SOURCE is no directory, or TARGET cannot
/// be made one.
magpie::Task<void> pack_tree(std::string source, std::string target, Settings settings,
                             Progress& progress);

}  // namespace zstd_tree
