"""Measure the throughput of the server: `python -m benchmarks.serving.throughput`, on Linux, with wrk.

One server with the champion runs on one core. On another core, wrk posts real records in rotation over 16 keep-alive
connections. The status of every answer must be 200. For comparison, the benchmark also measures an upper limit, the
ceiling: an ASGI application on the same uvicorn that only sends a constant.

The speed of a shared machine varies. Therefore the protocols and the ceiling take turns in short rounds, in a different
order in each round, and each number is the median of the rounds. For the same reason, comparisons use answers per
second of CPU time within the same round. The CPU time is the time that Linux reports for the server's processes.

A batch with 1,000 records over HTTP is compared with ONNX Runtime alone, by rows per CPU-second. ONNX Runtime runs the
same graph on prepared tensors, in a separate process on the server's core. The difference is the cost of JSON,
validation, conversion to tensors, metrics, and HTTP.

A cold start is the time from starting Python to the first status 200 from /readyz, with compiled bytecode and warm disk
caches.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

from rich.table import Table

from benchmarks.scratch import REPOSITORY, console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, median, share, write_bodies
from benchmarks.serving.processes import (
    BUNDLE,
    cores,
    start_ceiling,
    start_slipway,
    stopping,
    take_load_core,
)
from benchmarks.serving.records import encode, one_each, read_records, read_schema
from slipway.bundle import load_bundle
from slipway.integrations.ports import free_port
from slipway.serving.problems import pointer
from slipway.serving.records import Records

RECORDS = 1_000
BATCH_CONNECTIONS = 2
WARM_UP = 1.0  # seconds
STARTS = 7

LEAST_RATE = 10_000.0
LEAST_OF_CEILING = 0.3
MOST_P99 = 5.0  # ms
LEAST_OF_PREDICT = 0.8
LEAST_OF_RUNTIME = 0.6
MOST_SECONDS_TO_READY = 1.0
MOST_MEGABYTES = 120.0

CEILING = "a constant"
PREDICT = "/predict"
PROTOCOLS = ("/invocations, records", "/invocations, split", "/v2 infer")
BATCH = f"/predict, {RECORDS:,} records"


def main() -> int:
    arguments = _arguments()
    take_load_core()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        starts = _cold_starts(scratch, arguments.python)
        loads, runtime, megabytes = _rounds(scratch, arguments)
    of_runtime = statistics.median(
        each.per_cpu_second * RECORDS / rows for each, rows in zip(loads[BATCH], runtime, strict=True)
    )
    console.print(_table(loads, statistics.median(runtime)))
    console.print(
        f"\nCold start: {statistics.median(starts):.2f} s (from {min(starts):.2f} to {max(starts):.2f} in {STARTS}). "
        f"Memory after the load: {megabytes:.0f} MB."
    )
    return require(_requirements(loads, of_runtime, statistics.median(starts), megabytes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each load in a round")
    parser.add_argument("--python", default=sys.executable, help="Python interpreter that runs the servers")
    return parser.parse_args()


def _cold_starts(scratch: Path, python: str) -> list[float]:
    subprocess.run([python, "-m", "compileall", "-q", REPOSITORY / "src"], check=True)
    seconds = []
    for _ in range(1 + STARTS):  # the first start also compiles modules to bytecode, so it is not counted
        with stopping(start_slipway(scratch, free_port(), python)) as server:
            seconds.append(server.seconds_to_ready)
    return seconds[1:]


def _rounds(scratch: Path, arguments: argparse.Namespace) -> tuple[dict[str, list[Load]], list[float], float]:
    """Run all rounds.

    Returns the results of each load, the rows per CPU-second of ONNX Runtime alone, and the server's memory.
    """
    records = read_records(RECORDS)
    bodies = {name: write_bodies(scratch / f"{name}.txt", each) for name, each in one_each(records[:256]).items()}
    batch = write_bodies(scratch / "batch.txt", [encode(records), encode(records[::-1])])
    with ExitStack() as stack:
        server = stack.enter_context(stopping(start_slipway(scratch, free_port(), arguments.python)))
        ceiling = stack.enter_context(stopping(start_ceiling(scratch, free_port(), arguments.python)))
        alone = stack.enter_context(
            ProcessPoolExecutor(
                1, mp_context=get_context("spawn"), initializer=os.sched_setaffinity, initargs=(0, {cores()[0]})
            )
        )
        ways = {
            CEILING: (ceiling, "/predict", bodies["predict"], 16),
            PREDICT: (server, "/predict", bodies["predict"], 16),
            PROTOCOLS[0]: (server, "/invocations", bodies["records"], 16),
            PROTOCOLS[1]: (server, "/invocations", bodies["split"], 16),
            PROTOCOLS[2]: (server, "/v2/models/model/infer", bodies["infer"], 16),
            BATCH: (server, "/predict", batch, BATCH_CONNECTIONS),
        }
        loads: dict[str, list[Load]] = {name: [] for name in ways}
        runtime: list[float] = []
        for number in range(arguments.rounds):
            turn = number % len(ways)
            for name in [*list(ways)[turn:], *list(ways)[:turn]]:
                to, path, file, connections = ways[name]
                if name == BATCH:
                    runtime.append(alone.submit(score_alone, records, arguments.seconds).result())
                load(to, path, file, connections=connections, seconds=WARM_UP)
                loads[name].append(load(to, path, file, connections=connections, seconds=arguments.seconds))
            console.print(f"[dim]round {number + 1} of {arguments.rounds}[/]")
        return loads, runtime, server.resident_megabytes()


def score_alone(records: list[dict[str, object]], seconds: float) -> float:
    """Return the number of rows that ONNX Runtime scores per second of CPU time. Run this in a separate process."""
    tensors = Records(read_schema(), RECORDS).from_rows(records, pointer)
    session = load_bundle(BUNDLE).session
    for _ in range(20):
        session.run(None, tensors)
    times, wall, cpu = 0, time.monotonic(), sum(os.times()[:2])
    while time.monotonic() - wall < seconds:
        session.run(None, tensors)
        times += 1
    return times * len(records) / (sum(os.times()[:2]) - cpu)


def _table(loads: dict[str, list[Load]], rows_alone: float) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    titles = (
        "requests/s",
        "per CPU-second",
        "of the\nconstant",
        "p50, ms",
        "p99, ms",
        "not 200",
        "rows per\nCPU-second",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for name, rounds in loads.items():
        rows, each = RECORDS if name == BATCH else 1, median(rounds)
        table.add_row(
            name,
            f"{each.rate:,.0f}",
            f"{each.per_cpu_second:,.0f}",
            f"{share(rounds, loads[CEILING]):.2f}" if rows == 1 else "",
            f"{each.p50:.2f}",
            f"{each.p99:.2f}",
            f"{each.bad:,}",
            "" if name == CEILING else f"{each.per_cpu_second * rows:,.0f}",
        )
    table.add_row("ONNX Runtime alone", *[""] * 6, f"{rows_alone:,.0f}")
    return table


def _requirements(
    loads: dict[str, list[Load]], of_runtime: float, seconds_to_ready: float, megabytes: float
) -> dict[str, bool]:
    predict, bad = median(loads[PREDICT]), sum(each.bad for rounds in loads.values() for each in rounds)
    of_ceiling = share(loads[PREDICT], loads[CEILING])
    requirements = {
        f"/predict: at least {LEAST_RATE:,.0f} requests/s ({predict.rate:,.0f})": predict.rate >= LEAST_RATE,
        f"/predict: at least {LEAST_OF_CEILING:g} times as fast as the constant, by CPU time ({of_ceiling:.2f})": (
            of_ceiling >= LEAST_OF_CEILING
        ),
        f"/predict: p99 below {MOST_P99:g} ms ({predict.p99:.2f})": predict.p99 < MOST_P99,
    }
    for name in PROTOCOLS:
        of_predict = share(loads[name], loads[PREDICT])
        requirement = f"{name}: at least {LEAST_OF_PREDICT:.0%} of /predict, by CPU time ({of_predict:.0%})"
        requirements[requirement] = of_predict >= LEAST_OF_PREDICT
    return requirements | {
        f"{BATCH}: at least {LEAST_OF_RUNTIME:.0%} of ONNX Runtime alone, by CPU time ({of_runtime:.0%})": (
            of_runtime >= LEAST_OF_RUNTIME
        ),
        f"every answer is 200 (others: {bad:,})": bad == 0,
        f"ready at most {MOST_SECONDS_TO_READY:g} s after a cold start ({seconds_to_ready:.2f})": (
            seconds_to_ready <= MOST_SECONDS_TO_READY
        ),
        f"at most {MOST_MEGABYTES:g} MB in memory after the load ({megabytes:.0f})": megabytes <= MOST_MEGABYTES,
    }


if __name__ == "__main__":
    exit_with(main)
