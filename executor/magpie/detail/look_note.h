// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// What thieves note about a worker whose only strand they have left alone, and how long they do so:
// PARKING.md, P7.
//
// The note is a word of the victim: when, at how many looks in a row, and how many pieces the
// victim had run by then. It is a hint: what is lost in a race, or when a part of it comes round,
// costs one theft too much, or a short wait.

#include <cstdint>

namespace magpie::detail {

class LookNote {
 public:
  /// How long a strand is left to a worker that runs the same piece all the time.
  static constexpr std::uint64_t kPatienceNs = 3'000;
  /// Looks that come closer together count as one: with many thieves about, not each of them
  /// counts.
  static constexpr std::uint64_t kIntervalNs = 250;
  /// At how many looks in a row, each during another piece, there is something before it is taken.
  static constexpr unsigned kMostLooks = 8;

  explicit LookNote(std::uint64_t word) noexcept : word_(word) {}

  std::uint64_t word() const noexcept { return word_; }
  unsigned looks() const noexcept { return static_cast<unsigned>(word_ >> kRunBits & kLookMask); }

  struct Verdict {
    bool leave;
    std::uint64_t next;  // the note from now on
  };
  /// The victim, which has run `runs` pieces, has one strand in its deque: is that left to it?
  Verdict judge(std::uint64_t runs, std::uint64_t now_ns) const noexcept {
    const std::uint64_t age = age_at(now_ns);
    if (((word_ ^ runs) & kRunMask) == 0) return {age < kPatienceNs, word_};
    if (age < kIntervalNs) return {true, word_};
    const unsigned looks = this->looks() + 1;
    return {looks < kMostLooks, now_ns << kTimeShift |
                                    static_cast<std::uint64_t>(looks % kMostLooks) << kRunBits |
                                    (runs & kRunMask)};
  }

 private:
  static constexpr int kRunBits = 20;
  static constexpr int kTimeShift = 24;
  static constexpr std::uint64_t kRunMask = (std::uint64_t{1} << kRunBits) - 1;
  static constexpr std::uint64_t kLookMask = (std::uint64_t{1} << (kTimeShift - kRunBits)) - 1;

  // Never negative: a note from the future, which another thief has made since, is an old one.
  std::uint64_t age_at(std::uint64_t now_ns) const noexcept {
    return ((now_ns << kTimeShift) - (word_ >> kTimeShift << kTimeShift)) >> kTimeShift;
  }

  std::uint64_t word_;
};

}  // namespace magpie::detail
