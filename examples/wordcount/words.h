// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Words and how often they occur. A word is a longest run of [A-Za-z0-9_], as grep -oE
// '[A-Za-z0-9_]+' has it in the C locale.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace wordcount {

inline bool is_word_byte(char c) noexcept {
  const auto byte = static_cast<unsigned char>(c);
  return (byte | 0x20U) - 'a' < 26U || byte - unsigned{'0'} < 10U || byte == '_';
}

/// Not shared: a text is counted into a table that nobody else has at that time. Tables are merged
/// shard by shard, side by side.
class WordTable {
 public:
  static constexpr std::size_t shard_count = 16;
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;  // look-ups without a std::string
  };
  using Shard = std::unordered_map<std::string, std::uint64_t, Hash, std::equal_to<>>;

  /// Adds the words of the text; says how many there were.
  std::uint64_t count(std::string_view text) {
    std::uint64_t words = 0;
    for (auto begin = text.begin();; ++words) {
      begin = std::find_if(begin, text.end(), is_word_byte);
      if (begin == text.end()) return words;
      const auto behind = std::find_if_not(begin, text.end(), is_word_byte);
      const std::string_view word(begin, behind);
      Shard& home = shards_[(word.size() + 5U * static_cast<unsigned char>(word.front()) +
                             static_cast<unsigned char>(word.back())) %
                            shard_count];
      const auto known = home.find(word);
      if (known != home.end()) {
        ++known->second;
      } else {
        home.emplace(word, 1);
      }
      begin = behind;
    }
  }

  /// Moves one shard of this table into `all`.
  void merge_into(Shard& all, std::size_t index) {
    Shard& mine = shards_[index];
    if (all.size() < mine.size()) all.swap(mine);
    all.merge(mine);  // what stays behind is in both
    for (const auto& [word, count] : mine) all.find(word)->second += count;
    mine.clear();
  }

 private:
  std::array<Shard, shard_count> shards_;
};

}  // namespace wordcount
