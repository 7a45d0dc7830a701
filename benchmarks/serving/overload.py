"""Measure the server at five times its capacity: `python -m benchmarks.serving.overload`, on Linux, with wrk.

The server runs on one core with default settings, and the load generator on another core. There are two kinds of load:

- Open loop: for 30 seconds, requests with 1,000 records (`--records`) arrive at random times, at five times the rate
  that the server can answer. The capacity is measured first, in a closed loop. Meanwhile, another process probes the
  server as a cluster would: it sends GET /healthz on a new connection twenty times a second. It also reads the memory
  of the server. After the overload, a normal load (a fifth of the capacity) follows on the same connections. The server
  has recovered as soon as it answers this load as well as before the overload.
- Closed loop: wrk sends single records on 16, 256 and 1,000 connections. The goodput is printed but not required,
  because each connection has at most one waiting request, so the load is not five times the capacity.

Latencies start when the request is sent. A second number starts at its due time, so it includes the wait for a free
connection. Requests that could not be sent are counted. If the load generator was too slow, the overload was smaller
than intended, and the output reports this.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import uvloop
from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, write_bodies
from benchmarks.serving.open_loop import Clients, Outcome, clock, post
from benchmarks.serving.processes import Server, exchange, start_slipway, stopping, take_load_core
from benchmarks.serving.records import encode, read_records
from slipway.integrations.ports import free_port

TIMES = 5
NORMAL = 0.2  # times the capacity
CLOSED = (4, 16, 48)
SINGLES = (16, 256, 1_000)
MOST_CONNECTIONS = 1_500
PROBE_EVERY = 0.05  # seconds
WINDOW = 0.1  # seconds
WINDOWS = 5

LEAST_GOODPUT = 0.8
MOST_GROWTH = 1.05
MOST_MS_TO_REFUSE = 250.0
MOST_MS_TO_PROBE = 1_000.0
MOST_SECONDS_TO_RECOVER = 1.0


@dataclass(frozen=True)
class Watched:
    """The measurements of the process that probes the server."""

    at: list[float]
    """Seconds since the start of the overload."""
    probe: list[float]
    """Milliseconds that each GET /healthz took, or NaN if its status was not 200."""
    megabytes: list[float]
    """Memory of the server at each of these times."""


@dataclass(frozen=True)
class OpenLoop:
    """The results of three consecutive loads, and the server's memory before and after them."""

    capacity: float
    before: Outcome
    overload: Outcome
    after: Outcome
    watched: Watched
    megabytes_before: float
    megabytes_after: float

    @property
    def goodput(self) -> float:
        """Answers with status 200 per second during the overload, as a share of the capacity."""
        return self.overload.statuses.get(200, 0) / self.overload.seconds / self.capacity

    @property
    def growth(self) -> float:
        """Peak memory in the last third of the overload, relative to the first third."""
        at, megabytes = np.array(self.watched.at), np.array(self.watched.megabytes)
        third = self.overload.seconds / 3
        return float(megabytes[at > 2 * third].max() / megabytes[at <= third].max())

    def seconds_to_recover(self) -> float:
        """Return the seconds from the end of the overload to the recovery, or infinity if the server did not recover.

        The server has recovered at the start of WINDOWS consecutive good windows. A window is good if every status is
        200 and the median latency is at most the 99th percentile before the overload.
        """
        usual = self.before.milliseconds(99, [200], since_due=True)
        due = np.array(self.after.due) - self.after.started
        took = (np.array(self.after.answered) - np.array(self.after.due)) * 1e3
        good = np.array(self.after.status) == 200
        in_a_row = 0
        for window in range(int(self.after.seconds / WINDOW)):
            here = (due >= window * WINDOW) & (due < (window + 1) * WINDOW)
            well = not here.any() or (good[here].all() and np.median(took[here]) <= usual)
            in_a_row = in_a_row + 1 if well else 0
            if in_a_row == WINDOWS:
                return (window + 1 - WINDOWS) * WINDOW
        return float("inf")


