# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""The plots of bench/report/index.html, as SVG: each side beside the best, speed-up over threads, latencies."""

import html
import math

STYLE = """
svg text { font: 13px system-ui, sans-serif; fill: currentColor; }
.ours { fill: #3b82c4; } .peer { fill: #9a8f80; } .axis { stroke: #8888; } .ideal { stroke: #8888; stroke-dasharray: 4 3; }
.curve { fill: none; stroke-width: 2; }
"""
COLOURS = ("#3b82c4", "#c4703b", "#4a9c5d", "#a35ac4", "#b8a12c", "#c43b5e", "#3bb8c4", "#7a7a7a")
POSITIONS = {"p10": "10 %", "p50": "50 %", "p90": "90 %", "p99": "99 %", "p999": "99.9 %", "max": "all"}


def all_of(records, groups):
    """(title, svg) of each plot that has something to show."""
    if groups:
        yield "Every side beside the best of its workload (wall time, logarithmic; 1 is the best)", beside_the_best(groups)
    for title, svg in (("Speed-up over threads", speed_ups(records)), ("Latencies", latencies(records))):
        if svg:
            yield title, svg


def canvas(width, height, title, parts):
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"><title>{html.escape(title)}</title>'
    return "\n".join([head, *parts, "</svg>"])


def text(x, y, words, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def line(kind, x1, y1, x2, y2):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def curve(points, colour, dashed=False):
    dash = ' stroke-dasharray="6 4"' if dashed else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="curve" stroke="{colour}"{dash} points="{path}"/>'


def beside_the_best(groups):
    left, width, step = 250, 520, 20
    most = max(bar[2] for group in groups for bar in group["bars"])
    scale = width / max(math.log10(most), 0.3)
    parts, y = [], 4
    for group in groups:
        threads = group["threads"]
        parts.append(text(left - 8, y + 13, f"{group['workload']}, {threads} thread{'s' if threads != 1 else ''}", "end"))
        for side, ours, ratio in group["bars"]:
            length = max(2.0, math.log10(max(ratio, 1.0)) * scale)
            parts.append(f'<rect class="{"ours" if ours else "peer"}" x="{left}" y="{y}" width="{length:.1f}" height="14"/>')
            star = "*" if group["disturbed"] else ""
            parts.append(text(left + length + 6, y + 12, f"{side} {ratio:.3g}{star}"))
            y += step
        y += 8
    for power in range(math.floor(math.log10(most)) + 1):
        parts.append(line("ideal", left + power * scale, 0, left + power * scale, y))
        parts.append(text(left + power * scale, y + 14, str(10**power), "middle"))
    return canvas(left + width + 220, y + 20, "wall time, divided by that of the best side", parts)


def speed_ups(records):
    """One line for each workload of ours that ran with several numbers of threads."""
    by_name = {}
    for r in records:
        if r["kind"] == "workload" and r.get("speed_up"):
            by_name.setdefault(r["workload"] + r["side"].removeprefix("magpie"), {})[r["threads"]] = r["speed_up"]
    if not by_name:
        return ""
    left, top, width, height = 50, 10, 420, 320
    threads = max(t for points in by_name.values() for t in points)
    most = max([threads, *(s for points in by_name.values() for s in points.values())])

    def at(t, speed_up):
        return left + (t - 1) / max(threads - 1, 1) * width, top + height - speed_up / most * height

    parts = [line("axis", left, top + height, left + width, top + height), line("axis", left, top, left, top + height)]
    parts.append(line("ideal", *at(1, 1), *at(threads, threads)))
    for t in sorted({1, *(t for points in by_name.values() for t in points)}):
        parts.append(text(at(t, 0)[0], top + height + 18, f"{t} thread{'s' if t != 1 else ''}", "middle"))
    for s in range(math.floor(most) + 1):
        parts.append(text(left - 8, at(1, s)[1] + 4, str(s), "end"))
    # The names stand below one another at the right, in the order of the lines' ends.
    ends = sorted(by_name.items(), key=lambda item: -item[1][max(item[1])])
    for i, (name, points) in enumerate(ends):
        colour = COLOURS[i % len(COLOURS)]
        parts.append(curve([at(1, 1), *(at(t, points[t]) for t in sorted(points))], colour))
        y = top + 14 + 18 * i
        parts.append(f'<rect x="{left + width + 20}" y="{y - 10}" width="12" height="10" fill="{colour}"/>')
        parts.append(text(left + width + 38, y, f"{name} {points[max(points)]:.2f}"))
    total = max(top + height, top + 18 * len(ends)) + 30
    return canvas(left + width + 260, total, "time with 1 thread, divided by time with so many", parts)


def latencies(records):
    """A panel for each workload and number of threads: the time that so large a share of the operations did not exceed."""
    panels = {}
    for r in records:
        if "latency_us" not in r:
            continue
        curves = panels.setdefault((r["workload"], r["threads"]), {})
        curves[r["side"]] = r["latency_us"]
        if "peer_latency_us" in r:
            curves[r["peer"]] = r["peer_latency_us"]
    left, width, height, step = 70, 460, 180, 250
    parts = []
    for panel, ((workload, threads), curves) in enumerate(panels.items()):
        top = 30 + panel * step
        values = [max(v, 0.01) for of_side in curves.values() for v in of_side.values()]
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
        high = max(high, low + 1)

        def at(i, us):
            share = (math.log10(max(us, 0.01)) - low) / (high - low)
            return left + i / (len(POSITIONS) - 1) * width, top + height - share * height

        parts.append(text(left, top - 10, f"{workload}, {threads} thread{'s' if threads != 1 else ''}, us"))
        for power in range(low, high + 1):
            parts.append(line("axis", left, at(0, 10**power)[1], left + width, at(0, 10**power)[1]))
            parts.append(text(left - 8, at(0, 10**power)[1] + 4, f"{10.0**power:g}", "end"))
        for i, name in enumerate(POSITIONS.values()):
            parts.append(text(at(i, 10**low)[0], top + height + 18, name, "middle"))
        for i, (side, of_side) in enumerate(curves.items()):
            colour = COLOURS[i % len(COLOURS)]
            parts.append(curve([at(j, of_side[p]) for j, p in enumerate(POSITIONS)], colour, not side.startswith("magpie")))
            parts.append(f'<rect x="{left + width + 20}" y="{top + 18 * i}" width="12" height="10" fill="{colour}"/>')
            parts.append(text(left + width + 38, top + 10 + 18 * i, side))
    return canvas(left + width + 200, 30 + step * len(panels), "latencies", parts) if panels else ""
