// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0

#include <magpie/topology.h>

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

// The formats: proc(5) for /proc/self/mountinfo, cgroups(7) for /proc/self/cgroup, the kernel's
// admin-guide/cgroup-v2 for cpu.max and scheduler/sched-bwc for the cfs files of version 1, and
// admin-guide/cputopology for the topology directory. What cannot be read or understood sets no
// limit.

namespace magpie {
namespace {

constexpr std::size_t most_threads = 4096;

// With C's functions, because a std::ifstream throws when reading fails after opening did not (a
// directory, a group that is removed meanwhile).
std::optional<std::string> read_file(const std::string& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             std::fclose);
  if (!file) return std::nullopt;
  std::string text;
  char block[4096];
  while (const std::size_t got = std::fread(block, 1, sizeof block, file.get())) {
    text.append(block, got);
  }
  if (std::ferror(file.get()) != 0) return std::nullopt;
  return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// The words of a line, without its line end.
std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> parts;
  for (std::string_view part : split(line.substr(0, line.find('\n')), ' ')) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

template <class Integer>
std::optional<Integer> parse(std::string_view text) {
  Integer number{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

template <class Integer>
std::optional<Integer> read_number(const std::string& path) {
  const std::optional<std::string> text = read_file(path);
  if (!text) return std::nullopt;
  const auto parts = words(*text);
  return parts.size() == 1 ? parse<Integer>(parts[0]) : std::nullopt;
}

// --- Control groups ------------------------------------------------------------------------------

// Which group the process is in: the path as /proc/self/cgroup has it.
struct Membership {
  std::optional<std::string> version1;  // of the hierarchy that has the cpu controller
  std::optional<std::string> version2;
};

Membership read_membership(const std::string& root) {
  Membership membership;
  const std::string text = read_file(root + "/proc/self/cgroup").value_or("");
  for (std::string_view line : split(text, '\n')) {
    // "4:cpu,cpuacct:/path" and "0::/path"; the path may have colons in it.
    const std::size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view number = line.substr(0, first);
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view path = line.substr(second + 1);
    if (!path.starts_with('/')) continue;
    if (number == "0" && controllers.empty()) {
      if (!membership.version2) membership.version2 = path;
    } else {
      const auto names = split(controllers, ',');
      if (!membership.version1 && std::find(names.begin(), names.end(), "cpu") != names.end()) {
        membership.version1 = path;
      }
    }
  }
  return membership;
}

// A place where groups are mounted: `top` is the group that one sees at `point`.
struct Mount {
  std::string top;
  std::string point;
};

struct Mounts {
  std::vector<Mount> version1;
  std::vector<Mount> version2;
};

// Blanks, tabs, line ends and backslashes of a path are written as \040 and so on.
std::string unescape(std::string_view text) {
  const auto octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string path;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && octal(text[i + 1]) && octal(text[i + 2]) &&
        octal(text[i + 3])) {
      path += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                (text[i + 3] - '0'));
      i += 3;
    } else {
      path += text[i];
    }
  }
  return path;
}

Mounts read_mounts(const std::string& root) {
  const std::optional<std::string> text = read_file(root + "/proc/self/mountinfo");
  if (!text) {
    // Hidden from us: the usual places.
    return {{{"/", "/sys/fs/cgroup/cpu"}, {"/", "/sys/fs/cgroup/cpu,cpuacct"}},
            {{"/", "/sys/fs/cgroup"}, {"/", "/sys/fs/cgroup/unified"}}};
  }
  Mounts mounts;
  for (std::string_view line : split(*text, '\n')) {
    // "id parent device top point options [tags...] - type source super-options"
    const auto parts = words(line);
    if (parts.size() < 8) continue;
    const auto dash = std::find(parts.begin() + 6, parts.end(), "-");
    if (parts.end() - dash < 2) continue;
    Mount mount{unescape(parts[3]), unescape(parts[4])};
    if (!mount.point.starts_with('/') || !mount.top.starts_with('/')) continue;
    if (dash[1] == "cgroup2") {
      mounts.version2.push_back(std::move(mount));
    } else if (dash[1] == "cgroup") {
      const auto options = split(parts.back(), ',');
      if (std::find(options.begin(), options.end(), "cpu") != options.end()) {
        mounts.version1.push_back(std::move(mount));
      }
    }
  }
  return mounts;
}

// "/a/b" below "/a" is "/b", below itself "", and below "/" it is "/a/b". Nothing if it is not
// below.
std::optional<std::string> below(const std::string& path, const std::string& top) {
  const std::string clean_path = path == "/" ? "" : path;
  const std::string clean_top = top == "/" ? "" : top;
  if (!clean_path.starts_with(clean_top)) return std::nullopt;
  std::string rest = clean_path.substr(clean_top.size());
  if (!rest.empty() && rest.front() != '/') return std::nullopt;
  return rest;
}

// A group outside of the process's cgroup namespace is shown as "/../x": there is no such path.
bool leads_upwards(std::string_view path) {
  const auto parts = split(path, '/');
  return std::find(parts.begin(), parts.end(), "..") != parts.end();
}

using ReadQuota = std::optional<std::size_t> (*)(const std::string& directory);

// Rounded up: half a processor is better used by one thread that is throttled than by none.
std::optional<std::size_t> whole_processors(std::uint64_t quota, std::uint64_t period) {
  if (period == 0 || quota == 0) return std::nullopt;
  return static_cast<std::size_t>(quota / period + (quota % period != 0 ? 1 : 0));
}

std::optional<std::size_t> version2_quota(const std::string& directory) {
  const std::optional<std::string> text = read_file(directory + "/cpu.max");
  if (!text) return std::nullopt;
  const auto parts = words(*text);  // "max 100000" or "150000 100000"; the period may be left out
  if (parts.empty() || parts.size() > 2) return std::nullopt;
  const auto quota = parse<std::uint64_t>(parts[0]);
  const auto period = parts.size() == 2 ? parse<std::uint64_t>(parts[1]) : 100'000;
  return quota && period ? whole_processors(*quota, *period) : std::nullopt;
}

std::optional<std::size_t> version1_quota(const std::string& directory) {
  const auto quota = read_number<std::int64_t>(directory + "/cpu.cfs_quota_us");
  if (!quota || *quota < 0) return std::nullopt;  // -1: unlimited
  const auto period = read_number<std::uint64_t>(directory + "/cpu.cfs_period_us");
  return period ? whole_processors(static_cast<std::uint64_t>(*quota), *period) : std::nullopt;
}

void tighten(std::optional<std::size_t>& limit, std::optional<std::size_t> other) {
  if (other && (!limit || *other < *limit)) limit = other;
}

// From the process's own group up to the one at the mount point: any of them may be the tightest.
std::optional<std::size_t> tightest(const std::string& mount_point, std::string group,
                                    ReadQuota read) {
  std::optional<std::size_t> limit;
  while (true) {
    tighten(limit, read(mount_point + group));
    if (group.empty()) return limit;
    group.resize(group.rfind('/'));  // always there: the group is empty or begins with one
  }
}

std::optional<std::size_t> quota_of(const std::string& root, const std::vector<Mount>& mounts,
                                    const std::string& path, ReadQuota read) {
  std::optional<std::size_t> limit;
  bool found = false;
  if (!leads_upwards(path)) {
    for (const Mount& mount : mounts) {
      const std::optional<std::string> group = below(path, mount.top);
      if (!group) continue;
      found = true;
      tighten(limit, tightest(root + mount.point, *group, read));
    }
  }
  if (found || mounts.empty()) return limit;
  // In a cgroup namespace, or with a container's group mounted as if it were the top, the two files
  // speak of different trees. What is mounted is then what the container was given: its own group.
  const Mount& mount = mounts.front();
  if (!leads_upwards(path)) {
    tighten(limit, tightest(root + mount.point, path == "/" ? "" : path, read));
    return limit;
  }
  return read(root + mount.point);
}

// --- Processors ----------------------------------------------------------------------------------

int system_affinity(std::size_t bytes, void* mask) {
  return ::sched_getaffinity(0, bytes, static_cast<cpu_set_t*>(mask));
}

// "0,4" or "0-1,8": the first one stands for the core.
std::optional<int> first_of_list(const std::string& path) {
  const std::optional<std::string> text = read_file(path);
  if (!text) return std::nullopt;
  return parse<int>(std::string_view(*text).substr(0, text->find_first_of(",-\n")));
}

}  // namespace