def main() -> int:
    arguments = _arguments()
    size = arguments.records
    take_load_core()
    records = read_records(max(1_000, 8 * arguments.records))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with stopping(start_slipway(scratch, free_port(), arguments.python)) as server:
            many = [encode(records[i : i + size]) for i in range(0, len(records), size)]
            capacity = _capacity(server, write_bodies(scratch / "many.txt", many))
            seen = uvloop.run(_open_loop(server, many, capacity, arguments.seconds))
        _print_open_loop(seen, size)
        with stopping(start_slipway(scratch, free_port(), arguments.python)) as server:
            one = write_bodies(scratch / "one.txt", [encode(record) for record in records[:256]])
            singles = {
                connections: _single(server, one, connections, arguments.closed_seconds) for connections in SINGLES
            }
        _print_singles(singles)
    return require(_requirements(seen) | _single_requirements({key: each for key, (each, _) in singles.items()}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000, help="records per request of the open loop")
    parser.add_argument("--seconds", type=float, default=30.0, help="duration of the open-loop overload")
    parser.add_argument(
        "--closed-seconds", type=float, default=10.0, help="duration of the closed loop for each number of connections"
    )
    parser.add_argument("--python", default=sys.executable, help="Python interpreter that runs the server")
    return parser.parse_args()


def _capacity(server: Server, bodies: Path) -> float:
    """Return the highest rate of answers with status 200 that was measured with several numbers of connections."""
    load(server, "/predict", bodies, connections=4, seconds=1)
    return max(
        load(server, "/predict", bodies, connections=connections, seconds=3).goodput
        for connections in (*CLOSED, *CLOSED)
    )


async def _open_loop(server: Server, bodies: list[bytes], capacity: float, seconds: float) -> OpenLoop:
    clients = Clients(server.port, [post("/predict", body) for body in bodies], MOST_CONNECTIONS)
    before = await clients.offer(capacity * NORMAL, lambda passed: passed >= 5)
    await clients.settle(10)
    megabytes = server.resident_megabytes()
    here, there = get_context("spawn").Pipe()
    watcher = get_context("spawn").Process(target=watch, args=(server.process.pid, server.port, there))
    watcher.start()
    await asyncio.to_thread(here.recv)  # wait until the process is ready
    here.send("start")
    overload = await clients.offer(capacity * TIMES, lambda passed: passed >= seconds)
    here.send("stop")
    after = await clients.offer(capacity * NORMAL, lambda passed: passed >= 5)
    await clients.settle(10)
    watched = await asyncio.to_thread(here.recv)
    watcher.join()
    await clients.close()
    return OpenLoop(capacity, before, overload, after, watched, megabytes, server.resident_megabytes())


def watch(pid: int, port: int, pipe: Connection) -> None:
    """Probe /healthz and read the server's memory until a message comes through the pipe.

    Run this in a separate process.
    """
    status = Path(f"/proc/{pid}/status")
    watched = Watched([], [], [])
    pipe.send("ready")
    pipe.recv()
    start = clock()
    while not pipe.poll():
        began = clock()
        answer, _ = exchange(port, "/healthz", None, timeout=MOST_MS_TO_PROBE / 1e3)
        watched.at.append(began - start)
        watched.probe.append((clock() - began) * 1e3 if answer == 200 else float("nan"))
        resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        watched.megabytes.append(int(resident.split()[1]) * 1024 / 1e6)
        time.sleep(max(0.0, PROBE_EVERY - (clock() - began)))
    pipe.send(watched)


def _single(server: Server, bodies: Path, connections: int, seconds: float) -> tuple[Load, float]:
    """Run a closed loop, and return its result with the server's memory after it."""
    load(server, "/predict", bodies, connections=connections, seconds=1)
    seen = load(server, "/predict", bodies, connections=connections, seconds=seconds, statuses=True)
    return seen, server.resident_megabytes()


def _print_open_loop(seen: OpenLoop, size: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(f"Open loop,\n{size} records")
    columns = ("offered/s", "200s/s", "200s", "503s", "200, ms\np50", "\np99", "since due\np99")
    for title in (*columns, "503, ms\np50", "\np99"):
        table.add_column(title, justify="right")
    loads = {"normal load": seen.before, f"{TIMES} times capacity": seen.overload, "normal load again": seen.after}
    for name, each in loads.items():
        statuses = each.statuses
        table.add_row(
            name,
            f"{each.arrivals / each.seconds:,.0f}",
            f"{statuses.get(200, 0) / each.seconds:,.0f}",
            f"{statuses.get(200, 0):,}",
            f"{statuses.get(503, 0):,}",
            _ms(each.milliseconds(50, [200])),
            _ms(each.milliseconds(99, [200])),
            _ms(each.milliseconds(99, [200], since_due=True)),
            _ms(each.milliseconds(50, [503])),
            _ms(each.milliseconds(99, [503])),
        )
    console.print(table)
    probes = np.array(seen.watched.probe)
    answered = probes[~np.isnan(probes)]
    middle, high, most = np.percentile(answered, [50, 99, 100]) if len(answered) else [float("nan")] * 3
    console.print(
        f"\nCapacity: {seen.capacity:,.0f} requests/s, {seen.capacity * size:,.0f} records/s. "
        f"Goodput: {seen.goodput:.0%} of it.\n"
        f"Memory: {seen.megabytes_before:.0f} MB before, at most {max(seen.watched.megabytes):.0f} during, "
        f"{seen.megabytes_after:.0f} after.\n"
        f"/healthz meanwhile: {len(answered)} of {len(probes)} probes had a 200 within {MOST_MS_TO_PROBE:g} ms; "
        f"p50 {_ms(middle)}, p99 {_ms(high)}, at most {_ms(most)} ms.\n"
        f"Recovered {seen.seconds_to_recover():.1f} s after the overload.\n"
        f"Requests without an answer: {_words(seen.overload.failures)} in the overload, "
        f"{_words(seen.after.failures)} after it.\n"
    )


def _print_singles(singles: dict[int, tuple[Load, float]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Closed loop,\none record")
    for title in ("200s/s", "answers by status", "p50, ms", "p99, ms", "no answer", "MB after"):
        table.add_column(title, justify="right")
    for connections, (each, megabytes) in singles.items():
        statuses = ", ".join(f"{status}: {count:,}" for status, count in sorted(each.statuses.items()))
        row = (f"{each.goodput:,.0f}", statuses, _ms(each.p50), _ms(each.p99), _words(each.failures))
        table.add_row(f"{connections:,} connections", *row, f"{megabytes:.0f}")
    console.print(table)


def _requirements(seen: OpenLoop) -> dict[str, bool]:
    overload, after = seen.overload, seen.after
    others = {status for status in overload.statuses if status not in (200, 503)}
    refused = overload.milliseconds(99, [503])
    answered = len(overload.status) / max(overload.arrivals, 1)
    unhealthy = int(np.isnan(seen.watched.probe).sum())
    recovered = seen.seconds_to_recover()
    return {
        f"{TIMES} times capacity: goodput above {LEAST_GOODPUT:.0%} of capacity ({seen.goodput:.0%})": (
            seen.goodput > LEAST_GOODPUT
        ),
        f"every request is answered, with 200 or 503 ({answered:.2%} answered)": (not others and not overload.failures),
        f"503s are fast: p99 at most {MOST_MS_TO_REFUSE:g} ms ({_ms(refused)})": not refused > MOST_MS_TO_REFUSE,
        f"memory is stable: the last third needs at most {MOST_GROWTH:g} times as much as the first "
        f"({seen.growth:.2f})": (seen.growth <= MOST_GROWTH),
        f"every probe has a 200 within {MOST_MS_TO_PROBE:g} ms (others: {unhealthy})": unhealthy == 0,
        f"recovers within {MOST_SECONDS_TO_RECOVER:g} s ({recovered:.1f})": (
            recovered <= MOST_SECONDS_TO_RECOVER and not after.failures
        ),
    }


def _single_requirements(singles: dict[int, Load]) -> dict[str, bool]:
    unanswered = sum(sum(each.failures.values()) for each in singles.values())
    others = {status for each in singles.values() for status in each.statuses if status not in (200, 503)}
    return {
        f"single records: every request is answered, with 200 or 503 (unanswered: {unanswered:,})": (
            unanswered == 0 and not others
        )
    }


def _ms(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"


def _words(failures: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in failures.items()) or "none"


if __name__ == "__main__":
    exit_with(main)
