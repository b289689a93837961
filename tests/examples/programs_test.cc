// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// wordcount and zstd_tree on a small tree, cancelled at every moment between two steps, and on
// workers at random moments. They end, with no task and no timer left, and keep their promises: a
// count is right or there is none, a .zst file is there whole or not at all. (The programs of the
// tour: cancel_everywhere.cc.)

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <utility>

#include <gtest/gtest.h>

#include <magpie/detail/random.h>
#include <magpie/magpie.h>
#include <magpie/testing/simulated_executor.h>

#include <examples/wordcount/count_tree.h>
#include <examples/zstd_tree/pack_tree.h>
#include <support/scale.h>

namespace magpie {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// Every so many moments: a trial reads and writes files.
constexpr long kStride = test::kScale == 1 ? 1 : 9;
constexpr int kRounds = test::kScale == 1 ? 40 : 10;

/// Files by their names below a directory.
using Files = std::map<std::string, std::string>;

Files files_below(const fs::path& root) {
  Files files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path(), std::ios::binary);
    files[entry.path().lexically_relative(root)] =
        std::string(std::istreambuf_iterator<char>(in), {});
  }
  return files;
}

class Programs : public ::testing::Test {
 protected:
  Programs() {
    std::string pattern = (fs::temp_directory_path() / "magpie-programs-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    root_ = pattern;
    fs::create_directories(source() / "a" / "b");
    fs::create_directories(source() / "empty");
    write("a/one", "one two three\n");
    write("a/two", "two three three\n");
    write("a/b/three", std::string(5000, 'x') + " one\n");
    write("none", "");
    write("big", std::string((1 << 20) + 1, 'y'));
  }
  ~Programs() override { fs::remove_all(root_); }

  fs::path source() const { return root_ / "source"; }
  fs::path target() const { return root_ / "target"; }

  /// make() makes the program's task; kept(finished) asks whether it kept its promises.
  template <class Make, class Kept>
  void cancel_at_every_moment(Make make, Kept kept) {
    long trials = 0;
    for (long at = 0;; at += kStride) {
      SCOPED_TRACE(at);
      bool reached = false;
      {
        testing::SimulatedExecutor executor(static_cast<std::uint64_t>(at));
        JoinHandle<> handle = executor.spawn(make());
        long moment = 0;
        executor.between_steps([&] {
          if (moment++ != at) return;
          reached = !handle.done();
          handle.cancel();
        });
        auto watch = [&]() -> Task<> { co_await as_result(handle); };
        executor.run(watch());
        check(handle.result(), kept);
        EXPECT_EQ(executor.stats().live_tasks, 0U);
        EXPECT_EQ(executor.stats().pending_timers, 0U);
      }
      ++trials;
      if (!reached || HasFailure()) break;
    }
    std::cout << trials << " trials\n";
    EXPECT_GT(trials, 3);
  }

  template <class Make, class Kept>
  void cancel_on_workers(Make make, Kept kept) {
    const std::uint64_t seed = test::seed_or(1);
    detail::Random random(seed);
    WorkStealingExecutor executor({.threads = 3});
    int cancelled = 0;
    for (int round = 0; round < kRounds && !HasFailure(); ++round) {
      SCOPED_TRACE(seed);
      JoinHandle<> handle = executor.spawn(make());
      for (std::uint64_t spins = random.below(std::uint64_t{1} << (10 + round % 12)); spins > 0;
           --spins)
        static_cast<void>(random());
      handle.cancel();
      cancelled += handle.wait().is_cancelled() ? 1 : 0;
      check(handle.result(), kept);
    }
    executor.shutdown(0s);
    EXPECT_EQ(executor.stats().live_tasks, 0U);
    EXPECT_EQ(executor.stats().pending_timers, 0U);
    std::cout << kRounds << " rounds, " << cancelled << " ended cancelled\n";
  }

 private:
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(source() / name, std::ios::binary) << text;
  }
  template <class Kept>
  void check(const Result<void>& result, Kept kept) {
    EXPECT_TRUE(result.has_value() || result.is_cancelled());
    kept(result.has_value());
  }

  fs::path root_;
};

TEST_F(Programs, WordcountMayBeCancelledEverywhere) {
  wordcount::Progress progress;
  auto count = [&]() -> Task<> {
    const auto summary = co_await wordcount::count_tree(source(), 2, 3, progress);
    EXPECT_EQ(summary.words, 9U);
    EXPECT_EQ(summary.different, 5U);
  };
  const auto kept = [](bool) {};
  cancel_at_every_moment(count, kept);
  cancel_on_workers(count, kept);
  EXPECT_EQ(progress.unreadable.load(), 0U);
}

TEST_F(Programs, ZstdTreeMayBeCancelledEverywhere) {
  zstd_tree::Progress progress;
  zstd_tree::Settings settings;
  settings.level = 1;
  settings.compressors = settings.readers = 2;
  auto pack = [&] {
    fs::remove_all(target());
    return zstd_tree::pack_tree(source(), target(), settings, progress);
  };
  run(pack());
  const Files whole = files_below(target());
  EXPECT_EQ(whole.size(), 5U);
  const auto kept = [&](bool finished) {
    const Files files = fs::exists(target()) ? files_below(target()) : Files();
    if (finished) {
      EXPECT_EQ(files.size(), whole.size());
    }
    for (const auto& [name, text] : files) {
      ASSERT_TRUE(whole.contains(name)) << name;
      EXPECT_TRUE(text == whole.at(name)) << name << " is not whole";
    }
  };
  cancel_at_every_moment(pack, kept);
  cancel_on_workers(pack, kept);
  EXPECT_EQ(progress.failed.load(), 0U);
}

}  // namespace
}  // namespace magpie
