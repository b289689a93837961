// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// Word count: map and reduce over a text in memory. The text is cut at spaces into chunks, each
// chunk is counted into a table of its own, and the tables are merged on the way up, the smaller
// into the larger. Few and large tasks, and memory that moves between threads.

#include <support/bench.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <magpie/gather.h>
#include <magpie/parallel.h>
#include <magpie/task.h>
#include <oneapi/tbb/blocked_range.h>
#include <oneapi/tbb/parallel_reduce.h>
#include <oneapi/tbb/task_group.h>

namespace bench {
namespace {

using magpie::Task;
using Counts = std::unordered_map<std::string_view, std::uint64_t>;

constexpr std::size_t kChunk = 512 * 1024;
constexpr std::uint64_t kSeed = 20'261'121;

// Words as frequent as in a real text: the k-th about 1/k as often as the first.
struct Corpus {
  explicit Corpus(std::size_t bytes) {
    std::mt19937_64 random(kSeed);
    constexpr std::size_t kWords = 8'000;
    std::vector<std::string> words;
    std::vector<double> up_to;
    double sum = 0;
    for (std::size_t k = 0; k < kWords; ++k) {
      std::string word;  // the number in letters, so that all differ, and a few more letters
      for (std::size_t rest = k + 1; rest != 0; rest /= 26)
        word.push_back(static_cast<char>('a' + rest % 26));
      word.append(random() % 7, static_cast<char>('a' + random() % 26));
      word.push_back('.');  // ends the padding, which could make two words alike
      words.push_back(std::move(word));
      sum += 1.0 / static_cast<double>(k + 1);
      up_to.push_back(sum);
    }
    std::vector<std::uint64_t> drawn(kWords);
    std::uniform_real_distribution<double> pick(0, sum);
    text.reserve(bytes + 64);
    while (text.size() < bytes) {
      const auto at = std::lower_bound(up_to.begin(), up_to.end(), pick(random)) - up_to.begin();
      const auto k = std::min(static_cast<std::size_t>(at), kWords - 1);
      text += words[k];
      text += drawn[k]++ % 9 == 8 ? '\n' : ' ';
    }
    for (std::size_t first = 0; first < text.size();) {
      const std::size_t end =
          std::min(text.find_first_of(" \n", std::min(first + kChunk, text.size())), text.size());
      chunks.push_back(std::string_view(text).substr(first, end - first));
      first = end;
    }
    for (std::size_t k = 0; k < kWords; ++k) expected[words[k]] += drawn[k];
    std::erase_if(expected, [](const auto& entry) { return entry.second == 0; });
  }

  bool same(const Counts& counts) const {
    return counts.size() == expected.size() &&
           std::all_of(counts.begin(), counts.end(), [&](const auto& entry) {
             const auto known = expected.find(std::string(entry.first));
             return known != expected.end() && known->second == entry.second;
           });
  }

  std::string text;
  std::vector<std::string_view> chunks;
  std::unordered_map<std::string, std::uint64_t> expected;  // counted where the words were drawn
};

void count_into(Counts& counts, std::string_view chunk) {
  const auto is_space = [](char c) { return c == ' ' || c == '\n'; };
  const char* at = chunk.data();
  const char* const end = at + chunk.size();
  while (at != end) {
    at = std::find_if_not(at, end, is_space);
    const char* const word = at;
    at = std::find_if(at, end, is_space);
    if (at != word) ++counts[std::string_view(word, static_cast<std::size_t>(at - word))];
  }
}

Counts merged(Counts a, Counts b) {
  if (a.size() < b.size()) a.swap(b);
  for (const auto& [word, n] : b) a[word] += n;
  return a;
}

Task<Counts> count(const std::vector<std::string_view>& chunks, std::size_t first,
                   std::size_t last) {
  if (last - first == 1) {
    Counts counts;
    count_into(counts, chunks[first]);
    co_return counts;
  }
  const std::size_t middle = first + (last - first) / 2;
  auto [left, right] =
      co_await magpie::gather(count(chunks, first, middle), count(chunks, middle, last));
  co_return merged(std::move(left), std::move(right));
}

// What map gives is counted into the table of the chunks before it.
struct CountOrMerge {
  Counts operator()(Counts counts, std::string_view chunk) const {
    count_into(counts, chunk);
    return counts;
  }
  Counts operator()(Counts a, Counts b) const { return merged(std::move(a), std::move(b)); }
};

Task<Counts> reduced(const std::vector<std::string_view>& chunks) {
  co_return co_await magpie::parallel_reduce(
      std::size_t{0}, chunks.size(), 0, Counts(), [&](std::size_t i) { return chunks[i]; },
      CountOrMerge());
}

Counts on_tbb(const std::vector<std::string_view>& chunks, std::size_t first, std::size_t last) {
  Counts left;
  if (last - first == 1) {
    count_into(left, chunks[first]);
    return left;
  }
  const std::size_t middle = first + (last - first) / 2;
  tbb::task_group group;
  group.run([&] { left = on_tbb(chunks, first, middle); });
  Counts right = on_tbb(chunks, middle, last);
  group.wait();
  return merged(std::move(left), std::move(right));
}

// As one writes it with oneTBB from the start: it decides what to cut, and a table lives as long as
// its thread has chunks in a row.
Counts with_parallel_reduce(const std::vector<std::string_view>& chunks) {
  struct Body {
    const std::vector<std::string_view>& chunks;
    Counts counts;
    explicit Body(const std::vector<std::string_view>& all) : chunks(all) {}
    Body(Body& other, tbb::split) : chunks(other.chunks) {}
    void operator()(const tbb::blocked_range<std::size_t>& range) {
      for (std::size_t i = range.begin(); i != range.end(); ++i) count_into(counts, chunks[i]);
    }
    void join(Body& right) { counts = merged(std::move(counts), std::move(right.counts)); }
  };
  Body body(chunks);
  tbb::parallel_reduce(tbb::blocked_range<std::size_t>(0, chunks.size()), body);
  return std::move(body.counts);
}

}  // namespace

void register_benchmarks(const Options& options) {
  const std::size_t bytes = (options.full ? 64U : 16U) * std::size_t{1024 * 1024};
  for (const std::size_t threads : options.threads) {
    add("wordcount", "magpie", threads, [=](benchmark::State& state) {
      const Corpus corpus(bytes);
      Counts counts;
      measure_magpie(
          state, threads,
          [&](auto& executor) {
            counts = executor.run(count(corpus.chunks, 0, corpus.chunks.size()));
          },
          [&] { return corpus.same(counts); });
    });
    add("wordcount", "magpie_parallel_reduce", threads, [=](benchmark::State& state) {
      const Corpus corpus(bytes);
      Counts counts;
      measure_magpie(
          state, threads, [&](auto& executor) { counts = executor.run(reduced(corpus.chunks)); },
          [&] { return corpus.same(counts); });
    });
    add("wordcount", "tbb_task_group", threads, [=](benchmark::State& state) {
      const Corpus corpus(bytes);
      Counts counts;
      measure_tbb(
          state, threads, [&] { counts = on_tbb(corpus.chunks, 0, corpus.chunks.size()); },
          [&] { return corpus.same(counts); });
    });
    add("wordcount", "tbb_parallel_reduce", threads, [=](benchmark::State& state) {
      const Corpus corpus(bytes);
      Counts counts;
      measure_tbb(
          state, threads, [&] { counts = with_parallel_reduce(corpus.chunks); },
          [&] { return corpus.same(counts); });
    });
  }
}

}  // namespace bench
