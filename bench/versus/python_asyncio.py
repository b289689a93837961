#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
"""Python's asyncio, as a benchmark program that run.py can run: the same flags, names and report as the others have.

Fewer operations in a run than the other sides have: what one of them costs is compared. One thread, as asyncio has.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import sys
import threading
import time

TASKS = 20_000
TIMERS = 20_000
TURNS = 20_000


async def one():
    return 1


async def spawn_and_wait():
    tasks = [asyncio.create_task(one()) for _ in range(TASKS)]
    return sum([await task for task in tasks])


async def gathers(width):
    done = 0
    while done < TASKS:
        done += sum(await asyncio.gather(*[one() for _ in range(width)]))
    return done


async def post_from_outside(producers):
    loop, left, done = asyncio.get_running_loop(), TASKS, asyncio.Event()

    def job():
        nonlocal left
        left -= 1
        if left == 0:
            done.set()

    def produce():
        for _ in range(TASKS // producers):
            loop.call_soon_threadsafe(job)

    threads = [threading.Thread(target=produce) for _ in range(producers)]
    for thread in threads:
        thread.start()
    await done.wait()
    for thread in threads:
        thread.join()
    return TASKS - left


async def yields(n):
    for _ in range(n):
        await asyncio.sleep(0)
    return n


async def yields_once():
    await asyncio.sleep(0)
    return 1


async def timeouts():
    done = 0
    for _ in range(TURNS):
        done += await asyncio.wait_for(yields_once(), 3600)
    return done


async def sleep_and_fire():
    await asyncio.gather(*[asyncio.sleep(1e-6) for _ in range(TIMERS)])
    return TIMERS


async def sleep_and_cancel():
    sleepers = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(TIMERS)]
    await asyncio.sleep(0)
    for sleeper in sleepers:
        sleeper.cancel()
    results = await asyncio.gather(*sleepers, return_exceptions=True)
    return sum(isinstance(result, asyncio.CancelledError) for result in results)


async def acquires(semaphore, n, over_yield):
    for _ in range(n):
        async with semaphore:
            if over_yield:
                await asyncio.sleep(0)
    return n


async def semaphore_of(tasks, over_yield):
    semaphore = asyncio.Semaphore(10)
    return sum(await asyncio.gather(*[acquires(semaphore, TURNS // tasks, over_yield) for _ in range(tasks)]))


async def locks():
    lock = asyncio.Lock()
    for _ in range(TURNS):
        async with lock:
            pass
    return TURNS


async def queue_in_turn():
    queue, count = asyncio.Queue(16), 0
    for i in range(TURNS):
        await queue.put(i)
        count += await queue.get() == i
    return count


async def produce(queue):
    for i in range(TURNS):
        await queue.put(i)
    return 0


async def consume(queue):
    count = 0
    for i in range(TURNS):
        count += await queue.get() == i
    return count


async def queue_one_to_one():
    queue = asyncio.Queue(64)
    return sum(await asyncio.gather(produce(queue), consume(queue)))


# The workload's name, how it is run, how many operations it must report.
BENCHMARKS = [
    ("spawn_and_wait", spawn_and_wait, TASKS),
    ("gather_10", lambda: gathers(10), TASKS),
    ("gather_1000", lambda: gathers(1_000), TASKS),
    ("gather_100000", lambda: gathers(100_000), 100_000),
    ("post_from_1", lambda: post_from_outside(1), TASKS),
    ("post_from_2", lambda: post_from_outside(2), TASKS),
    ("yield_of_1", lambda: yields(TURNS), TURNS),
    ("timeout_not_reached", timeouts, TURNS),
    ("sleep_and_fire", sleep_and_fire, TIMERS),
    ("sleep_and_cancel", sleep_and_cancel, TIMERS),
    ("sleep_and_cancel_with_throw", sleep_and_cancel, TIMERS),
    ("semaphore_uncontended", lambda: semaphore_of(1, False), TURNS),
    ("semaphore_shared", lambda: semaphore_of(1_000, False), TURNS),
    ("semaphore_over_yield", lambda: semaphore_of(1_000, True), TURNS),
    ("mutex_uncontended", locks, TURNS),
    ("channel_in_turn", queue_in_turn, TURNS),
    ("channel_1_to_1_of_64", queue_one_to_one, TURNS),
]


def peak_megabytes():
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return int(re.search(r"VmHWM:\s*(\d+)", status.read())[1]) / 1024
    except (OSError, TypeError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def switches():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def measured(name, make, operations, min_time):
    """The record of one benchmark: the first run is not timed, as on the other sides."""
    report = {"name": name, "run_name": name, "run_type": "iteration", "threads": 1, "time_unit": "ms"}
    with asyncio.Runner() as runner:

        async def once():
            return await make()

        iterations, result = 0, runner.run(once())
        start, cpu, switched = time.perf_counter(), time.process_time(), switches()
        while result == operations and (iterations == 0 or time.perf_counter() - start < min_time):
            result = runner.run(once())
            iterations += 1
        real, cpu = time.perf_counter() - start, time.process_time() - cpu
        if result != operations:
            return report | {"error_occurred": True, "error_message": f"wrong result: {result}, not {operations}"}
    return report | {
        "iterations": iterations,
        "real_time": 1e3 * real / iterations,
        "cpu_time": 1e3 * cpu / iterations,
        "items_per_second": operations * iterations / real,
        "switches": (switches() - switched) / iterations,
        "peak_mb": peak_megabytes(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--threads", default="")
    parser.add_argument("--benchmark_list_tests", action="store_true")
    parser.add_argument("--benchmark_filter", default="")
    parser.add_argument("--benchmark_min_time", type=float, default=0.5)
    parser.add_argument("--benchmark_out")
    parser.add_argument("--benchmark_out_format", default="json")
    options = parser.parse_args()
    reports = []
    for workload, make, operations in BENCHMARKS:
        name = f"{workload}/asyncio/threads:1/process_time/real_time"
        if not re.search(options.benchmark_filter, name):
            continue
        if options.benchmark_list_tests:
            print(name)
            continue
        reports.append(measured(name, make, operations, options.benchmark_min_time))
        print(json.dumps(reports[-1]))
    if options.benchmark_out:
        with open(options.benchmark_out, "w", encoding="utf-8") as out:
            json.dump({"context": {"python": sys.version, "pid": os.getpid()}, "benchmarks": reports}, out)
    return 1 if any("error_occurred" in report for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
