#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmark programs of a build directory and says how magpie compares: one table, and a report in bench/report.

Absolute times of a shared or virtual machine drift by a factor of two over minutes, ratios of runs that lie side by side do
not. So the sides of a workload run in turn (A B A B), each in a process of its own, and every repetition gives a ratio; the
table has their median and quartiles. Repetitions in which other processes used much of the machine are left out where enough
others remain. How to read the table: bench/NOTES.md.

Ends with 1 if a benchmark failed (wrong result, crash, time-out), 2 if nothing could be run.
"""

import argparse
import dataclasses
import html
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parent
NAME = re.compile(r"^(?P<workload>[^/]+)/(?P<side>[^/]+)/threads:(?P<threads>\d+)(?:/process_time)?(?:/real_time)?$")
KINDS = ("workload", "micro", "versus")
# Others may use so much of one core before a repetition is left out; below so many left, none is.
DISTURBED_ABOVE = 0.08
UNDISTURBED_AT_LEAST = 3


@dataclasses.dataclass(frozen=True)
class Benchmark:
    kind: str
    program: tuple  # the command that runs it
    name: str  # as the program calls it
    workload: str
    side: str
    threads: int

    @property
    def is_ours(self):
        return self.side.startswith("magpie")


@dataclasses.dataclass
class Run:
    real_ms: float = 0.0
    cpu_ms: float = 0.0
    operation_ns: float = 0.0  # 0: not counted
    disturbance: float = 0.0  # cores that others used meanwhile
    error: str = ""
    raw: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Row:
    """One of our sides, beside one peer or alone."""

    ours: Benchmark
    peer: Benchmark | None
    ours_runs: list
    peer_runs: list
    repetitions: list = dataclasses.field(default_factory=list)  # the ones that count
    disturbed: bool = False  # too few were left: all count
    one_thread_runs: list = dataclasses.field(default_factory=list)  # of our side; empty: no speed-up
    error: str = ""

    def median(self, runs, what):
        return statistics.median(getattr(runs[i], what) for i in self.repetitions)

    def ratios(self, above, below, what):
        return [getattr(above[i], what) / getattr(below[i], what) for i in self.repetitions]

    def ratios_to_peer(self, what):
        """Of an operation where both sides count them: then they need not do equally many of them in a run."""
        counted = all(runs[i].operation_ns for runs in (self.ours_runs, self.peer_runs) for i in self.repetitions)
        scale = [
            (ours.operation_ns / ours.real_ms) / (peer.operation_ns / peer.real_ms) if counted else 1.0
            for ours, peer in zip(self.ours_runs, self.peer_runs)
        ]
        plain = self.ratios(self.ours_runs, self.peer_runs, what)
        return [ratio * scale[i] for i, ratio in zip(self.repetitions, plain)]


# ---- the machine ------------------------------------------------------------------------------------------------------------


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
            report = json.loads(pathlib.Path(out.name).read_text())
            raw = report["benchmarks"][0]
        except (OSError, ValueError, KeyError, IndexError):
            return Run(error=f"exit code {done.returncode}: {done.stderr.strip()[-300:] or 'no result'}")
    if raw.get("error_occurred") or done.returncode != 0:
        return Run(error=raw.get("error_message") or f"exit code {done.returncode}", raw=raw)
    if not context:
        context.update(report.get("context", {}))
    scale = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[raw["time_unit"]]
    rate = raw.get("items_per_second", 0.0)
    return Run(
        real_ms=raw["real_time"] * scale,
        cpu_ms=raw["cpu_time"] * scale,
        operation_ns=1e9 / rate if rate else 0.0,
        disturbance=disturbance,
        raw=raw,
    )


def run_all(benchmarks, options, context):
    """{benchmark: [Run of each repetition]}. All sides of a workload follow one another, all numbers of threads too."""
    workloads = {}
    for b in benchmarks:
        workloads.setdefault(b.workload, []).append(b)
    results = {b: [] for b in benchmarks}
    broken = set()
    for repetition in range(options.repetitions):
        for workload, sides in workloads.items():
            progress(f"{repetition + 1}/{options.repetitions} {workload}")
            for b in sides:
                if b in broken:
                    continue
                run = run_once(b, options, context)
                results[b].append(run)
                if run.error:
                    broken.add(b)
    progress("")
    return results


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


# ---- rows -------------------------------------------------------------------------------------------------------------------


def make_rows(results):
    """Every side of ours beside every peer of the same workload and threads."""
    by_key = {}
    for b in results:
        by_key.setdefault((b.workload, b.threads), []).append(b)
    rows = []
    for sides in by_key.values():
        peers = [b for b in sides if not b.is_ours]
        for ours in (b for b in sides if b.is_ours):
            rows += [make_row(results, ours, peer) for peer in peers or [None]]
    return rows


def make_row(results, ours, peer):
    row = Row(ours, peer, results[ours], results[peer] if peer else [])
    for b in (ours, peer) if peer else (ours,):
        for run in results[b]:
            if run.error:
                row.error = f"{b.workload}/{b.side}: {run.error}"
    if row.error:
        return row
    everything = range(len(row.ours_runs))
    noise = [max(runs[i].disturbance for runs in (row.ours_runs, row.peer_runs) if runs) for i in everything]
    row.repetitions = [i for i in everything if noise[i] <= DISTURBED_ABOVE]
    if len(row.repetitions) < UNDISTURBED_AT_LEAST:
        row.disturbed = len(row.repetitions) < len(everything)
        row.repetitions = list(everything)
    if ours.threads != 1:
        for b, runs in results.items():
            if (b.workload, b.side, b.threads) == (ours.workload, ours.side, 1) and not any(r.error for r in runs):
                row.one_thread_runs = runs
    return row


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def as_record(row):
    """What a report keeps of a row."""
    record = {
        "workload": row.ours.workload,
        "kind": row.ours.kind,
        "side": row.ours.side,
        "peer": row.peer.side if row.peer else None,
        "threads": row.ours.threads,
    }
    if row.error:
        return record | {"error": row.error}
    record |= {
        "repetitions": len(row.repetitions),
        "disturbed": row.disturbed,
        "ms": row.median(row.ours_runs, "real_ms"),
        "operation_ns": row.median(row.ours_runs, "operation_ns") or None,
    }
    if row.peer:
        low, middle, high = quartiles(row.ratios_to_peer("real_ms"))
        record |= {
            "peer_ms": row.median(row.peer_runs, "real_ms"),
            "peer_operation_ns": row.median(row.peer_runs, "operation_ns") or None,
            "ratio": middle,
            "ratio_quartiles": [low, high],
            "cpu_ratio": statistics.median(row.ratios_to_peer("cpu_ms")),
        }
    if row.one_thread_runs:
        record["speed_up"] = statistics.median(row.ratios(row.one_thread_runs, row.ours_runs, "real_ms"))
    return record


def cells(record):
    """The columns of a record, as text."""
    micro = record["kind"] == "micro"
    name = record["workload"] + record["side"].removeprefix("magpie")
    start = [name, record["peer"] or "", str(record["threads"])]
    if "error" in record:
        return start + ["FAILED"] + [""] * 5
    ours = record["operation_ns"] if micro else record["ms"]
    cpu, speed_up = record.get("cpu_ratio"), record.get("speed_up")
    peer = record.get("peer_operation_ns" if micro else "peer_ms")
    ratio = spread = ""
    if record["peer"]:
        ratio = f"{record['ratio']:.2f}"
        spread = "{:.2f}-{:.2f}".format(*record["ratio_quartiles"])
    return start + [
        f"{ours or 0:.1f}" + ("*" if record["disturbed"] and not record["peer"] else ""),
        f"{peer:.1f}" if peer else "",
        ratio + ("*" if record["disturbed"] and record["peer"] else ""),
        spread,
        f"{cpu:.2f}" if cpu else "",
        f"{speed_up:.2f}" if speed_up else "",
    ]


def header(micro):
    unit = "ns" if micro else "ms"
    return ["micro" if micro else "workload", "peer", "threads", f"magpie {unit}", f"peer {unit}", "ratio", "quartiles",
            "CPU ratio", "speed-up"]  # fmt: skip


def failures(results):
    """A line for each run that failed."""
    return [
        f"{b.workload}/{b.side}/threads:{b.threads}: {run.error}" for b, runs in results.items() for run in runs if run.error
    ]


def print_table(records, notes, failed):
    print()
    for line in notes:
        print(line)
    for micro in (False, True):
        rows = [cells(r) for r in records if (r["kind"] == "micro") == micro]
        if not rows:
            continue
        table = [header(micro), *rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        print()
        for line in table:
            left = [text.ljust(width) for text, width in zip(line[:2], widths[:2])]
            right = [text.rjust(width) for text, width in zip(line[2:], widths[2:])]
            print("  ".join(left + right).rstrip())
    print("\nratio: magpie / peer, wall time, median of side-by-side runs; below 1 magpie is faster. speed-up: over 1 thread.")
    if any(r.get("disturbed") for r in records):
        print("*: other processes used the machine during most repetitions; do not quote.")
    for line in failed:
        print(f"FAILED: {line}")


# ---- reports ----------------------------------------------------------------------------------------------------------------


def write_json(path, context, results, records):
    """Google Benchmark's format (its compare.py reads it), and our rows besides."""
    benchmarks = []
    for b, runs in results.items():
        for i, run in enumerate(runs):
            if run.raw:
                benchmarks.append(run.raw | {"repetitions": len(runs), "repetition_index": i, "others_cores": run.disturbance})
        good = [run for run in runs if not run.error]
        if len(good) == len(runs):
            median = {
                "name": runs[0].raw["name"] + "_median",
                "run_name": runs[0].raw["run_name"],
                "run_type": "aggregate",
                "repetitions": len(runs),
                "threads": runs[0].raw["threads"],
                "aggregate_name": "median",
                "aggregate_unit": "time",
                "iterations": len(runs),
                "real_time": statistics.median(run.real_ms for run in runs),
                "cpu_time": statistics.median(run.cpu_ms for run in runs),
                "time_unit": "ms",
            }
            benchmarks.append(median)
    path.write_text(json.dumps({"context": context, "benchmarks": benchmarks, "ratios": records}, indent=1) + "\n")


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
text { font: 13px system-ui, sans-serif; fill: currentColor; }
.bar { fill: #3b82c4; } .slower { fill: #c4703b; } .whisker, .one { stroke: currentColor; }
.scroll { overflow-x: auto; } .failed { color: #c33; }
"""


def svg_of_ratios(records):
    """A bar for each ratio, a line for its quartiles, and the line at which both sides are equal."""
    bars = [r for r in records if r.get("ratio") is not None]
    if not bars:
        return ""
    left, width, step = 330, 420, 24
    most = max(1.25, max(r["ratio_quartiles"][1] for r in bars) * 1.05)

    def x(ratio):
        return left + ratio / most * width

    height = step * len(bars) + 30
    parts = [f'<svg viewBox="0 0 {left + width + 70} {height}" width="{left + width + 70}" height="{height}" role="img">']
    parts.append("<title>Wall time of magpie divided by that of the peer</title>")
    for i, r in enumerate(bars):
        y = 6 + i * step
        label = f"{cells(r)[0]} / {r['peer']}, {r['threads']} thread{'s' if r['threads'] != 1 else ''}"
        low, high = r["ratio_quartiles"]
        kind = "bar" if r["ratio"] <= 1 else "slower"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{html.escape(label)}</text>')
        parts.append(f'<rect class="{kind}" x="{left}" y="{y}" width="{x(r["ratio"]) - left:.1f}" height="16"/>')
        parts.append(f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y + 8}" y2="{y + 8}"/>')
        parts.append(f'<text x="{max(x(high), x(r["ratio"])) + 6:.1f}" y="{y + 13}">{r["ratio"]:.2f}</text>')
    parts.append(f'<line class="one" x1="{x(1):.1f}" x2="{x(1):.1f}" y1="0" y2="{height - 22}" stroke-dasharray="4 3"/>')
    parts.append(f'<text x="{x(1):.1f}" y="{height - 6}" text-anchor="middle">1.0</text></svg>')
    return "\n".join(parts)


def write_html(path, notes, records, failed):
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>magpie: benchmarks</title>']
    parts += [f"<style>{STYLE}</style></head><body><h1>magpie: benchmarks</h1>"]
    parts += ["<p>" + "<br>\n".join(html.escape(line) for line in notes) + "</p>"]
    parts += ["<p>Wall time of magpie divided by that of the peer: shorter is better, left of the dashed line magpie is faster.</p>"]
    for micro in (False, True):
        rows = [r for r in records if (r["kind"] == "micro") == micro]
        if not rows:
            continue
        parts.append(f'<div class="scroll">{svg_of_ratios(rows)}</div>')
        parts.append('<div class="scroll"><table><tr>' + "".join(f"<th>{html.escape(h)}</th>" for h in header(micro)) + "</tr>")
        for r in rows:
            parts.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells(r)) + "</tr>")
        parts.append("</table></div>")
    parts += [f'<p class="failed">Failed: {html.escape(line)}</p>' for line in failed]
    if any(r.get("disturbed") for r in records):
        parts.append("<p>* Other processes used the machine during most repetitions: do not quote.</p>")
    path.write_text("\n".join(parts) + "\n</body></html>\n")


# ---- all of it --------------------------------------------------------------------------------------------------------------


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench", description="Runs the benchmarks and prints how magpie compares.")
    parser.add_argument("build", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help="large sizes, more and longer repetitions (about half an hour)")
    parser.add_argument("--filter", default="", metavar="REGEX", help="only what matches <workload>/<side>/threads:<n>")
    parser.add_argument("--threads", default="", metavar="N,N", help="numbers of threads besides 1 and all")
    parser.add_argument("--repetitions", type=int, help="of each benchmark (default 5; with --full 15)")
    parser.add_argument("--min-time", type=float, metavar="S", help="seconds that a repetition measures (default 0.1; 0.5)")
    parser.add_argument("--timeout", type=int, default=120, metavar="S", help="for one run of one benchmark (default 120)")
    parser.add_argument("--out", type=pathlib.Path, default=BENCH / "report", help="where the report goes (default bench/report)")
    options = parser.parse_args(arguments)
    if options.repetitions is None:
        options.repetitions = 15 if options.full else 5
    if options.min_time is None:
        options.min_time = 0.5 if options.full else 0.1
    if options.repetitions < 1:
        parser.error("--repetitions needs a number above 0")
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

    context = {}
    results = run_all(benchmarks, options, context)
    records = [as_record(row) for row in make_rows(results)]

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
        "repetitions": options.repetitions,
        "arguments": " ".join(arguments[1:]),
    }
    notes = [
        f"machine:  {context['processor']}, {cores} processors",
        f"compiler: {context.get('compiler', 'unknown')}; {context['build']}",
        f"commit:   {context['commit']}; {context.get('date') or time.strftime('%Y-%m-%d')}; "
        f"{options.repetitions} repetitions in {wall:.0f} s",
        f"noise:    load average {load[0]:.2f} before, {context['load_avg_at_end'][0]:.2f} after; "
        f"others used {context['others_cores']:.2f} cores; steal {context['steal_percent']:.1f} %",
    ]
    if missing:
        notes.append(f"missing:  {', '.join(missing)}: not found when the build was configured, so no rows against them")
    failed = failures(results)
    print_table(records, notes, failed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "report.json", context, results, records)
    write_html(options.out / "index.html", notes, records, failed)
    print(f"report: {os.path.relpath(options.out / 'index.html')}, {os.path.relpath(options.out / 'report.json')}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
