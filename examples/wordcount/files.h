// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Files as bytes. All of it blocks: call it through to_thread. Errors: std::system_error.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

#include "words.h"

namespace wordcount {

class TextFile {
 public:
  static constexpr std::uint64_t piece_size = 1 << 20;  // some ms of counting

  explicit TextFile(const std::string& path)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat status{};
    if (descriptor_ < 0 || ::fstat(descriptor_, &status) != 0) throw_errno();
    size_ = static_cast<std::uint64_t>(status.st_size);
  }
  TextFile(const TextFile&) = delete;
  TextFile& operator=(const TextFile&) = delete;
  ~TextFile() { ::close(descriptor_); }

  std::uint64_t size() const noexcept { return size_; }

  /// The piece that begins there, without the rest of a word from before it, but with the whole of
  /// its last word. From any thread.
  std::string piece(std::uint64_t begin) const {
    std::string text;
    const std::uint64_t from =
        begin == 0 ? 0 : begin - 1;  // the byte before says whether a word reaches in
    append(text, from, std::min(begin + piece_size, size_) - from);
    if (begin != 0)
      std::fill(text.begin(), std::find_if_not(text.begin(), text.end(), is_word_byte), ' ');
    for (std::size_t had = 0; text.size() > had && is_word_byte(text.back());) {
      had = text.size();
      append(text, from + had, 4096);
      text.erase(std::find_if_not(text.begin() + static_cast<std::ptrdiff_t>(had), text.end(),
                                  is_word_byte),
                 text.end());
      if (text.size() < had + 4096) break;
    }
    return text;
  }

 private:
  [[noreturn]] static void throw_errno() {
    throw std::system_error(errno, std::generic_category());
  }

  void append(std::string& text, std::uint64_t offset, std::uint64_t bytes) const {
    std::size_t filled = text.size();
    text.resize(filled + bytes);
    while (filled < text.size()) {
      const auto got =
          ::pread(descriptor_, &text[filled], text.size() - filled, static_cast<::off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_errno();
      if (got == 0) break;  // the file is shorter than it was
      filled += static_cast<std::size_t>(got);
      offset += static_cast<std::uint64_t>(got);
    }
    text.resize(filled);
  }

  int descriptor_;
  std::uint64_t size_ = 0;
};

}  // namespace wordcount