namespace detail {

Parallelism probe(const std::string& root, std::size_t affinity) {
  const Membership membership = read_membership(root);
  const Mounts mounts = read_mounts(root);
  Parallelism parallelism{affinity, std::nullopt};
  // On a hybrid system the controller is in one of the two; the other has no quota files.
  if (membership.version2) {
    tighten(parallelism.quota,
            quota_of(root, mounts.version2, *membership.version2, version2_quota));
  }
  if (membership.version1) {
    tighten(parallelism.quota,
            quota_of(root, mounts.version1, *membership.version1, version1_quota));
  }
  return parallelism;
}

std::vector<int> affinity_cpus(GetAffinity get) {
  // The kernel refuses a mask that is smaller than its own; 1024 is what cpu_set_t has, and no
  // kernel is built for more than a small part of the upper bound.
  constexpr std::size_t first_size = 1024;
  constexpr std::size_t last_size = std::size_t{1} << 20;
  using Word = unsigned long;  // the kernel writes whole words
  constexpr std::size_t word_bits = sizeof(Word) * 8;
  std::vector<int> cpus;
  for (std::size_t size = first_size; size <= last_size; size *= 2) {
    std::vector<Word> mask(size / word_bits);
    if (get(mask.size() * sizeof(Word), mask.data()) >= 0) {
      for (std::size_t cpu = 0; cpu < size; ++cpu) {
        if ((mask[cpu / word_bits] >> (cpu % word_bits) & 1u) != 0) {
          cpus.push_back(static_cast<int>(cpu));
        }
      }
      break;
    }
    if (errno != EINVAL) break;
  }
  if (cpus.empty()) {
    // A sandbox that forbids the question.
    const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
    for (int cpu = 0; cpu < std::max(online, 1L); ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<int> topology_order(const std::string& root, std::vector<int> cpus) {
  constexpr int usual_capacity = 1024;  // what the kernel gives the strongest cores
  struct Place {
    int rank;  // 0 for the first processor of a core, 1 for the second...
    int weakness;
    int package;
    int core;
    int cpu;
    auto key() const { return std::tie(rank, weakness, package, core, cpu); }
  };
  std::sort(cpus.begin(), cpus.end());
  std::map<std::pair<int, int>, int> seen;
  std::vector<Place> places;
  for (int cpu : cpus) {
    const std::string directory = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    const std::string topology = directory + "/topology";
    const int package = read_number<int>(topology + "/physical_package_id").value_or(0);
    // The list of hardware threads, under its name since Linux 5.3 and under the one before.
    std::optional<int> core = first_of_list(topology + "/core_cpus_list");
    if (!core) core = first_of_list(topology + "/thread_siblings_list");
    const int capacity = read_number<int>(directory + "/cpu_capacity").value_or(usual_capacity);
    const int leader = core.value_or(cpu);
    places.push_back({seen[{package, leader}]++, -capacity, package, leader, cpu});
  }
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return a.key() < b.key(); });
  std::transform(places.begin(), places.end(), cpus.begin(),
                 [](const Place& place) { return place.cpu; });
  return cpus;
}

}  // namespace detail

std::size_t available_parallelism() {
  if (const char* text = std::getenv("MAGPIE_THREADS"); text != nullptr && *text != '\0') {
    const auto threads = parse<std::size_t>(text);
    if (!threads || *threads < 1 || *threads > most_threads) {
      throw std::invalid_argument("MAGPIE_THREADS is \"" + std::string(text) +
                                  "\": set it to a number from 1 to 4096, or unset it");
    }
    return *threads;
  }
  return detail::probe("", detail::affinity_cpus(system_affinity).size()).usable();
}

std::vector<int> affinity_cpus_in_topology_order() {
  return detail::topology_order("", detail::affinity_cpus(system_affinity));
}

}  // namespace magpie
