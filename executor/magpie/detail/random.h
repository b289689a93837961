// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#pragma once

#include <bit>
#include <cstdint>
#include <limits>

// A small fast generator for choosing victims, jitter and schedules: 16 bytes, about a nanosecond.
//
// xoroshiro128++ 1.0 (Blackman and Vigna, "Scrambled linear pseudorandom number generators", ACM
// TOMS 47, 2021), seeded through SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
// number generators", OOPSLA 2014). Ranges without division: Lemire, "Fast random integer
// generation in an interval", ACM TOMACS 29, 2019.
//
// Not for secrets. There is no global generator: equal seeds give equal sequences everywhere.
//
// Threads: one at a time.

namespace magpie::detail {

// One step of SplitMix64: turns a counter or a poor seed into well-mixed bits.
[[nodiscard]] constexpr std::uint64_t splitmix64(std::uint64_t& state) noexcept {
  state += 0x9e3779b97f4a7c15;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// A std::uniform_random_bit_generator.
class Random {
 public:
  using result_type = std::uint64_t;

  constexpr explicit Random(std::uint64_t seed) noexcept
      : first_(splitmix64(seed)), second_(splitmix64(seed)) {}
  // The bare state, which must not be all zero.
  constexpr Random(std::uint64_t first, std::uint64_t second) noexcept
      : first_(first), second_(second) {}

  static constexpr result_type min() noexcept { return 0; }
  static constexpr result_type max() noexcept { return std::numeric_limits<result_type>::max(); }

  constexpr std::uint64_t operator()() noexcept {
    const std::uint64_t a = first_;
    const std::uint64_t b = second_ ^ first_;
    const std::uint64_t result = std::rotl(first_ + second_, 17) + first_;
    first_ = std::rotl(a, 49) ^ b ^ (b << 21);
    second_ = std::rotl(b, 28);
    return result;
  }

  // Uniform in [0, bound); 0 for a bound of 0.
  constexpr std::uint64_t below(std::uint64_t bound) noexcept {
    __extension__ using Wide = unsigned __int128;
    Wide product = static_cast<Wide>((*this)()) * bound;
    if (auto low = static_cast<std::uint64_t>(product); low < bound) {
      const std::uint64_t biased = (0 - bound) % bound;
      while (low < biased) {
        product = static_cast<Wide>((*this)()) * bound;
        low = static_cast<std::uint64_t>(product);
      }
    }
    return static_cast<std::uint64_t>(product >> 64);
  }

  // Uniform in [0, 1), with all 53 bits.
  constexpr double unit() noexcept { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t first_;
  std::uint64_t second_;
};

}  // namespace magpie::detail
