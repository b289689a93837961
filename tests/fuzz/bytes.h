// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Choices out of a fuzzer's bytes, for the authors of tests/stress/oracle.h and script.h.

#include <cstddef>
#include <cstdint>

#include <magpie/detail/random.h>

namespace magpie::test {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  /// A byte for a small choice; for a pause something that no other is, so that nothing happens at
  /// one instant.
  std::uint64_t below(std::uint64_t bound) {
    std::uint64_t byte = 0;
    if (size_ > 0) byte = *data_++, --size_;
    if (bound <= 256) return byte % bound;
    state_ += byte + 1;
    std::uint64_t mixed = state_;
    return detail::splitmix64(mixed) % bound;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::uint64_t state_ = 0;
};

}  // namespace magpie::test
