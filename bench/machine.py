# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks ran on: its names, and how much of it others used meanwhile."""

import os
import pathlib
import resource
import subprocess
import time

BENCH = pathlib.Path(__file__).resolve().parent
# Others may use so much of one core before a repetition is left out; below so many left, none is.
DISTURBED_ABOVE = 0.08
UNDISTURBED_AT_LEAST = 3


def undisturbed(cores_of_others):
    """(the repetitions that count, whether too few were undisturbed: then all count)."""
    good = [i for i, cores in enumerate(cores_of_others) if cores <= DISTURBED_ABOVE]
    if len(good) >= min(UNDISTURBED_AT_LEAST, len(cores_of_others)):
        return good, False
    return list(range(len(cores_of_others))), True


def cpu_jiffies():
    """(busy, stolen) of the whole machine, in seconds; (0, 0) where the system does not say."""
    try:
        fields = [int(f) for f in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return 0.0, 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = (fields + [0] * 8)[:8]
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def own_cpu():
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


class Disturbance:
    """What others do to the machine between two looks, in cores: busy time that is not ours, and time stolen by the host."""

    def __init__(self):
        self.wall, self.own, (self.busy, self.steal) = time.monotonic(), own_cpu(), cpu_jiffies()

    def cores(self):
        busy, steal = cpu_jiffies()
        wall = time.monotonic() - self.wall
        others = (busy - self.busy) - (own_cpu() - self.own) + (steal - self.steal)
        # The kernel counts in ticks: what is within two of them is not seen.
        slack = 2 / os.sysconf("SC_CLK_TCK")
        return max(0.0, others - slack) / wall if wall > 0 else 0.0


def cpu_model():
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown processor"


def commit():
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=BENCH, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cmake_cache(build):
    wanted = ("CMAKE_BUILD_TYPE", "CMAKE_CXX_FLAGS", "CMAKE_CXX_FLAGS_RELEASE")
    found = {}
    try:
        for line in (build / "CMakeCache.txt").read_text().splitlines():
            key, _, value = line.partition("=")
            if key.split(":")[0] in wanted:
                found[key.split(":")[0]] = value
    except OSError:
        pass
    kind = found.get("CMAKE_BUILD_TYPE") or "unknown build type"
    flags = [found.get("CMAKE_CXX_FLAGS", "")]
    if kind == "Release":
        flags.append(found.get("CMAKE_CXX_FLAGS_RELEASE", ""))
    return " ".join([kind, *flags]).strip()
