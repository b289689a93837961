// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// zstd_tree SOURCE TARGET: a compressed copy of a directory tree.

#include <chrono>
#include <iostream>
#include <limits>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <magpie/magpie.h>

#include "../support/command_line.h"
#include "pack_tree.h"

using namespace magpie;
using zstd_tree::Progress;

namespace {

constexpr std::string_view usage =
    R"(usage: zstd_tree [--threads N] [--level N] [--readers N] [--writers N] [--timeout S] [--flaky P] SOURCE TARGET

Compresses every file below SOURCE: SOURCE/a/b becomes TARGET/a/b.zst, which `zstd -d` gives back. Links are not followed.
A .zst file is there whole or not at all, also after Ctrl-C.

  --threads N   worker threads, which compress; 0, the default: one for each processor
  --level N     of compression, 1 to 19 (3)
  --readers N   how many files are read at a time (8)
  --writers N   how many writes are under way at a time (4)
  --timeout S   give up after S seconds
  --flaky P     make reads and writes fail with probability P, to see that they are tried again

Exit status: 0; 1 if a file could not be packed (stderr names it, the others are there); 2 for a wrong command line, a
SOURCE that is not there, or a failure; 124 after the timeout; 130 after Ctrl-C, 143 after SIGTERM.
)";

std::string describe(const Progress& progress) {
  return std::to_string(progress.files.load()) + " files, " +
         std::to_string(progress.bytes_read.load() / 1'000'000) + " MB read, " +
         std::to_string(progress.bytes_written.load() / 1'000'000) + " MB written, " +
         std::to_string(progress.retries.load()) + " retries";
}

Task<std::monostate> pack(const std::string& source, const std::string& target,
                          zstd_tree::Settings settings, Progress& progress) {
  co_await zstd_tree::pack_tree(source, target, settings, progress);
  co_return std::monostate();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help")
    return std::cout << usage << std::flush ? 0 : 2;
  Progress progress;
  try {
    support::Options options{{"--threads", {0, 0, 4096}},
                             {"--level", {3, 1, 19}},
                             {"--readers", {8, 1, 10'000}},
                             {"--writers", {4, 1, 10'000}},
                             {"--flaky", {0, 0, 1}},
                             {"--timeout", {std::numeric_limits<double>::infinity(), 0, 1e9}}};
    const auto number = [&](const char* name) {
      return static_cast<std::size_t>(options.at(name).value);
    };
    const std::vector<std::string> arguments = support::parse_options(argc, argv, options);
    if (arguments.size() != 2) throw std::invalid_argument("SOURCE and TARGET are needed");
    WorkStealingExecutor executor({.threads = number("--threads")});
    zstd_tree::Settings settings;
    settings.level = static_cast<int>(number("--level"));
    settings.compressors = executor.thread_count();
    settings.readers = number("--readers");
    settings.writers = number("--writers");
    settings.flakiness = options.at("--flaky").value;
    return support::run_program(
        "zstd_tree", executor, pack(arguments[0], arguments[1], settings, progress),
        std::chrono::duration<double>(options.at("--timeout").value),
        [&] { return describe(progress); },
        [&](std::monostate) {
          std::cout << describe(progress) << ", " << progress.failed << " failed\n" << std::flush;
          if (!std::cout) throw std::runtime_error("cannot write the result");
          return progress.failed == 0 ? 0 : 1;
        });
  } catch (const std::invalid_argument& error) {
    std::cerr << "zstd_tree: " << error.what() << "\nTry 'zstd_tree --help'.\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "zstd_tree: " << error.what() << '\n';
    return 2;
  }
}
