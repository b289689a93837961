# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""From the runs to what is reported: every side of ours beside every peer, and all sides beside the best."""

import dataclasses
import statistics

from machine import undisturbed

PERCENTILES = ("p10", "p50", "p90", "p99", "p999", "max")


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

    @property
    def switches(self):
        """Context switches of one iteration, or of a thousand operations where they are counted."""
        operations = self.real_ms * 1e6 / self.operation_ns if self.operation_ns else 0
        return self.raw.get("switches", 0.0) * (1000 / operations if operations else 1)

    @property
    def peak_mb(self):
        return self.raw.get("peak_mb", 0.0)

    def latency(self, percentile):
        """In microseconds; None where the benchmark has no latencies."""
        return self.raw.get(f"lat_{percentile}_us")


def median(runs, what):
    return statistics.median(getattr(run, what) for run in runs)


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(above, below, what="real_ms"):
    """Of each repetition; of one operation where both sides count them: a slow side may do fewer of them in a run."""
    counted = all(run.operation_ns for run in [*above, *below])

    def cost(run):
        return getattr(run, what) * (run.operation_ns / run.real_ms if counted else 1.0)

    return [cost(a) / max(cost(b), 1e-9) for a, b in zip(above, below)]


def sides_of(results):
    """{(workload, threads): [benchmarks]}, in the order in which they ran."""
    groups = {}
    for b in results:
        groups.setdefault((b.workload, b.threads), []).append(b)
    return groups


def error_of(results, benchmarks):
    errors = [f"{b.workload}/{b.side}: {run.error}" for b in benchmarks for run in results[b] if run.error]
    return errors[0] if errors else ""


def chosen(results, benchmarks):
    """({benchmark: its runs that count}, whether others used the machine during most repetitions)."""
    everything = range(min(len(results[b]) for b in benchmarks))
    counting, disturbed = undisturbed([max(results[b][i].disturbance for b in benchmarks) for i in everything])
    return {b: [results[b][i] for i in counting] for b in benchmarks}, disturbed


def make_records(results):
    """A record for each row of the table."""
    records = []
    for sides in sides_of(results).values():
        peers = [b for b in sides if not b.is_ours]
        for ours in (b for b in sides if b.is_ours):
            records += [make_record(results, ours, peer) for peer in peers or [None]]
    return records


def make_record(results, ours, peer):
    record = {
        "workload": ours.workload,
        "kind": ours.kind,
        "side": ours.side,
        "peer": peer.side if peer else None,
        "threads": ours.threads,
    }
    both = [ours, peer] if peer else [ours]
    if error := error_of(results, both):
        return record | {"error": error}
    runs, disturbed = chosen(results, both)
    record |= {"repetitions": len(runs[ours]), "disturbed": disturbed}
    for prefix, b in (("", ours), ("peer_", peer)):
        if b is None:
            continue
        record |= {
            prefix + "ms": median(runs[b], "real_ms"),
            prefix + "cpu_ms": median(runs[b], "cpu_ms"),
            prefix + "operation_ns": median(runs[b], "operation_ns") or None,
            prefix + "switches": median(runs[b], "switches"),
            prefix + "peak_mb": median(runs[b], "peak_mb"),
        }
        if runs[b][0].latency("p50") is not None:
            record[prefix + "latency_us"] = {
                p: statistics.median(run.latency(p) for run in runs[b]) for p in PERCENTILES
            }
    if peer:
        low, middle, high = quartiles(ratios(runs[ours], runs[peer]))
        record |= {"ratio": middle, "ratio_quartiles": [low, high]}
        record["cpu_ratio"] = statistics.median(ratios(runs[ours], runs[peer], "cpu_ms"))
        if "latency_us" in record and "peer_latency_us" in record:
            for p in ("p50", "p99"):
                both_latencies = zip(runs[ours], runs[peer])
                record[f"{p}_ratio"] = statistics.median(a.latency(p) / max(b.latency(p), 1e-9) for a, b in both_latencies)
    if ours.threads != 1:
        one = [b for b in results if (b.workload, b.side, b.threads) == (ours.workload, ours.side, 1)]
        if one and not error_of(results, one):
            pair, _ = chosen(results, [one[0], ours])
            record["speed_up"] = statistics.median(ratios(pair[one[0]], pair[ours]))
    return record


def beside_the_best(results):
    """For each workload and number of threads with several sides: [(side, is ours, ratio to the best)], the best first."""
    groups = []
    for (workload, threads), sides in sides_of(results).items():
        if len(sides) < 2 or error_of(results, sides):
            continue
        runs, disturbed = chosen(results, sides)
        counted = all(run.operation_ns for of_side in runs.values() for run in of_side)
        best = min(sides, key=lambda b: median(runs[b], "operation_ns" if counted else "real_ms"))
        bars = [(b.side, b.is_ours, 1.0 if b is best else statistics.median(ratios(runs[b], runs[best]))) for b in sides]
        groups.append({"workload": workload, "threads": threads, "disturbed": disturbed, "kind": sides[0].kind,
                       "bars": sorted(bars, key=lambda bar: bar[2])})  # fmt: skip
    return groups


def failures(results):
    """A line for each run that failed."""
    return [
        f"{b.workload}/{b.side}/threads:{b.threads}: {run.error}" for b, runs in results.items() for run in runs if run.error
    ]
