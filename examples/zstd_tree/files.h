// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A file that is read in pieces, and one that appears under its name only when it is complete. All
// of it blocks: call it through to_thread. Errors: std::system_error; after one, the same call may
// be made again.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

namespace zstd_tree {

/// Makes reads and writes fail now and then, so that one can watch the retries work. 0: never.
class Flakiness {
 public:
  explicit Flakiness(double probability) noexcept : threshold_(probability * 0x1p32) {}

  /// std::system_error(EIO) with the probability.
  void maybe_fail() const {
    if (threshold_ <= 0) return;
    // A multiplicative hash of a counter (Knuth): spread evenly, the same in every run.
    const std::uint32_t n = calls_.fetch_add(1, std::memory_order_relaxed) * 2'654'435'761U;
    if (n < threshold_) throw std::system_error(EIO, std::generic_category());
  }

 private:
  double threshold_;
  mutable std::atomic<std::uint32_t> calls_{1};
};

class Descriptor {
 public:
  Descriptor() = default;
  Descriptor(const std::string& path, int flags)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (value_ < 0) throw std::system_error(errno, std::generic_category());
  }
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const noexcept { return value_; }

 private:
  int value_ = -1;
};

/// Up to `bytes` bytes from `offset`; fewer only at the end of the file.
inline std::string read_piece(const Descriptor& file, std::uint64_t offset, std::size_t bytes) {
  std::string piece(bytes, '\0');
  std::size_t filled = 0;
  while (filled < bytes) {
    const auto got =
        ::pread(file.get(), &piece[filled], bytes - filled, static_cast<::off_t>(offset + filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw std::system_error(errno, std::generic_category());
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  piece.resize(filled);
  return piece;
}

/// Written under another name; commit() gives it its own, and without that nothing is left of it.
class NewFile {
 public:
  explicit NewFile(std::string path)
      : path_(std::move(path)),
        part_(path_ + ".part"),
        file_(part_, O_WRONLY | O_CREAT | O_TRUNC) {}
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (!committed_) ::unlink(part_.c_str());
  }

  void write_at(std::uint64_t offset, const std::string& bytes) {
    std::size_t written = 0;
    while (written < bytes.size()) {
      const auto got = ::pwrite(file_.get(), &bytes[written], bytes.size() - written,
                                static_cast<::off_t>(offset + written));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw std::system_error(errno, std::generic_category());
      written += static_cast<std::size_t>(got);
    }
  }
  void commit() {
    if (std::rename(part_.c_str(), path_.c_str()) != 0) {
      throw std::system_error(errno, std::generic_category());
    }
    committed_ = true;
  }

 private:
  std::string path_, part_;
  Descriptor file_;
  bool committed_ = false;
};

}  // namespace zstd_tree
