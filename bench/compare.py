#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""Tells a regression from noise: ./dev bench --compare BEFORE.json AFTER.json

Both are reports of ./dev bench. Ends with 1 if something of ours became slower, 2 if the reports cannot be compared.

The machine may have been slower during one of the runs, and drifts within each. Peers are the yardstick: their code is the
same in both reports, so how much slower all of them were in a repetition (the median) is how much slower the machine was,
and our times of that repetition are divided by it. Then, for each benchmark of ours, both must hold:

- the Mann-Whitney U test (H. B. Mann, D. R. Whitney, Ann. Math. Statist. 18, 1947; exact, two-sided) gives p <= 0.01,
- the bootstrap interval of the ratio of the medians (B. Efron, Ann. Statist. 7, 1979; percentiles, 98 %) lies wholly above
  1 + the threshold: what is certain is also worth the name.

With fewer than 5 repetitions on a side no order of them is as rare as that, and where other processes used the machine during
most repetitions it is theirs that would be compared: such benchmarks are counted as undecided.

compare.py --self-test checks all this against made-up runs of which the truth is known.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import math
import pathlib
import random
import re
import statistics
import sys
import tempfile

from machine import undisturbed

P_VALUE = 0.01
INTERVAL = 0.98
RESAMPLES = 1_000
YARDSTICKS_AT_LEAST = 3
NAME = re.compile(r"^(?P<workload>[^/]+)/(?P<side>[^/]+)/threads:(?P<threads>\d+)")
SCALE = {"ns": 1.0, "us": 1e3, "ms": 1e6, "s": 1e9}


class Unusable(Exception):
    """A report that cannot be compared."""


# ---- statistics -------------------------------------------------------------------------------------------------------------


