// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include "count_tree.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <memory>
#include <mutex>

#include <magpie/magpie.h>

#include "../support/directory.h"
#include "files.h"
#include "words.h"

namespace wordcount {

using magpie::Permit;
using magpie::Task;
using magpie::TaskGroup;
using magpie::to_thread;
using support::list_directory;
using support::Listing;

namespace {

struct OpenFile {
  std::string path;
  Permit permit;  // goes back when the file has been closed
  TextFile file;
};

class TreeCounter {
 public:
  TreeCounter(std::size_t open_files, Progress& progress)
      : open_files_(open_files), progress_(progress) {}

  Task<void> walk(TaskGroup& group, Listing found) {
    std::vector<std::string> directories;
    for (;;) {
      for (std::string& path : found.files) {
        // Here, not in the task: a million files must not become a million waiting tasks.
        Permit permit = co_await open_files_.acquire();
        group.spawn(count_file(group, std::move(path), std::move(permit)));
      }
      std::move(found.directories.begin(), found.directories.end(),
                std::back_inserter(directories));
      found = Listing();
      if (directories.empty()) co_return;
      const std::string directory = std::move(directories.back());
      directories.pop_back();
      try {
        co_await to_thread([&] { found = list_directory(directory); });
      } catch (const std::system_error& error) {
        report(directory, error);
      }
    }
  }

  /// One shard of all the tables. When the counting is over.
  Task<Summary> summarise(std::size_t shard, std::size_t top) {
    WordTable::Shard all;
    for (const auto& table : tables_) table->merge_into(all, shard);
    Summary summary{0, all.size(), {}};
    for (const auto& [word, count] : all) {
      summary.words += count;
      summary.top.emplace_back(count, word);
    }
    cut(summary, top);
    co_return summary;
  }

  static void cut(Summary& summary, std::size_t top) {
    const auto end =
        summary.top.begin() + static_cast<std::ptrdiff_t>(std::min(top, summary.top.size()));
    std::partial_sort(summary.top.begin(), end, summary.top.end(),
                      [](const auto& a, const auto& b) {
                        return a.first != b.first ? a.first > b.first : a.second < b.second;
                      });
    summary.top.erase(end, summary.top.end());
  }

 private:
  Task<void> count_file(TaskGroup& group, std::string path, Permit permit) {
    std::shared_ptr<const OpenFile> open;
    std::string text;
    try {
      co_await to_thread([&] {
        open.reset(new OpenFile{path, std::move(permit), TextFile(path)});
        text = open->file.piece(0);
      });
    } catch (const std::system_error& error) {
      report(path, error);
      co_return;
    }
    if (text.find('\0') < 8192) {
      progress_.binary.fetch_add(1);
      co_return;
    }
    for (std::uint64_t at = TextFile::piece_size; at < open->file.size();
         at += TextFile::piece_size) {
      Permit piece = co_await pieces_.acquire();  // bounds the memory, however big the file is
      group.spawn(count_piece(open, at, std::move(piece)));
    }
    count(text);
    progress_.files.fetch_add(1);
  }

  Task<void> count_piece(std::shared_ptr<const OpenFile> open, std::uint64_t begin, Permit) {
    std::string text;
    try {
      co_await to_thread([&] { text = open->file.piece(begin); });
      count(text);
    } catch (const std::system_error& error) {
      report(open->path, error);
    }
  }

  // One short lock for a piece, none for a word; there come to be as many tables as workers count
  // at one time.
  void count(const std::string& text) {
    std::unique_lock lock(mutex_);
    if (tables_.empty()) tables_.push_back(std::make_unique<WordTable>());
    std::unique_ptr<WordTable> table = std::move(tables_.back());
    tables_.pop_back();
    lock.unlock();
    progress_.words.fetch_add(table->count(text));
    progress_.bytes.fetch_add(text.size());
    lock.lock();
    tables_.push_back(std::move(table));
  }

  void report(const std::string& path, const std::system_error& error) {
    std::fprintf(stderr, "wordcount: %s: %s\n", path.c_str(), error.code().message().c_str());
    progress_.unreadable.fetch_add(1);
  }

  magpie::Semaphore open_files_;
  magpie::Semaphore pieces_{64};
  std::mutex mutex_;
  std::vector<std::unique_ptr<WordTable>> tables_;
  Progress& progress_;
};

}  // namespace

Task<Summary> count_tree(std::string root, std::size_t open_files, std::size_t top,
                         Progress& progress) {
  Listing found;
  co_await to_thread([&] {
    std::error_code error;
    const bool is_directory = std::filesystem::is_directory(root, error);
    if (error) throw std::system_error(error, root);
    (is_directory ? found.directories : found.files).push_back(root);
  });
  TreeCounter counter(open_files, progress);
  co_await magpie::task_group(
      [&](TaskGroup& group) { return counter.walk(group, std::move(found)); });

  std::vector<Task<Summary>> shards;
  for (std::size_t i = 0; i < WordTable::shard_count; ++i)
    shards.push_back(counter.summarise(i, top));
  const std::vector<Summary> summaries = co_await magpie::gather(std::move(shards));
  Summary all;
  for (const Summary& shard : summaries) {
    all.words += shard.words;
    all.different += shard.different;
    all.top.insert(all.top.end(), shard.top.begin(), shard.top.end());
  }
  TreeCounter::cut(all, top);
  co_return all;
}

}  // namespace wordcount
