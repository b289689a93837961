// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

// The parsers of the files that say how many processors there are: the bytes are split, at zeros,
// into /proc/self/cgroup, /proc/self/mountinfo and the quotas of two groups. Whatever stands there,
// the answer is a number of processors from 1 to those of the affinity mask.

#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>

#include <magpie/topology.h>

namespace {

const std::array<const char*, 7> kFiles = {
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/sys/fs/cgroup/cpu.max",
    "/sys/fs/cgroup/a/cpu.max",
    "/sys/fs/cgroup/a/cpu.cfs_quota_us",
    "/sys/fs/cgroup/a/cpu.cfs_period_us",
    "/sys/fs/cgroup/a/b/cpu.max",
};

const std::string& root() {
  static const std::string made = [] {
    const bool shared = std::filesystem::is_directory("/dev/shm");
    const std::filesystem::path base =
        shared ? std::filesystem::path("/dev/shm") : std::filesystem::temp_directory_path();
    std::string name = (base / "magpie-fuzz-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    std::filesystem::create_directories(name + "/proc/self");
    std::filesystem::create_directories(name + "/sys/fs/cgroup/a/b");
    return name;
  }();
  static const struct Remover {
    ~Remover() {
      std::error_code ignored;
      std::filesystem::remove_all(made, ignored);
    }
  } remover;
  return made;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (const char* const file : kFiles) {
    const std::size_t end = rest.find('\0');
    std::ofstream(root() + file, std::ios::binary) << rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  constexpr std::size_t kProcessors = 8;
  const std::size_t usable = magpie::detail::probe(root(), kProcessors).usable();
  if (usable < 1 || usable > kProcessors) {
    std::cerr << usable << " of " << kProcessors << " processors\n";
    std::abort();
  }
  return 0;
}
