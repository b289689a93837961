#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark programs of a build directory and says how magpie compares: one table, and a report in bench/report.

Absolute times of a shared or virtual machine drift by a factor of two over minutes, ratios of runs that lie side by side do
not. So the sides of a workload run in turn (A B A B), each in a process of its own, and every repetition gives a ratio; the
table has their median and quartiles. Repetitions in which other processes used much of the machine are left out where enough
others remain. How to read the table: bench/NOTES.md. Two reports are compared by compare.py.

An interrupted sweep (Ctrl-C, SIGTERM) ends with the table and the report of what was measured until then.

Ends with 1 if a benchmark failed (wrong result, crash, time-out), 2 if nothing could be run, 130 if it was interrupted.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import report
from machine import BENCH, Disturbance, cmake_cache, commit, cpu_jiffies, cpu_model, own_cpu
from rows import Benchmark, Run, beside_the_best, failures, make_records

NAME = re.compile(r"^(?P<workload>[^/]+)/(?P<side>[^/]+)/threads:(?P<threads>\d+)(?:/process_time)?(?:/real_time)?$")
KINDS = ("workload", "micro", "versus")
# As many repetitions as fit, within these bounds.
QUICK_SECONDS, QUICK_REPETITIONS = 270, (2, 7)
FULL_SECONDS, FULL_REPETITIONS = 45 * 60, (7, 15)
# What a run takes besides the time that it measures: its start, a first iteration, and the guess how many it needs.
QUICK_OVERHEAD_SECONDS, FULL_OVERHEAD_SECONDS = 0.1, 0.7


# ---- running ----------------------------------------------------------------------------------------------------------------


def program_arguments(options):
    arguments = []
    if options.full:
        arguments.append("--full")
    if options.threads:
        arguments.append("--threads=" + options.threads)
    return arguments


def find_programs(build):
    """(kind, name, command) of each program of this folder; CMakeLists.txt names those that are built."""
    taken = set()
    for kind in KINDS:
        for source in sorted((BENCH / kind).glob("*.cc")):
            name = f"bench_{source.stem}"
            if name in taken:
                name = f"bench_{kind}_{source.stem}"
            taken.add(name)
            yield kind, source.stem, (str(build / "bench" / name),)
        for source in sorted((BENCH / kind).glob("*.py")):
            yield kind, source.stem, (sys.executable, str(source))


def find_benchmarks(options):
    """The benchmarks that the filter takes, and the peers that were not built."""
    found, missing = [], []
    wanted = re.compile(options.filter)
    for kind, stem, program in find_programs(options.build):
        if not os.path.isfile(program[-1]):
            if kind == "versus":
                missing.append(stem)
                continue
            raise SystemExit2(f"{program[-1]} is missing: build the preset first (./dev bench does)")
        listing = subprocess.run(
            [*program, *program_arguments(options), "--benchmark_list_tests"], capture_output=True, text=True, timeout=60
        )
        if listing.returncode != 0:
            raise SystemExit2(f"{stem} cannot list its benchmarks: {listing.stderr.strip()}")
        for line in listing.stdout.split():
            match = NAME.match(line)
            if match is None:
                raise SystemExit2(f"{stem}: '{line}' is not called <workload>/<side>/threads:<n>")
            benchmark = Benchmark(kind, program, line, match["workload"], match["side"], int(match["threads"]))
            if wanted.search(f"{benchmark.workload}/{benchmark.side}/threads:{benchmark.threads}"):
                found.append(benchmark)
    return found, missing


class SystemExit2(Exception):
    """Nothing can be measured."""


def run_once(benchmark, options, context):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [
            *benchmark.program,
            *program_arguments(options),
            f"--benchmark_filter=^{re.escape(benchmark.name)}$",
            f"--benchmark_min_time={options.min_time}",
            f"--benchmark_out={out.name}",
            "--benchmark_out_format=json",
        ]
        look = Disturbance()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        except subprocess.TimeoutExpired:
            return Run(error=f"not finished after {options.timeout} s")
        disturbance = look.cores()
        try:
            written = json.loads(pathlib.Path(out.name).read_text())
            raw = written["benchmarks"][0]
        except (OSError, ValueError, KeyError, IndexError):
            return Run(error=f"exit code {done.returncode}: {done.stderr.strip()[-300:] or 'no result'}")
    if raw.get("error_occurred") or done.returncode != 0:
        return Run(error=raw.get("error_message") or f"exit code {done.returncode}", raw=raw)
    if not context:
        context.update(written.get("context", {}))
    scale = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[raw["time_unit"]]
    rate = raw.get("items_per_second", 0.0)
    return Run(
        real_ms=raw["real_time"] * scale,
        cpu_ms=raw["cpu_time"] * scale,
        operation_ns=1e9 / rate if rate else 0.0,
        disturbance=disturbance,
        raw=raw,
    )


def expected(benchmarks, options, round_seconds):
    """How many repetitions fit if one takes so long, and the minutes that they take, in words."""
    fit = int(max(options.at_least, min(options.repetitions, options.seconds / round_seconds)))
    seconds = fit * round_seconds
    time_needed = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{len(benchmarks)} benchmarks, {fit} repetitions of {round_seconds:.0f} s: {time_needed}"


