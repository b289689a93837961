# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""The table on the terminal, and what lies in bench/report: report.json and index.html."""

import html
import json
import math
import statistics

import plots

LEGEND = (
    "ratio: magpie / peer, wall time, median of side-by-side runs; below 1 magpie is faster. speed-up: over 1 thread.",
    "switches: context switches of a run, micro: of 1,000 operations; MB: most memory of the process; both magpie / peer.",
)
DISTURBED = "*: other processes used the machine during most repetitions; do not quote."


def number(value):
    """Three digits: 12345, 123, 12.3, 0.123."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


def name_of(record):
    return record["workload"] + record["side"].removeprefix("magpie")


def pair(record, what):
    """'ours / the peer's', or ours."""
    return number(record[what]) + (f" / {number(record['peer_' + what])}" if record["peer"] else "")


def time_cells(record):
    start = [name_of(record), record["peer"] or "", str(record["threads"])]
    if "error" in record:
        return start + ["FAILED"] + [""] * 7
    cost = "operation_ns" if record["kind"] == "micro" and record["operation_ns"] else "ms"
    star = "*" if record["disturbed"] else ""
    has_ratio = record.get("ratio") is not None
    return start + [
        number(record[cost]) + ("" if has_ratio else star),
        number(record.get("peer_" + cost)),
        number(record["ratio"]) + star if has_ratio else "",
        "-".join(map(number, record["ratio_quartiles"])) if has_ratio else "",
        number(record.get("cpu_ratio")),
        number(record.get("speed_up")),
        pair(record, "switches"),
        pair(record, "peak_mb"),
    ]


def latency_cells(record):
    star = "*" if record["disturbed"] else ""
    throughput = 1e9 / record["operation_ns"] if record["operation_ns"] else None
    columns = []
    for percentile in ("p50", "p90", "p99", "p999", "max"):
        ours = number(record["latency_us"][percentile])
        columns.append(ours + (f" / {number(record['peer_latency_us'][percentile])}" if "peer_latency_us" in record else ""))
    ratios = [number(record.get(f"{percentile}_ratio")) for percentile in ("p50", "p99")]
    marked = ratios if ratios[0] else columns
    marked[0] += star
    return [name_of(record), record["peer"] or "", str(record["threads"]), *columns, *ratios, number(throughput)]


def tables(records):
    """(title, header, rows) of each table that has rows."""
    latencies = [r for r in records if "latency_us" in r]
    times = [r for r in records if "latency_us" not in r]
    more = ["ratio", "quartiles", "CPU ratio", "speed-up", "switches", "MB"]
    for kind, unit in (("workload", "ms"), ("micro", "ns")):
        rows = [time_cells(r) for r in times if (r["kind"] == "micro") == (kind == "micro")]
        if rows:
            yield kind, [kind, "peer", "threads", f"magpie {unit}", f"peer {unit}", *more], rows
    if latencies:
        header = ["latency, us", "peer", "threads", "p50", "p90", "p99", "p99.9", "max", "ratio p50", "ratio p99", "served/s"]
        yield "latency", header, [latency_cells(r) for r in latencies]


def print_table(records, notes, failed):
    print()
    for line in notes:
        print(line)
    for _, header, rows in tables(records):
        table = [header, *rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(header))]
        print()
        for line in table:
            left = [text.ljust(width) for text, width in zip(line[:2], widths[:2])]
            right = [text.rjust(width) for text, width in zip(line[2:], widths[2:])]
            print("  ".join(left + right).rstrip())
    print()
    for line in LEGEND:
        print(line)
    if any(r.get("disturbed") for r in records):
        print(DISTURBED)
    for line in failed:
        print(f"FAILED: {line}")


def write_json(path, context, results, records):
    """Google Benchmark's format (its compare.py reads it), and our rows besides."""
    benchmarks = []
    for b, runs in results.items():
        for i, run in enumerate(runs):
            if run.raw:
                benchmarks.append(run.raw | {"repetitions": len(runs), "repetition_index": i, "others_cores": run.disturbance})
        if runs and not any(run.error for run in runs):
            benchmarks.append({
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
            })  # fmt: skip
    path.write_text(json.dumps({"context": context, "benchmarks": benchmarks, "ratios": records}, indent=1) + "\n")


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.scroll { overflow-x: auto; } .failed { color: #c33; }
"""


def html_table(header, rows):
    parts = ['<div class="scroll"><table><tr>' + "".join(f"<th>{html.escape(h)}</th>" for h in header) + "</tr>"]
    parts += ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    return "\n".join(parts) + "</table></div>"


def write_html(path, notes, records, groups, failed):
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8"><title>magpie: benchmarks</title>']
    parts += [f"<style>{STYLE}{plots.STYLE}</style></head><body><h1>magpie: benchmarks</h1>"]
    parts += ["<p>" + "<br>\n".join(html.escape(line) for line in notes) + "</p>"]
    parts += [f'<p class="failed">Failed: {html.escape(line)}</p>' for line in failed]
    for title, svg in plots.all_of(records, groups):
        parts.append(f'<h2>{html.escape(title)}</h2><div class="scroll">{svg}</div>')
    for title, header, rows in tables(records):
        parts.append(f"<h2>{html.escape(title)}: the figures</h2>" + html_table(header, rows))
    parts += [f"<p>{html.escape(line)}</p>" for line in LEGEND]
    if any(r.get("disturbed") for r in records):
        parts.append(f"<p>{html.escape(DISTURBED)}</p>")
    path.write_text("\n".join(parts) + "\n</body></html>\n")
