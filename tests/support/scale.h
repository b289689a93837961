// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// How large a test may be: sanitized builds run ten to a hundred times slower, so they do a part of
// the work.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <magpie/config.h>

namespace magpie::test {

#if defined(MAGPIE_TSAN)
inline constexpr std::size_t kScale = 20;
#elif defined(MAGPIE_ASAN)
inline constexpr std::size_t kScale = 10;
#else
inline constexpr std::size_t kScale = 1;
#endif

/// The number, or a part of it in sanitized builds.
inline constexpr std::size_t scaled(std::size_t n) {
  return n / kScale > 0 ? n / kScale : 1;
}

/// The seed of a random test: SEED from the environment replays a run. It is printed where it is
/// not lost if the test crashes.
inline std::uint64_t seed_or(std::uint64_t otherwise) {
  const char* const text = std::getenv("SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
  std::fprintf(stderr, "SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace magpie::test
