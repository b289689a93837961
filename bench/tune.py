#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""How many threads a program should have: ./dev tune -- PROGRAM ARGUMENTS...

Runs the program with MAGPIE_THREADS set to each of several numbers, which is how many workers an executor gets whose options
name none, and says with how few of them it is as fast as it gets. What is compared is the time of a run, or with --rate what the
program prints of its throughput, for programs that run for a given time:

    ./dev tune -- build/release/examples/wordcount big.txt
    ./dev tune --rate 'requests/s: ([0-9.]+)' --threads 2,4,8,12,16 -- ./load_test --seconds 5

Times of a shared or virtual machine drift over minutes, so every round runs all numbers once, in another order, and what counts
is how each compares with the best one in the same round: the median over the rounds, and its bootstrap interval (98 %). Rounds in
which others used more than 8 % of a core are left out, if at least three remain.

    speed-up     of one thread's time; also of the smallest number's, if that is another
    CPU          processor time of the whole run, of the smallest number's: what grows here is what sharing the work costs
    serial       the part of the work that seems not to be shared out (A. H. Karp, H. P. Flatt, CACM 33, 1990): about the same
                 for each number if there is such a part; growing if it is the sharing that costs

Ends with 0, 2 if nothing could be measured, 130 if it was interrupted.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

from compare import bootstrap
from machine import Disturbance, cpu_model, undisturbed

ROUNDS = (5, 15)
ENOUGH_TO_TELL = 3


class Unusable(Exception):
    """Nothing can be measured."""


@dataclasses.dataclass
class Run:
    cost: float  # seconds of a run, or seconds for one of what the program counts
    wall: float
    cpu: float
    switches: int
    megabytes: float
    others: float  # cores