def mann_whitney(a, b):
    """p, two-sided: exact without ties and for small samples, else the normal approximation with its corrections."""
    n, m = len(a), len(b)
    smaller = sum((x < y) + 0.5 * (x == y) for x in a for y in b)
    u = min(smaller, n * m - smaller)
    if len(set(a) | set(b)) == n + m and n * m <= 400:
        orders = orders_by_u(n, m)
        return min(1.0, 2 * sum(orders[: int(u) + 1]) / math.comb(n + m, n))
    everything = [*a, *b]
    ties = sum(t**3 - t for t in (everything.count(value) for value in set(everything)))
    size = n + m
    variance = n * m / 12 * (size + 1 - ties / (size * (size - 1)))
    if variance <= 0:
        return 1.0
    z = max(0.0, n * m / 2 - u - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def orders_by_u(n, m):
    """How many of the orders of n and m different values have U = 0, 1, ..: Gauss's binomial, by its product."""
    counts = [1] + [0] * (n * m)
    for k in range(1, n + 1):
        for i in range(n * m, m + k - 1, -1):  # times 1 - q^(m+k)
            counts[i] -= counts[i - m - k]
        for i in range(k, n * m + 1):  # divided by 1 - q^k
            counts[i] += counts[i - k]
    return counts


def bootstrap(before, after, generator):
    """The interval of median(after) / median(before)."""
    ratios = sorted(
        statistics.median(generator.choices(after, k=len(after))) / statistics.median(generator.choices(before, k=len(before)))
        for _ in range(RESAMPLES)
    )
    cut = int(RESAMPLES * (1 - INTERVAL) / 2)
    return ratios[cut], ratios[-1 - cut]


@dataclasses.dataclass
class Finding:
    name: str
    ratio: float
    low: float
    high: float
    p: float
    verdict: str  # slower, faster, same, undecided


def judge(name, before, after, disturbed, threshold):
    p = mann_whitney(before, after)
    # By the name: the same reports give the same answer.
    low, high = bootstrap(before, after, random.Random(name))
    verdict = "same"
    if disturbed or 2 / math.comb(len(before) + len(after), len(before)) > P_VALUE:
        verdict = "undecided"
    elif p <= P_VALUE and low > 1 + threshold:
        verdict = "slower"
    elif p <= P_VALUE and high < 1 / (1 + threshold):
        verdict = "faster"
    return Finding(name, statistics.median(after) / statistics.median(before), low, high, p, verdict)


# ---- reports ----------------------------------------------------------------------------------------------------------------


def load(path):
    """({name: {repetition: (cost, cores of others)}}, context)"""
    try:
        report = json.loads(pathlib.Path(path).read_text())
        runs = {}
        for run in report["benchmarks"]:
            match = NAME.match(run["name"])
            if run.get("run_type") != "iteration" or run.get("error_occurred") or match is None:
                continue
            rate = run.get("items_per_second")
            costs = {f" {p}": run[f"lat_{p}_us"] for p in ("p50", "p99") if f"lat_{p}_us" in run}
            if rate or not costs:  # else most of the time are the pauses between the operations
                costs[""] = 1e9 / rate if rate else run["real_time"] * SCALE[run["time_unit"]]
            for what, cost in costs.items():
                of_name = runs.setdefault(match[0] + what, {})
                of_name[run.get("repetition_index", len(of_name))] = (cost, run.get("others_cores", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"{path}: not a report of ./dev bench ({type(error).__name__}: {error})") from error
    if not runs:
        raise Unusable(f"{path}: no benchmark ran")
    return runs, report.get("context", {})


def is_ours(name):
    return NAME.match(name)["side"].startswith("magpie")


def speeds_of_the_machine(reports):
    """For each report {repetition: how much slower the machine was}; empty where there are too few peers to tell."""
    peers = [name for name in reports[0] if not is_ours(name) and name in reports[1]]
    if len(peers) < YARDSTICKS_AT_LEAST:
        return [{}, {}]
    usual = {name: statistics.median(cost for runs in reports for cost, _ in runs[name].values()) for name in peers}
    slowness = []
    for runs in reports:
        by_repetition = {}
        for name in peers:
            for repetition, (cost, _) in runs[name].items():
                by_repetition.setdefault(repetition, []).append(cost / usual[name])
        slowness.append({r: statistics.median(of_peers) for r, of_peers in by_repetition.items()})
    return slowness


def compare(before, after, threshold):
    slowness = speeds_of_the_machine((before, after))
    findings = []
    for name in before:
        if not is_ours(name) or name not in after:
            continue
        samples, disturbed = [], False
        for runs, slow in zip((before, after), slowness):
            repetitions = sorted(runs[name])
            counting, too_few = undisturbed([runs[name][r][1] for r in repetitions])
            disturbed = disturbed or too_few
            samples.append([runs[name][repetitions[i]][0] / slow.get(repetitions[i], 1.0) for i in counting])
        findings.append(judge(name, *samples, disturbed, threshold))
    return findings, bool(slowness[0])


def print_findings(findings, measured_by_peers, contexts, everything):
    for which, context in zip(("before", "after "), contexts):
        print(f"{which}: commit {context.get('commit', 'unknown')}, {context.get('date', 'no date')}, {context.get('build', '')}")
    for fact in ("processor", "compiler", "build"):
        if contexts[0].get(fact) != contexts[1].get(fact):
            print(f"CAUTION: the {fact} differs: what is compared is not only the code")
    if not measured_by_peers:
        print(f"CAUTION: fewer than {YARDSTICKS_AT_LEAST} peers in both reports: times are compared as they are")
    order = {"slower": 0, "faster": 1, "undecided": 2, "same": 3}
    shown = [f for f in findings if everything or f.verdict in ("slower", "faster")]
    width = max((len(f.name) for f in shown), default=0)
    for f in sorted(shown, key=lambda f: (order[f.verdict], -f.ratio)):
        print(f"{f.verdict:9} {f.name:{width}}  {f.ratio:.3f} ({f.low:.3f}-{f.high:.3f})  p {f.p:.4f}")
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in order}
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def main(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench --compare", description="Tells a regression from noise.")
    parser.add_argument("before", help="a report.json of ./dev bench")
    parser.add_argument("after", help="another one")
    parser.add_argument("--threshold", type=float, default=0.03, help="a smaller change is none (default 0.03)")
    parser.add_argument("--all", action="store_true", help="print also what is the same")
    options = parser.parse_args(arguments)
    try:
        (before, context_before), (after, context_after) = load(options.before), load(options.after)
        findings, measured_by_peers = compare(before, after, options.threshold)
        if not findings:
            raise Unusable("no benchmark of magpie is in both reports")
    except Unusable as error:
        print(f"bench/compare.py: {error}", file=sys.stderr)
        return 2
    print_findings(findings, measured_by_peers, (context_before, context_after), options.all)
    if all(f.verdict == "undecided" for f in findings):
        print("bench/compare.py: nothing can be told: at least 5 repetitions on each side are needed, and a machine that is "
              "not busy with other things", file=sys.stderr)  # fmt: skip
        return 2
    return 1 if any(f.verdict == "slower" for f in findings) else 0


# ---- self-test --------------------------------------------------------------------------------------------------------------


def made_up(generator, repetitions, noise=0.04, drift=1.0, ours=1.0, names=40, outlier=1.0):
    """A report's runs: `names` benchmarks of ours and as many of a peer's; ours are `ours` times slower."""
    runs = {}
    for i in range(names):
        for side, factor in (("magpie", ours), ("peer", 1.0)):
            runs[f"work{i}/{side}/threads:1"] = {
                r: (1e6 * (i + 1) * factor * drift * (outlier if r == 1 else 1.0) * math.exp(generator.gauss(0, noise)), 0.0)
                for r in range(repetitions)
            }
    return runs


def slower_in(before, after):
    return sum(f.verdict == "slower" for f in compare(before, after, 0.03)[0])


def exit_code(before, after):
    """Of the whole program, for runs as made_up() gives them, or for text."""
    paths = []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), \
            contextlib.redirect_stderr(io.StringIO()):  # fmt: skip
        for number, runs in enumerate((before, after)):
            paths.append(pathlib.Path(folder) / f"{number}.json")
            if isinstance(runs, str):
                paths[-1].write_text(runs)
                continue
            benchmarks = [
                {"name": f"{name}/process_time/real_time", "run_type": "iteration", "repetition_index": r, "real_time": cost,
                 "time_unit": "ns", "others_cores": others}
                for name, of_name in runs.items() for r, (cost, others) in of_name.items()
            ]  # fmt: skip
            paths[-1].write_text(json.dumps({"context": {}, "benchmarks": benchmarks}))
        return main([str(path) for path in paths])


def self_test():
    checks = failures = 0

    def expect(what, is_so):
        nonlocal checks, failures
        checks += 1
        if not is_so:
            failures += 1
            print(f"FAILED: {what}")

    def close(a, b):
        return abs(a - b) < 1e-9

    expect("3 below 3: 2 of 20 orders", close(mann_whitney([1, 2, 3], [4, 5, 6]), 2 / 20))
    expect("5 below 5: 2 of 252 orders", close(mann_whitney([5, 1, 2, 3, 4], [9, 8, 7, 6, 10]), 2 / 252))
    expect("it does not matter which is which", close(mann_whitney([4, 5, 6], [1, 2, 3]), 2 / 20))
    expect("orders add up", sum(orders_by_u(5, 7)) == math.comb(12, 5) and orders_by_u(2, 2) == [1, 1, 2, 1, 1])
    expect("the same values tell nothing", mann_whitney([1, 1, 1, 1, 1], [1, 1, 1, 1, 1]) == 1.0)
    expect("ties go another way to nearly the same", mann_whitney([1, 2, 3, 3, 4] * 2, [7, 8, 9, 9, 10] * 2) < 0.001)

    generator = random.Random(1)
    # Of 40 benchmarks each.
    alarms = sum(slower_in(made_up(generator, n), made_up(generator, n)) for n in (5, 7) for _ in range(5))
    expect(f"noise alone is no regression: {alarms} of 400 were", alarms <= 1)
    drifted = slower_in(made_up(generator, 7), made_up(generator, 7, drift=1.6))
    expect(f"a slower machine is no regression: {drifted} of 40 were", drifted == 0)
    struck = slower_in(made_up(generator, 7), made_up(generator, 7, outlier=3.0))
    expect(f"one bad repetition is no regression: {struck} of 40 were", struck == 0)
    found = slower_in(made_up(generator, 7), made_up(generator, 7, ours=1.2))
    expect(f"20 % are found in noise of 4 %: {found} of 40 were", found >= 36)
    found = slower_in(made_up(generator, 7), made_up(generator, 7, ours=1.2, drift=0.7))
    expect(f"also on a faster machine: {found} of 40 were", found >= 36)
    small = slower_in(made_up(generator, 15, noise=0.002), made_up(generator, 15, noise=0.002, ours=1.01))
    expect(f"1 % is below the threshold, however certain: {small} of 40 were", small == 0)

    quiet, slow = made_up(generator, 7, noise=0.01), made_up(generator, 7, noise=0.01, ours=1.3)
    expect("exit code 1: slower", exit_code(quiet, slow) == 1)
    expect("exit code 0: faster", exit_code(slow, quiet) == 0)
    expect("exit code 0: the same report", exit_code(quiet, quiet) == 0)
    expect("exit code 2: too few repetitions", exit_code(made_up(generator, 4), made_up(generator, 4, ours=2.0)) == 2)
    expect("exit code 2: not a report", exit_code("[]", quiet) == 2 and exit_code(quiet, "no JSON") == 2)
    expect("exit code 2: nothing of ours", exit_code({"a/peer/threads:1": {0: (1.0, 0.0)}}, quiet) == 2)
    long = made_up(generator, 15, noise=0.01)
    disturbed = {
        n: {r: (2 * c, 0.5) if r < 12 and is_ours(n) else (c, 0.0) for r, (c, _) in of_name.items()} for n, of_name in long.items()
    }
    expect("disturbed repetitions are left out", exit_code(long, disturbed) == 0)
    busy = {n: {r: (2 * c if is_ours(n) else c, 0.5) for r, (c, _) in of_name.items()} for n, of_name in long.items()}
    expect("exit code 2: others used the machine all the time", exit_code(long, busy) == 2)
    slept = {"lat_p50_us": 9.0, "real_time": 5e9, "time_unit": "ns", "run_type": "iteration", "name": "wake/magpie/threads:1"}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "slept.json"
        path.write_text(json.dumps({"benchmarks": [slept]}))
        expect("of latencies only they are compared", list(load(path)[0]) == ["wake/magpie/threads:1 p50"])
    print(f"{checks} checks, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(self_test() if sys.argv[1:] == ["--self-test"] else main(sys.argv[1:]))
