// SPDX-FileCopyrightText: 2026 The magpie authors
// SPDX-License-Identifier: Apache-2.0
// ctest-leave-out: tsan gcc (one thread, no coroutine)

#include <magpie/topology.h>

#include <gtest/gtest.h>

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace magpie {
namespace {

namespace fs = std::filesystem;

// A machine made of files.
class Topology : public ::testing::Test {
 protected:
  Topology() {
    std::string name = (fs::temp_directory_path() / "magpie-topology-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary directory");
    root_ = name;
  }
  ~Topology() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  void write(const std::string& path, const std::string& text) {
    const fs::path file = root_ + path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void groups(const std::string& text) { write("/proc/self/cgroup", text); }
  void mounts(const std::string& text) {
    write("/proc/self/mountinfo",
          "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
          "23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n" +
              text);
  }
  void version2_mount(const std::string& top = "/") {
    mounts("31 22 0:28 " + top + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
  }
  void version1_mount(const std::string& point, const std::string& top = "/") {
    mounts(
        "31 22 0:28 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n"
        "32 31 0:29 " +
        top + " " + point +
        " rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
        "33 31 0:30 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n");
  }
  void version1_quota(const std::string& directory, const std::string& quota,
                      const std::string& period = "100000") {
    write(directory + "/cpu.cfs_quota_us", quota + "\n");
    write(directory + "/cpu.cfs_period_us", period + "\n");
  }

  std::optional<std::size_t> quota() { return detail::probe(root_, 64).quota; }

  std::string root_;
};

constexpr std::optional<std::size_t> unlimited = std::nullopt;

TEST_F(Topology, WithoutControlGroupsUsesTheMask) {
  const detail::Parallelism found = detail::probe(root_, 6);
  EXPECT_EQ(found.quota, unlimited);
  EXPECT_EQ(found.usable(), 6u);
}

TEST_F(Topology, IsTheSmallerOfMaskAndQuotaAndAtLeastOne) {
  EXPECT_EQ((detail::Parallelism{8, 3}.usable()), 3u);
  EXPECT_EQ((detail::Parallelism{2, 3}.usable()), 2u);
  EXPECT_EQ((detail::Parallelism{0, unlimited}.usable()), 1u);
  EXPECT_EQ((detail::Parallelism{4, 0}.usable()), 1u);
}

TEST_F(Topology, ReadsTheQuotaOfVersionTwo) {
  groups("0::/app\n");
  version2_mount();
  write("/sys/fs/cgroup/app/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota(), 4u);
}

TEST_F(Topology, RoundsPartsOfAProcessorUp) {
  groups("0::/app\n");
  version2_mount();
  write("/sys/fs/cgroup/app/cpu.max", "150000 100000\n");
  EXPECT_EQ(quota(), 2u);
  write("/sys/fs/cgroup/app/cpu.max", "1000 100000\n");
  EXPECT_EQ(quota(), 1u);
  write("/sys/fs/cgroup/app/cpu.max", "200001 100000\n");
  EXPECT_EQ(quota(), 3u);
  write("/sys/fs/cgroup/app/cpu.max", "25000 10000\n");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, TakesTheTightestLevelOfVersionTwo) {
  groups("0::/pods/pod1/app\n");
  version2_mount();
  write("/sys/fs/cgroup/pods/cpu.max", "800000 100000\n");
  write("/sys/fs/cgroup/pods/pod1/cpu.max", "200000 100000\n");
  write("/sys/fs/cgroup/pods/pod1/app/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), 2u);
  write("/sys/fs/cgroup/pods/pod1/app/cpu.max", "500000 100000\n");
  EXPECT_EQ(quota(), 2u) << "a looser group below a tighter one";
  write("/sys/fs/cgroup/pods/pod1/app/cpu.max", "100000 100000\n");
  EXPECT_EQ(quota(), 1u);
  write("/sys/fs/cgroup/pods/cpu.max", "10000 100000\n");
  EXPECT_EQ(quota(), 1u);
}

TEST_F(Topology, GoesOnAboveAGroupWithoutTheController) {
  groups("0::/pods/pod1/app\n");
  version2_mount();
  write("/sys/fs/cgroup/pods/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, ReadsTheGroupAtTheMountPointToo) {
  // Inside a container the own group is the top, and has the limits.
  groups("0::/\n");
  version2_mount();
  write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, UnderstandsMaxAsUnlimited) {
  groups("0::/app\n");
  version2_mount();
  write("/sys/fs/cgroup/app/cpu.max", "max 100000\n");
  EXPECT_EQ(quota(), unlimited);
  write("/sys/fs/cgroup/app/cpu.max", "max\n");
  EXPECT_EQ(quota(), unlimited);
}

TEST_F(Topology, KnowsThePeriodThatVersionTwoLeavesOut) {
  groups("0::/app\n");
  version2_mount();
  write("/sys/fs/cgroup/app/cpu.max", "250000\n");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, FindsVersionOneWhereverItIsMounted) {
  groups("5:memory:/other\n4:cpu,cpuacct:/app\n1:name=systemd:/x\n");
  version1_mount("/mnt/with\\040blank");
  version1_quota("/mnt/with blank/app", "250000");
  version1_quota("/sys/fs/cgroup/cpu/app", "100000");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, DoesNotTakeCpusetOrCpuacctForTheController) {
  groups("3:cpuset:/a\n2:cpuacct:/b\n1:cpu:/c\n");
  mounts(
      "30 22 0:27 / /cg/cpuset rw - cgroup cgroup rw,cpuset\n"
      "31 22 0:28 / /cg/cpuacct rw - cgroup cgroup rw,cpuacct\n"
      "32 22 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n");
  version1_quota("/cg/cpuset/a", "100000");
  version1_quota("/cg/cpuacct/b", "200000");
  version1_quota("/cg/cpu/c", "300000");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, TakesTheTightestLevelOfVersionOne) {
  groups("4:cpu,cpuacct:/docker/abc\n");
  version1_mount("/sys/fs/cgroup/cpu,cpuacct");
  version1_quota("/sys/fs/cgroup/cpu,cpuacct", "-1");
  version1_quota("/sys/fs/cgroup/cpu,cpuacct/docker", "100000", "50000");
  version1_quota("/sys/fs/cgroup/cpu,cpuacct/docker/abc", "500000");
  EXPECT_EQ(quota(), 2u);
}

TEST_F(Topology, UnderstandsMinusOneAsUnlimited) {
  groups("4:cpu:/app\n");
  version1_mount("/cg");
  version1_quota("/cg/app", "-1");
  EXPECT_EQ(quota(), unlimited);
}

TEST_F(Topology, TakesWhatTheMountShowsAsItsTop) {
  // Only /docker/abc of the hierarchy is mounted: the path continues below that.
  groups("4:cpu:/docker/abc/worker\n");
  version1_mount("/cg", "/docker/abc");
  version1_quota("/cg", "400000");
  version1_quota("/cg/worker", "200000");
  EXPECT_EQ(quota(), 2u);
}

TEST_F(Topology, TellsAGroupFromOneWhoseNameItBegins) {
  groups("4:cpu:/docker/abcdef\n");
  version1_mount("/cg", "/docker/abc");
  version1_quota("/cg/def", "100000");
  version1_quota("/cg", "400000");
  EXPECT_EQ(quota(), 4u);
}

TEST_F(Topology, InANamespaceWhosePathIsNotBelowTheMountTakesTheMountPoint) {
  groups("4:cpu:/\n");
  version1_mount("/cg", "/docker/abc");
  version1_quota("/cg", "300000");
  EXPECT_EQ(quota(), 3u);

  groups("0::/\n");
  version2_mount("/../../other");
  write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2u);
}

TEST_F(Topology, DoesNotFollowAPathOutOfTheNamespace) {
  groups("0::/../sibling\n");
  version2_mount();
  write("/sys/fs/sibling/cpu.max", "100000 100000\n");
  write("/sys/fs/cgroup/cpu.max", "500000 100000\n");
  EXPECT_EQ(quota(), 5u);
}

TEST_F(Topology, PrefersTheMountThatHasTheGroup) {
  groups("0::/app\n");
  mounts(
      "31 22 0:28 /elsewhere /mnt/part rw - cgroup2 cgroup2 rw\n"
      "32 22 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  write("/mnt/part/cpu.max", "100000 100000\n");
  write("/sys/fs/cgroup/app/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota(), 4u);
}

TEST_F(Topology, OnAHybridSystemLooksAtBothVersions) {
  groups("4:cpu,cpuacct:/one\n0::/two\n");
  mounts(
      "32 22 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
      "33 22 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  version1_quota("/sys/fs/cgroup/cpu/one", "300000");
  EXPECT_EQ(quota(), 3u);
  write("/sys/fs/cgroup/unified/two/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2u);
}

TEST_F(Topology, TriesTheUsualPlacesWhenTheMountsAreHidden) {
  groups("0::/app\n");
  write("/sys/fs/cgroup/app/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2u);
  groups("3:cpu,cpuacct:/app\n");
  version1_quota("/sys/fs/cgroup/cpu,cpuacct/app", "300000");
  EXPECT_EQ(quota(), 3u);
}

TEST_F(Topology, TakesAPathWithColonsAsItIs) {
  groups("0::/a:b:c\n");
  version2_mount();
  write("/sys/fs/cgroup/a:b:c/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2u);
}

TEST_F(Topology, IgnoresWhatItDoesNotUnderstand) {
  version2_mount();
  for (const char* text : {"", "\n", "0", "0:", "0::", "::\n", "0::app\n", "x:y:z\n", ":::::\n",
                           "4:cpu\n", "\xff\xfe\n"}) {
    groups(text);
    EXPECT_EQ(quota(), unlimited) << text;
  }
  groups("garbage\n0::/app\n\n:\n");
  write("/sys/fs/cgroup/app/cpu.max", "200000 100000\n");
  EXPECT_EQ(quota(), 2u) << "a bad line spoils no other";
  for (const char* text :
       {"", "\n", "x", "100000 0", "0 100000", "-1 100000", "1e5 100000", "100000 x",
        "100000 100000 100000", "99999999999999999999999 100000", "100000,100000"}) {
    write("/sys/fs/cgroup/app/cpu.max", text);
    EXPECT_EQ(quota(), unlimited) << text;
  }
}

TEST_F(Topology, IgnoresMountLinesThatAreCutShort) {
  groups("0::/app\n4:cpu:/app\n");
  write("/sys/fs/cgroup/app/cpu.max", "200000 100000\n");
  const std::string line = "31 22 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
  for (std::size_t length = 0; length + 10 < line.size(); ++length) {
    write("/proc/self/mountinfo", line.substr(0, length) + "\n");
    const std::optional<std::size_t> found = quota();
    EXPECT_TRUE(found == unlimited || found == 2u) << length;
  }
  write("/proc/self/mountinfo", "31 22 0:28 / relative rw - cgroup2 cgroup2 rw\n" + line);
  EXPECT_EQ(quota(), 2u) << "the last line has no end";
}

TEST_F(Topology, IgnoresBrokenFilesOfVersionOne) {
  groups("4:cpu:/app\n");
  version1_mount("/cg");
  for (const char* period : {"", "0", "-5", "x"}) {
    version1_quota("/cg/app", "200000", period);
    EXPECT_EQ(quota(), unlimited) << period;
  }
  for (const char* limit : {"", "0", "x", "1 2"}) {
    version1_quota("/cg/app", limit);
    EXPECT_EQ(quota(), unlimited) << limit;
  }
  version1_quota("/cg/app", "9223372036854775807", "1");
  EXPECT_EQ(detail::probe(root_, 64).usable(), 64u);
}

TEST_F(Topology, IgnoresDirectoriesWhereItExpectsFiles) {
  groups("0::/app\n");
  version2_mount();
  write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  fs::create_directories(root_ + "/sys/fs/cgroup/app/cpu.max");
  EXPECT_EQ(quota(), 2u);
  fs::remove(root_ + "/proc/self/cgroup");
  fs::create_directories(root_ + "/proc/self/cgroup");
  EXPECT_EQ(quota(), unlimited);
}

// --- Processors ---

class Processors : public Topology {
 protected:
  void cpu(int number, const std::string& siblings, int package = 0) {
    const std::string directory = "/sys/devices/system/cpu/cpu" + std::to_string(number);
    write(directory + "/topology/core_cpus_list", siblings + "\n");
    write(directory + "/topology/physical_package_id", std::to_string(package) + "\n");
  }
};

using Cpus = std::vector<int>;

TEST_F(Processors, WithoutATopologyStayInTheOrderOfTheMask) {
  EXPECT_EQ(detail::topology_order(root_, {3, 1, 9}), (Cpus{1, 3, 9}));
  EXPECT_EQ(detail::topology_order(root_, {}), Cpus{});
}

TEST_F(Processors, GiveOneOfEachCoreBeforeTheSiblings) {
  for (int number : {0, 1}) cpu(number, "0-1");
  for (int number : {2, 3}) cpu(number, "2-3");
  EXPECT_EQ(detail::topology_order(root_, {0, 1, 2, 3}), (Cpus{0, 2, 1, 3}));
}

TEST_F(Processors, KeepAPackageTogether) {
  cpu(0, "0,4", 0);
  cpu(1, "1,5", 1);
  cpu(2, "2,6", 0);
  cpu(3, "3,7", 1);
  cpu(4, "0,4", 0);
  cpu(5, "1,5", 1);
  cpu(6, "2,6", 0);
  cpu(7, "3,7", 1);
  EXPECT_EQ(detail::topology_order(root_, {0, 1, 2, 3, 4, 5, 6, 7}),
            (Cpus{0, 2, 1, 3, 4, 6, 5, 7}));
}

TEST_F(Processors, CountOnlySiblingsThatTheMaskAllows) {
  for (int number : {0, 1}) cpu(number, "0-1");
  for (int number : {2, 3}) cpu(number, "2-3");
  EXPECT_EQ(detail::topology_order(root_, {1, 2, 3}), (Cpus{1, 2, 3}));
}

TEST_F(Processors, StartWithTheStrongestCores) {
  for (int number : {0, 1, 2}) {
    cpu(number, std::to_string(number));
    write("/sys/devices/system/cpu/cpu" + std::to_string(number) + "/cpu_capacity",
          number == 0 ? "400\n" : "1024\n");
  }
  EXPECT_EQ(detail::topology_order(root_, {0, 1, 2}), (Cpus{1, 2, 0}));
}

TEST_F(Processors, KnowTheOlderNameOfTheSiblings) {
  for (int number : {0, 1, 2, 3}) {
    write("/sys/devices/system/cpu/cpu" + std::to_string(number) + "/topology/thread_siblings_list",
          number % 2 == 0 ? "0,2\n" : "1,3\n");
  }
  EXPECT_EQ(detail::topology_order(root_, {0, 1, 2, 3}), (Cpus{0, 1, 2, 3}));
  EXPECT_EQ(detail::topology_order(root_, {0, 2, 3}), (Cpus{0, 3, 2}));
}

TEST_F(Processors, AreTheirOwnCoreWhereTheListIsBroken) {
  for (int number : {0, 1}) cpu(number, "broken");
  EXPECT_EQ(detail::topology_order(root_, {0, 1}), (Cpus{0, 1}));
}

// A kernel with 3000 possible processors: it refuses a smaller mask.
int large_machine(std::size_t bytes, void* mask) {
  if (bytes * 8 < 3000) {
    errno = EINVAL;
    return -1;
  }
  auto* words = static_cast<unsigned long*>(mask);
  for (unsigned cpu : {0u, 1023u, 1024u, 2999u}) words[cpu / 64] |= 1ul << (cpu % 64);
  return static_cast<int>(bytes);
}

int always_invalid(std::size_t, void*) {
  errno = EINVAL;
  return -1;
}

int forbidden(std::size_t, void*) {
  errno = EPERM;
  return -1;
}

TEST(Affinity, GrowsTheMaskUntilTheKernelTakesIt) {
  EXPECT_EQ(detail::affinity_cpus(large_machine), (Cpus{0, 1023, 1024, 2999}));
}

TEST(Affinity, CountsTheProcessorsOnlineWhenTheKernelDoesNotSay) {
  EXPECT_GE(detail::affinity_cpus(forbidden).size(), 1u);
  EXPECT_EQ(detail::affinity_cpus(forbidden), detail::affinity_cpus(always_invalid));
  EXPECT_EQ(detail::affinity_cpus(forbidden).front(), 0);
}

TEST(Affinity, IsTheCallingThreadsMask) {
  std::thread([] {
    const Cpus all = affinity_cpus_in_topology_order();
    ASSERT_FALSE(all.empty());
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<std::size_t>(all.back()), &one);
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(affinity_cpus_in_topology_order(), Cpus{all.back()});
    EXPECT_EQ(available_parallelism(), 1u);
  }).join();
}

// --- MAGPIE_THREADS ---

class ThreadsVariable : public ::testing::Test {
 protected:
  ThreadsVariable() {
    if (const char* text = std::getenv("MAGPIE_THREADS")) before_ = text;
    ::unsetenv("MAGPIE_THREADS");
  }
  ~ThreadsVariable() override {
    if (before_) {
      ::setenv("MAGPIE_THREADS", before_->c_str(), 1);
    } else {
      ::unsetenv("MAGPIE_THREADS");
    }
  }
  static void set(const char* text) { ::setenv("MAGPIE_THREADS", text, 1); }

 private:
  std::optional<std::string> before_;
};

TEST_F(ThreadsVariable, IsReadAtEachCall) {
  const std::size_t natural = available_parallelism();
  EXPECT_GE(natural, 1u);
  set("7");
  EXPECT_EQ(available_parallelism(), 7u);
  set("4096");
  EXPECT_EQ(available_parallelism(), 4096u);
  set("1");
  EXPECT_EQ(available_parallelism(), 1u);
  set("");
  EXPECT_EQ(available_parallelism(), natural) << "empty counts as unset";
}

TEST_F(ThreadsVariable, IsQuotedWhenItIsNotANumberInRange) {
  for (const char* text : {"0", "4097", "-1", "+4", "four", "4x", " 4", "4 ", "4.0", "0x4",
                           "99999999999999999999999"}) {
    set(text);
    try {
      ADD_FAILURE() << "\"" << text << "\" gave " << available_parallelism();
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string_view(e.what()).find("\"" + std::string(text) + "\""),
                std::string_view::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace magpie