def run_once(command, threads, rate, timeout):
    look, started = Disturbance(), time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, "MAGPIE_THREADS": str(threads)}
            )
        except OSError as error:
            raise Unusable(f"{command[0]}: {error.strerror}") from error
        try:
            status, usage = wait_for(process, started + timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - started
        out.seek(0), err.seek(0)
        if status != 0:
            said = err.read()[-400:].decode(errors="replace").strip()
            raise Unusable(f"with {threads} threads it ended with {status}" + (f": {said}" if said else ""))
        cost = wall
        if rate is not None:
            match = rate.search(out.read().decode(errors="replace"))
            if match is None:
                raise Unusable(f"nothing that it printed matches {rate.pattern!r}")
            try:
                cost = 1 / float(match[1])
            except (ValueError, IndexError, ZeroDivisionError) as error:
                raise Unusable(f"the group of {rate.pattern!r} must match a number above 0, in {match[0]!r}") from error
    return Run(
        cost, wall, usage.ru_utime + usage.ru_stime, usage.ru_nvcsw + usage.ru_nivcsw, usage.ru_maxrss / 1024, look.cores()
    )


def wait_for(process, deadline):
    """(exit code, resource usage) of the process and what it waited for."""
    while time.monotonic() < deadline:
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
        if done:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage
        time.sleep(0.0005)
    raise Unusable("a run was not finished in time: --timeout gives it longer")


def measure(command, numbers, options, say):
    """[{threads: Run}], a dict for each round."""
    first = run_once(command, numbers[-1], options.rate, options.timeout)  # files and pages are there from then on
    rounds, started, order = [], time.monotonic(), random.Random(1)
    say(f"{len(numbers)} numbers of threads, {ROUNDS[0]} to {ROUNDS[1]} rounds; the first run took {first.wall:.2f} s")
    try:
        while len(rounds) < ROUNDS[1]:
            round_started = time.monotonic()
            runs = {n: run_once(command, n, options.rate, options.timeout) for n in order.sample(numbers, len(numbers))}
            rounds.append(runs)
            now = time.monotonic()
            if len(rounds) >= ROUNDS[0] and now - started + (now - round_started) > options.seconds:
                break
    except KeyboardInterrupt:
        if not rounds:
            raise
        say("interrupted: this is what was measured until then")
    return rounds


@dataclasses.dataclass
class Row:
    threads: int
    cost: float
    ratio: float  # of the best one's
    low: float
    high: float
    speed_up: float
    cpu: float
    serial: float | None
    switches: float
    megabytes: float
    cores: float


def judge(rounds, tolerance):
    """([Row], the recommended row, whether others disturbed most rounds)"""
    numbers = sorted(rounds[0])
    counting, disturbed = undisturbed([max(run.others for run in runs.values()) for runs in rounds])
    rounds = [rounds[i] for i in counting]

    def median(what):
        return statistics.median(what(runs) for runs in rounds)

    best = min(numbers, key=lambda n: median(lambda runs: runs[n].cost))
    least = numbers[0]
    rows = []
    for n in numbers:
        ratios = [runs[n].cost / runs[best].cost for runs in rounds]
        low, high = bootstrap([1.0] * len(ratios), ratios, random.Random(n))
        speed_up = median(lambda runs: runs[least].cost / runs[n].cost)
        serial = None
        if n > least == 1:
            serial = (1 / speed_up - 1 / n) / (1 - 1 / n)
        rows.append(
            Row(n, median(lambda runs: runs[n].cost), statistics.median(ratios), low, high, speed_up,
                median(lambda runs: runs[n].cpu / max(runs[least].cpu, 1e-9)), serial, median(lambda runs: runs[n].switches),
                median(lambda runs: runs[n].megabytes), median(lambda runs: runs[n].cpu / runs[n].wall))
        )  # fmt: skip
    chosen = next(row for row in rows if row.ratio <= 1 + tolerance)
    return rows, chosen, disturbed


def table(rows, chosen, is_rate):
    yield (f"{'threads':>7} {'rate' if is_rate else 'time':>10} {'of the best':>18} {'speed-up':>8} {'CPU':>6} {'serial':>7} "
           f"{'switches':>9} {'MB':>7}")  # fmt: skip
    for row in rows:
        shown = f"{1 / row.cost:.4g}" if is_rate else f"{row.cost:.3f} s"
        interval = f"{row.ratio:.2f} ({row.low:.2f}-{row.high:.2f})"
        serial = "" if row.serial is None else f"{100 * row.serial:.0f} %"
        yield (f"{row.threads:7} {shown:>10} {interval:>18} {row.speed_up:8.2f} {row.cpu:6.2f} {serial:>7} "
               f"{row.switches:9.0f} {row.megabytes:7.1f}" + (" <-" if row is chosen else ""))  # fmt: skip


def advice(rows, chosen, disturbed, rounds, tolerance, processors):
    best = min(rows, key=lambda row: row.ratio)
    percent = f"{100 * tolerance:g} %"
    name = f"{chosen.threads} thread{'s' if chosen.threads > 1 else ''}"
    if chosen is not best:
        yield f"{name}: {best.threads} are less than {percent} faster."
    elif chosen is rows[0]:
        yield f"{name}: with more it is not faster."
    else:
        yield f"{name}: with fewer it is more than {percent} slower."
    near = [str(row.threads) for row in rows if row.threads < chosen.threads and row.low <= 1 + tolerance]
    if near:
        yield f"Not certain: {', '.join(near)} may be enough. More rounds tell (--seconds)."
    if rows[0].threads == 1 and rows[0].cores > 1.5:
        yield (f"With 1 thread it used {rows[0].cores:.1f} cores: does it set ExecutorOptions::threads itself? "
               "MAGPIE_THREADS replaces only 0.")  # fmt: skip
    if chosen.cpu > 1.3:
        yield (f"That takes {chosen.cpu:.2f} times the processor time of {rows[0].threads}: pieces that are too short, or something "
               'that all of them share. See "How many threads" in docs/guide.md.')  # fmt: skip
    if chosen.threads > processors:
        yield f"That is more than the processors ({processors}): tasks block their workers, and belong into to_thread()."
    if disturbed:
        yield "Others used the machine during most rounds: do not trust this."
    if rounds < ENOUGH_TO_TELL:
        yield f"So few rounds ({rounds}) tell little."


def processors_here():
    """Those that this process may use: its affinity, and the quota of its control group."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return allowed


def usual_numbers(processors):
    """Powers of two, the number of processors, and one and a half times as many, to see that more does not help."""
    return sorted({*(1 << k for k in range(processors.bit_length())), processors, processors + (processors + 1) // 2})


def numbers_from(text):
    try:
        numbers = sorted({int(n) for n in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"'{text}': numbers above 0 with commas between them, such as 1,2,4")
    return numbers


def pattern_from(text):
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from error
    if pattern.groups < 1:
        raise argparse.ArgumentTypeError(f"'{text}': the number must be in parentheses")
    return pattern


def main(arguments, say=print):
    parser = argparse.ArgumentParser(prog="./dev tune", description="How many threads a program should have.")
    add = parser.add_argument
    add("--threads", type=numbers_from, help="the numbers to try (default: powers of two, and around the number of processors)")
    add("--rate", type=pattern_from, metavar="REGEX", help="compare what the program prints: its group is a number, more is better")
    add("--tolerance", type=float, default=0.03, help="fewer threads are preferred if they take at most so much longer (0.03)")
    add("--seconds", type=float, default=120, help=f"time for all rounds (120); {ROUNDS[0]} are made in any case")
    add("--timeout", type=float, default=600, help="seconds for one run (600)")
    add("--json", metavar="FILE", help="write all runs there")
    add("--self-test", action="store_true", help=argparse.SUPPRESS)
    add("command", nargs=argparse.REMAINDER, metavar="-- PROGRAM ARGUMENTS...")
    options = parser.parse_args(arguments)
    if options.self_test:
        return self_test()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("which program? ./dev tune -- PROGRAM ARGUMENTS...")
    processors = processors_here()
    try:
        rounds = measure(command, options.threads or usual_numbers(processors), options, say)
    except Unusable as error:
        print(f"bench/tune.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rows, chosen, disturbed = judge(rounds, options.tolerance)
    say(f"{cpu_model()}, {processors} processors; {len(rounds)} rounds of: {' '.join(command)}\n")
    say("\n".join(table(rows, chosen, options.rate is not None)) + "\n")
    say("\n".join(advice(rows, chosen, disturbed, len(rounds), options.tolerance, processors)))
    if options.json:
        everything = [{n: dataclasses.asdict(run) for n, run in runs.items()} for runs in rounds]
        found = {"command": command, "processors": processors, "recommended": chosen.threads, "rounds": everything}
        pathlib.Path(options.json).write_text(json.dumps(found, indent=1))
    return 0


# ---- self-test --------------------------------------------------------------------------------------------------------------


def made_up(generator, numbers, cost, rounds=9, noise=0.02, others=0.0, cores=lambda n: n):
    made = []
    for _ in range(rounds):
        drift = generator.uniform(1, 2)  # of the machine, the same for a round
        made.append({})
        for n in numbers:
            wall = cost(n) * drift * generator.gauss(1, noise)
            made[-1][n] = Run(wall, wall, wall * cores(n), 10, 5.0, others)
    return made


def self_test():
    generator = random.Random(7)
    numbers = [1, 2, 4, 8, 16]
    right = 0
    for _ in range(10):
        rows, chosen, disturbed = judge(made_up(generator, numbers, lambda n: 0.02 + 0.98 / n), 0.03)
        assert chosen.threads == 16 and not disturbed
        assert abs(rows[3].serial - 0.02) < 0.02, rows[3].serial
        # Beyond 4 there is nothing left to share out.
        right += judge(made_up(generator, numbers, lambda n: 1 / min(n, 4)), 0.03)[1].threads == 4
        # The more threads, the more each costs.
        right += judge(made_up(generator, numbers, lambda n: 1 / n + 0.02 * n), 0.03)[1].threads == 8
        # Nothing is shared out.
        right += judge(made_up(generator, numbers, lambda _: 1.0), 0.03)[1].threads == 1
    assert right >= 29, right
    assert judge(made_up(generator, numbers, lambda n: 1 / n, others=1.0), 0.03)[2]
    told = "\n".join(advice(*judge(made_up(generator, [1, 2], lambda _: 1.0, cores=lambda _: 2), 0.03), 9, 0.03, 2))
    assert "1 thread: with more it is not faster." in told or "1 thread: 2 are less than" in told, told
    assert "does it set ExecutorOptions::threads itself" in told, told
    assert usual_numbers(1) == [1, 2] and usual_numbers(2) == [1, 2, 3] and usual_numbers(6) == [1, 2, 4, 6, 9]
    # Real programs.
    said = []
    program = "import os; print('rate:', 100 * min(int(os.environ['MAGPIE_THREADS']), 2))"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        path = pathlib.Path(folder) / "runs.json"
        python = ["--", sys.executable, "-c"]
        options = ["--threads", "1,2,3", "--seconds", "0", "--rate", r"rate: (\d+)", "--json", str(path)]
        assert main([*options, *python, program], said.append) == 0
        assert json.loads(path.read_text())["recommended"] == 2
        assert main(["--", str(path)], said.append) == 2  # no program
        assert main([*python, "raise SystemExit(3)"], said.append) == 2
        assert main(["--rate", "(x)", *python, "print('x')"], said.append) == 2
        assert main(["--timeout", "0.2", *python, "import time; time.sleep(9)"], said.append) == 2
    assert "2 threads: with fewer it is more than 3 % slower." in said[-1], said
    print("tune.py tells what it should")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
