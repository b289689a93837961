// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// The trees of the Unbalanced Tree Search benchmark: S. Olivier, J. Huan, J. Liu, J. Prins, J.
// Dinan, P. Sadayappan, C.-W. Tseng, "UTS: An Unbalanced Tree Search Benchmark", LCPC 2006. How
// many children a node has is drawn from its SHA-1 state, a child's state is the SHA-1 of its
// parent's and its number: nobody can know the shape of the tree before walking it.
//
// T1 and T3 have the published parameters and numbers of nodes. The small ones keep the kind of
// tree and are cut, T1 to depth 8, T3 to 200 children of the root (and seed 40, as nearly all of
// 42's nodes lie below a few of them); their numbers of nodes are our own.

#include <support/bench.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace bench::uts {

using State = std::array<std::uint8_t, 20>;

/// SHA-1 (FIPS 180-4) of the 24 bytes or fewer of one block.
template <std::size_t N>
State sha1(const std::array<std::uint8_t, N>& message) {
  static_assert(N < 56, "one block");
  std::array<std::uint8_t, 64> block{};
  for (std::size_t i = 0; i < N; ++i) block[i] = message[i];
  block[N] = 0x80;
  block[62] = static_cast<std::uint8_t>(N * 8 / 256);
  block[63] = static_cast<std::uint8_t>(N * 8 % 256);

  std::array<std::uint32_t, 80> w;
  for (std::size_t t = 0; t < 16; ++t) {
    w[t] = std::uint32_t{block[4 * t]} << 24 | std::uint32_t{block[4 * t + 1]} << 16 |
           std::uint32_t{block[4 * t + 2]} << 8 | std::uint32_t{block[4 * t + 3]};
  }
  for (std::size_t t = 16; t < 80; ++t)
    w[t] = std::rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);

  constexpr std::array<std::uint32_t, 5> kStart{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
                                                0xc3d2e1f0};
  auto [a, b, c, d, e] = kStart;
  const auto rounds = [&](std::size_t first, std::uint32_t k, auto mix) {
    for (std::size_t t = first; t < first + 20; ++t) {
      const std::uint32_t next = std::rotl(a, 5) + mix(b, c, d) + e + k + w[t];
      e = d;
      d = c;
      c = std::rotl(b, 30);
      b = a;
      a = next;
    }
  };
  using Word = std::uint32_t;
  const auto parity = [](Word x, Word y, Word z) { return x ^ y ^ z; };
  rounds(0, 0x5a827999, [](Word x, Word y, Word z) { return (x & y) | (~x & z); });
  rounds(20, 0x6ed9eba1, parity);
  rounds(40, 0x8f1bbcdc, [](Word x, Word y, Word z) { return (x & y) | (x & z) | (y & z); });
  rounds(60, 0xca62c1d6, parity);

  State digest;
  const std::array<Word, 5> sums{kStart[0] + a, kStart[1] + b, kStart[2] + c, kStart[3] + d,
                                 kStart[4] + e};
  for (std::size_t i = 0; i < digest.size(); ++i)
    digest[i] = static_cast<std::uint8_t>(sums[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

struct Node {
  State state;
  int depth;
};

/// state and number, the latter as four bytes, the highest first.
inline State numbered(const State& state, std::uint32_t number) {
  std::array<std::uint8_t, 24> message;
  for (std::size_t i = 0; i < state.size(); ++i) message[i] = state[i];
  for (std::size_t i = 0; i < 4; ++i)
    message[20 + i] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  return sha1(message);
}

struct Tree {
  enum class Kind { geometric, binomial };
  Kind kind;
  std::uint32_t seed;
  double branching;     // children of the root; geometric: expected children of every inner node
  int depth;            // geometric: nodes at this depth have no children
  double inner = 0;     // binomial: how probably a node has children
  int children = 0;     // and how many it then has
  std::uint64_t nodes;  // in all

  Node root() const {
    std::array<std::uint8_t, 20> message{};
    for (std::size_t i = 0; i < 4; ++i)
      message[16 + i] = static_cast<std::uint8_t>(seed >> (24 - 8 * i));
    return {sha1(message), 0};
  }

  Node child(const Node& parent, int number) const {
    return {numbered(parent.state, static_cast<std::uint32_t>(number)), parent.depth + 1};
  }

  int children_of(const Node& node) const {
    constexpr int kMostChildren = 100;
    if (kind == Kind::binomial) {
      if (node.depth == 0) return static_cast<int>(branching);
      return draw(node) < inner ? children : 0;
    }
    const double expected = node.depth < depth ? branching : 0.0;
    const double p = 1.0 / (1.0 + expected);
    const double drawn = std::floor(std::log(1.0 - draw(node)) / std::log(1.0 - p));
    return expected == 0.0 ? 0 : static_cast<int>(std::fmin(drawn, kMostChildren));
  }

 private:
  // From [0, 1): the last four bytes of the state, without the highest bit.
  static double draw(const Node& node) {
    const State& s = node.state;
    const std::uint32_t bits = std::uint32_t{s[16]} << 24 | std::uint32_t{s[17]} << 16 |
                               std::uint32_t{s[18]} << 8 | std::uint32_t{s[19]};
    return static_cast<double>(bits & 0x7fffffff) / 2147483648.0;
  }
};

// Published: -t 1 -a 3 -d 10 -b 4 -r 19, and -t 0 -b 2000 -q 0.124875 -m 8 -r 42.
inline constexpr Tree kT1{Tree::Kind::geometric, 19, 4, 10, 0, 0, 4'130'071};
inline constexpr Tree kT3{Tree::Kind::binomial, 42, 2000, 0, 0.124875, 8, 4'112'897};
inline constexpr Tree kSmallT1{Tree::Kind::geometric, 19, 4, 8, 0, 0, 257'042};
inline constexpr Tree kSmallT3{Tree::Kind::binomial, 40, 200, 0, 0.124875, 8, 152'009};

struct Workload {
  const char* name;
  Tree tree;
};

inline std::array<Workload, 2> workloads(const Options& options) {
  return {{{"uts_t1", options.full ? kT1 : kSmallT1}, {"uts_t3", options.full ? kT3 : kSmallT3}}};
}

}  // namespace bench::uts
