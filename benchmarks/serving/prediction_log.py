"""Measure the cost of the prediction log: `python -m benchmarks.serving.prediction_log`, on Linux, with wrk.

Two servers with the champion run on one core: one server without the log, and one server that logs every row to a local
folder. No column is private. On another core, wrk posts real records: one record per request over 16 keep-alive
connections, and 1,000 records per request over two connections. The servers take turns in short rounds. Each round
starts new servers, because two processes with the same code can differ by several percent, and the order of the servers
changes. A ratio compares two loads that followed each other, and the result is the median over the rounds. Segments are
deleted between the loads, as the process that ships the log would do.

The log must contain every row that was answered, so the benchmark also reads the server's counts of logged rows. At the
end, a third server gets the same load, and its segments are never shipped, as with a bucket that does not answer. It
must drop rows, answer all requests, and use little more memory than the server without a log.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, median, write_bodies
from benchmarks.serving.processes import BUNDLE, Server, start_slipway, stopping, take_load_core
from benchmarks.serving.records import encode, read_records
from slipway.bundle import SCHEMA
from slipway.integrations.ports import free_port
from slipway.serving.log_segments import segments

RECORDS = 1_000
WARM_UP = 1.0  # seconds
LEAST_RATE = 0.9
MOST_P99 = 1.2
MOST_MEGABYTES = 64.0
LOG_BYTES = 262_144
"""Maximum size of the folder whose segments are never shipped."""
WAYS = {"1 record": 16, f"{RECORDS:,} records": 2}
"""Number of connections by the size of a request."""


def main() -> int:
    arguments = _arguments()
    take_load_core()
    with tempfile.TemporaryDirectory() as folder:
        off, on, rows, unshipped = _rounds(Path(folder), arguments)
    console.print(_table(off, on))
    console.print(f"\nRows by what became of them: {rows}")
    return require(_requirements(off, on, rows) | _requirements_of_unshipped(unshipped))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each load in a round")
    return parser.parse_args()


Loads = dict[str, list[Load]]


@dataclass(frozen=True)
class Unshipped:
    """A server whose segments are never shipped."""

    rows: dict[str, float]
    bad: int
    megabytes: float
    """Peak memory of the server above that of the server without a log."""


def _rounds(scratch: Path, arguments: argparse.Namespace) -> tuple[Loads, Loads, dict[str, float], Unshipped]:
    """Return the loads without and with the log, the counts of logged rows, and the server whose log is not shipped."""
    records = read_records(RECORDS)
    bodies = dict(zip(WAYS, ([encode(each) for each in records[:256]], [encode(records)]), strict=True))
    files = {name: write_bodies(scratch / f"{name}.txt", each) for name, each in bodies.items()}
    bundle, log = marked_bundle(scratch / "bundle"), scratch / "log"
    loads: dict[bool, Loads] = {logged: {name: [] for name in WAYS} for logged in (False, True)}
    settings_of: dict[bool, dict[str, Any]] = {False: {}, True: {"prediction_log": log}}
    rows: Counter[str] = Counter()
    for number in range(arguments.rounds):
        with ExitStack() as stack:
            servers = {
                logged: stack.enter_context(stopping(start_slipway(scratch, free_port(), bundle=bundle, **settings)))
                for logged, settings in settings_of.items()
            }
            for name, connections in WAYS.items():
                for logged in (False, True) if number % 2 else (True, False):
                    load(servers[logged], "/predict", files[name], connections=connections, seconds=WARM_UP)
                    done = load(
                        servers[logged], "/predict", files[name], connections=connections, seconds=arguments.seconds
                    )
                    loads[logged][name].append(done)
                    for segment in segments(log):
                        segment.unlink()
            rows.update(_account(servers[True]))
            if number == arguments.rounds - 1:
                unshipped = _unshipped(scratch, bundle, files, servers[False])
        console.print(f"[dim]round {number + 1} of {arguments.rounds}[/]")
    return loads[False], loads[True], rows, unshipped


def _unshipped(scratch: Path, bundle: Path, files: dict[str, Path], off: Server) -> Unshipped:
    limits = {"prediction_log_max_bytes": LOG_BYTES, "prediction_log_seconds": 0.5}
    settings = {"prediction_log": scratch / "unshipped", **limits}
    with stopping(start_slipway(scratch, free_port(), bundle=bundle, **settings)) as server:
        loads = [load(server, "/predict", files[name], connections=each, seconds=3) for name, each in WAYS.items()]
        megabytes = server.peak_megabytes() - off.peak_megabytes()
        return Unshipped(_account(server), sum(each.bad for each in loads), megabytes)


def marked_bundle(folder: Path) -> Path:
    """Copy the champion, and mark no column as private."""
    shutil.copytree(BUNDLE, folder)
    schema = json.loads((folder / SCHEMA).read_bytes())
    for column in schema["columns"]:
        column["private"] = "no"
    (folder / SCHEMA).write_text(json.dumps(schema))
    return folder


def _account(server: Server) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    start = "slipway_prediction_log_"
    return {
        name.removeprefix(start): float(value)
        for name, _, value in (line.rpartition(" ") for line in lines)
        if name.startswith(start) and "_created" not in name
    }


def _table(off: Loads, on: Loads) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("per request", "log", "requests/s", "per CPU-second", "p50, ms", "p99, ms", "not 200"):
        table.add_column(title, justify="left" if title in ("per request", "log") else "right")
    for name in WAYS:
        for words, loads in (("off", off), ("on", on)):
            each = median(loads[name])
            numbers = [f"{each.rate:,.0f}", f"{each.per_cpu_second:,.0f}", f"{each.p50:.2f}", f"{each.p99:.2f}"]
            table.add_row(name, words, *numbers, f"{each.bad:,}")
    return table


def _requirements(off: Loads, on: Loads, rows: dict[str, float]) -> dict[str, bool]:
    requirements = {}
    for name in WAYS:
        pairs = list(zip(on[name], off[name], strict=True))
        rate = statistics.median(each.rate / other.rate for each, other in pairs)
        p99 = statistics.median(each.p99 / other.p99 for each, other in pairs)
        requirements |= {
            f"{name}: throughput at least {LEAST_RATE:g} of the server without the log ({rate:.3f})": rate
            >= LEAST_RATE,
            f"{name}: p99 at most {MOST_P99:g} of the server without the log ({p99:.3f})": p99 <= MOST_P99,
        }
    bad = sum(each.bad for loads in (off, on) for each_way in loads.values() for each in each_way)
    kept, dropped = _sums(rows)
    return requirements | {
        f"every answer is 200 (others: {bad:,})": bad == 0,
        f"the account balances ({rows['answered_rows_total']:,.0f} rows answered, {kept:,.0f} accounted for)": (
            kept == rows["answered_rows_total"]
        ),
        f"no row is dropped ({dropped:,.0f})": dropped == 0,
    }


def _requirements_of_unshipped(found: Unshipped) -> dict[str, bool]:
    kept, dropped = _sums(found.rows)
    return {
        f"never shipped: every answer is 200 (others: {found.bad:,})": found.bad == 0,
        f"never shipped: rows are dropped ({dropped:,.0f}), and the account balances": dropped > 0
        and kept == found.rows["answered_rows_total"],
        f"never shipped: at most {MOST_MEGABYTES:g} MB more memory ({found.megabytes:.0f})": found.megabytes
        <= MOST_MEGABYTES,
    }


def _sums(rows: dict[str, float]) -> tuple[float, float]:
    """Return the number of rows that are accounted for, and how many of them were dropped."""
    kept = sum(value for name, value in rows.items() if name.startswith(("rows_total", "waiting_rows")))
    return kept, sum(value for name, value in rows.items() if 'outcome="dropped"' in name)


if __name__ == "__main__":
    exit_with(main)