def run_all(benchmarks, options, context, results):
    """Fills {benchmark: [Run of each repetition]}. All sides of a workload follow one another, all numbers of threads too."""
    workloads = {}
    for b in benchmarks:
        workloads.setdefault(b.workload, []).append(b)
        results[b] = []
    broken = set()
    overhead = FULL_OVERHEAD_SECONDS if options.full else QUICK_OVERHEAD_SECONDS
    say(f"expected on a quiet machine: {expected(benchmarks, options, len(benchmarks) * (options.min_time + overhead))}")
    started, longest = time.monotonic(), 0.0
    for repetition in range(options.repetitions):
        round_started = time.monotonic()
        if repetition >= options.at_least and round_started - started + longest > options.seconds:
            break
        if repetition == 1:
            say(f"as the first repetition says: {expected(benchmarks, options, longest)}")
        for workload, sides in workloads.items():
            progress(f"{repetition + 1}/{options.repetitions} {workload}")
            for b in sides:
                if b in broken:
                    continue
                run = run_once(b, options, context)
                results[b].append(run)
                if run.error:
                    broken.add(b)
        longest = max(longest, time.monotonic() - round_started)


def say(text):
    progress("")
    print(text, flush=True)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# ---- all of it --------------------------------------------------------------------------------------------------------------


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench", description="Runs the benchmarks and prints how magpie compares.")
    parser.add_argument("build", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help="large sizes, more and longer repetitions (three quarters of an hour)")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only what matches <workload>/<side>/threads:<n>")
    parser.add_argument("--threads", default="", metavar="N,N", help="numbers of threads besides 1 and all")
    parser.add_argument("--repetitions", type=int, help="of each benchmark (default: what fits in 5 minutes, 2 to 7; in 45, 7 to 15)")
    parser.add_argument("--min-time", type=float, metavar="S", help="seconds that a repetition measures (default 0.05; 0.4)")
    parser.add_argument("--timeout", type=int, default=120, metavar="S", help="for one run of one benchmark (default 120)")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "report", help="where the report goes (default bench/report)")
    options = parser.parse_args(arguments)
    if options.repetitions is not None and options.repetitions < 1:
        parser.error("--repetitions needs a number above 0")
    if options.repetitions is not None:
        options.seconds, options.at_least = float("inf"), options.repetitions
    elif options.full:
        options.seconds, (options.at_least, options.repetitions) = FULL_SECONDS, FULL_REPETITIONS
    else:
        options.seconds, (options.at_least, options.repetitions) = QUICK_SECONDS, QUICK_REPETITIONS
    if options.min_time is None:
        options.min_time = 0.4 if options.full else 0.05
    if options.threads and not re.fullmatch(r"\d+(,\d+)*", options.threads):
        parser.error("--threads needs numbers, as in --threads=3,4")
    try:
        re.compile(options.filter)
    except re.error as error:
        parser.error(f"--filter: {error}")
    options.build = options.build.resolve()
    return options


def main(arguments):
    options = parse(arguments)
    started, load, (busy, steal), own = time.time(), os.getloadavg(), cpu_jiffies(), own_cpu()
    try:
        benchmarks, missing = find_benchmarks(options)
    except SystemExit2 as error:
        print(f"bench/run.py: {error}", file=sys.stderr)
        return 2
    if not benchmarks:
        print(f"bench/run.py: no benchmark matches '{options.filter}'", file=sys.stderr)
        return 2

    context, results, interrupted = {}, {}, False
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_all(benchmarks, options, context, results)
    except KeyboardInterrupt:
        interrupted = True
    progress("")
    results = {b: runs for b, runs in results.items() if runs}
    if not results:
        print("bench/run.py: interrupted before anything was measured", file=sys.stderr)
        return 130
    repetitions = max(len(runs) for runs in results.values())
    records = make_records(results)

    wall = max(time.time() - started, 1e-9)
    busy_end, steal_end = cpu_jiffies()
    cores = os.cpu_count() or 1
    context.pop("host_name", None)
    context["executable"] = "bench/run.py"
    context |= {
        "commit": commit(),
        "build": cmake_cache(options.build),
        "processor": cpu_model(),
        "load_avg": list(load),  # before the first benchmark
        "load_avg_at_end": list(os.getloadavg()),
        "steal_percent": 100 * (steal_end - steal) / (wall * cores),
        "others_cores": max(0.0, (busy_end - busy) - (own_cpu() - own)) / wall,
        "duration_seconds": wall,
        "missing_peers": missing,
        "repetitions": repetitions,
        "interrupted": interrupted,
        "arguments": " ".join(arguments[1:]),
    }
    notes = [
        f"machine:  {context['processor']}, {cores} processors",
        f"compiler: {context.get('compiler', 'unknown')}; {context['build']}",
        f"commit:   {context['commit']}; {context.get('date') or time.strftime('%Y-%m-%d')}; "
        f"{repetitions} repetitions in {wall:.0f} s",
        f"noise:    load average {load[0]:.2f} before, {context['load_avg_at_end'][0]:.2f} after; "
        f"others used {context['others_cores']:.2f} cores; steal {context['steal_percent']:.1f} %",
    ]
    if interrupted:
        notes.append(f"partial:  interrupted; {len(results)} of {len(benchmarks)} benchmarks, some with a repetition less")
    if missing:
        notes.append(f"missing:  {', '.join(missing)}: not found when the build was configured, so no rows against them")
    failed = failures(results)
    report.print_table(records, notes, failed)
    options.out.mkdir(parents=True, exist_ok=True)
    report.write_json(options.out / "report.json", context, results, records)
    report.write_html(options.out / "index.html", notes, records, beside_the_best(results), failed)
    print(f"report: {os.path.relpath(options.out / 'index.html')}, {os.path.relpath(options.out / 'report.json')}")
    return 130 if interrupted else 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
