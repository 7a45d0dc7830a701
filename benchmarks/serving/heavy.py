"""Measure heavy models and shared runs: `python -m benchmarks.serving.heavy`, on Linux, with wrk.

Two servers run on one core, and take turns in short rounds: the current version, and an earlier version. Without
`--before`, the second server is the current version without shared runs. Single records are sent over 1, 16 and 64
connections. Each result is a ratio between the two versions: their good answers per second of CPU time, as a median
over the rounds. The champion, two MLPs and an encoder are measured.

Sharing runs gains little more than ONNX Runtime itself gains from runs with more rows. If the weights of the large MLP
fit into the processor's cache, this gain can be less than the required factor. The requirement for this model is
therefore the smaller of two numbers: the factor, and a part of the runtime's own gain, which is measured on the same
core.

Then one request with 1,000 records is sent to the encoder, while a client sends one probe after the other. The slowest
probe and the peak of the server's memory are printed.

Last, `/metrics` of the champion and of a model with 1,024 columns is scraped, while a client sends one single record
after the other. The delay is the slowest answer during a scrape, minus the slowest answer in the same time without a
scrape, as a median over the rounds.
"""

import argparse
import http.client
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, write_bodies
from benchmarks.serving.heavy_models import BUNDLES, bodies, wide
from benchmarks.serving.processes import (
    BUNDLE,
    Server,
    exchange,
    start_slipway,
    status_of,
    stopping,
    take_load_core,
)
from benchmarks.serving.records import encode, read_records
from slipway.bundle import SCHEMA, Schema, Tensors
from slipway.errors import SlipwayError
from slipway.integrations.ports import free_port
from slipway.serving.served_model import ServedModel

CHAMPION = "champion"
ENCODER = "encoder, 6 layers"
CONNECTIONS = (1, 16, 64)
WARM_UP = 1.0  # seconds
RECORDS = 1_000
LARGE = "MLP 2048-2048"
SHARED = 16  # connections
LEAST = {(CHAMPION, 1): 0.97, (CHAMPION, SHARED): 1.2, (LARGE, SHARED): 4.0, (LARGE, 64): 4.0}
RUNTIME_PART = 0.8  # HTTP takes the rest
RUNS = 100
MOST_MILLISECONDS = 100.0
MOST_MEGABYTES = 256.0
WIDE = "1,024 columns"
SCRAPES = 100
MOST_SERIES, MOST_BYTES, MOST_DELAY = 500, 200_000, 10.0  # the delay is in milliseconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each load in a round")
    parser.add_argument("--before", type=Path, help="work tree of the version before")
    parser.add_argument("--only", action="append", help="measure only this model")
    arguments = parser.parse_args()
    take_load_core()
    table = Table("", *(f"{each} connections" for each in CONNECTIONS), box=None, padding=(0, 2, 0, 0))
    requirements: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        records = read_records(256)
        for name in [each for each in arguments.only or (CHAMPION, *BUNDLES) if each != WIDE]:
            bundle = BUNDLE if name == CHAMPION else BUNDLES[name](scratch / name)
            sent = records if name == CHAMPION else bodies(_columns(bundle), 256)
            file = write_bodies(scratch / "bodies.txt", [encode(each) for each in sent])
            ratios = _ratios(scratch, bundle, file, arguments)
            table.add_row(name, *(f"{each:.2f}" for each in ratios.values()))
            for connections, ratio in ratios.items():
                least = LEAST.get((name, connections))
                if least is not None and name == LARGE:
                    gain = _runtime_gain(bundle, connections)
                    console.print(f"{name}: ONNX Runtime alone gains {gain:.2f} from runs of {connections} rows.")
                    least = min(least, round(RUNTIME_PART * gain, 2))
                if least is not None:
                    text = f"{name}, {connections} connections: at least {least:g} times as fast ({ratio:.2f})"
                    requirements[text] = ratio >= least
            if name == ENCODER:
                milliseconds, megabytes, seconds = _heavy_request(scratch, bundle)
                console.print(f"{RECORDS:,} records to the encoder took {seconds:.1f} s.")
                requirements |= {
                    f"each probe takes at most {MOST_MILLISECONDS:g} ms meanwhile ({milliseconds:.0f})": (
                        milliseconds <= MOST_MILLISECONDS
                    ),
                    f"at most {MOST_MEGABYTES:g} MB of memory ({megabytes:.0f})": megabytes <= MOST_MEGABYTES,
                }
        for name, bundle in ((CHAMPION, BUNDLE), (WIDE, wide(scratch / "wide"))):
            if name in (arguments.only or (CHAMPION, WIDE)):
                requirements |= _scrapes(scratch, name, bundle)
    if table.row_count:
        console.print(table)
    return require(requirements)


def _columns(bundle: Path) -> int:
    return len(Schema.model_validate_json((bundle / SCHEMA).read_bytes()).columns)


def _ratios(scratch: Path, bundle: Path, file: Path, arguments: argparse.Namespace) -> dict[int, float]:
    """Return, by number of connections, this version's answers per CPU-second divided by the earlier version's."""
    with ExitStack() as stack:

        def started(**settings: object) -> Server:
            return stack.enter_context(stopping(start_slipway(scratch, free_port(), bundle=bundle, **settings)))

        new = started()
        before = started(source=arguments.before) if arguments.before else started(share_runs="off")
        results: dict[int, tuple[list[Load], list[Load]]] = {}
        for connections in CONNECTIONS:
            ours, theirs = results.setdefault(connections, ([], []))
            for number in range(arguments.rounds):
                for server, loads in [(new, ours), (before, theirs)][:: 1 if number % 2 else -1]:
                    load(server, "/predict", file, connections=connections, seconds=WARM_UP)
                    loads.append(load(server, "/predict", file, connections=connections, seconds=arguments.seconds))
        return {
            connections: statistics.median(
                our.per_cpu_second * our.good / (their.per_cpu_second * their.good)
                for our, their in zip(ours, theirs, strict=True)
            )
            for connections, (ours, theirs) in results.items()
        }


def _runtime_gain(bundle: Path, rows: int) -> float:
    """Return the CPU time of single runs, divided by that of one run with the same rows, as medians.

    Runs of one size follow each other, as under load, so that the cache holds the weights if they fit.
    """
    model = ServedModel(bundle, "model", rows)
    golden = model.golden_tensors()
    many = {name: np.resize(each, (rows, each.shape[1])) for name, each in golden.items()}
    one = {name: each[:1] for name, each in many.items()}

    def seconds(tensors: Tensors) -> float:
        times = []
        for _ in range(RUNS):
            started = time.thread_time()
            model.run(tensors)
            times.append(time.thread_time() - started)
        return statistics.median(times)

    return rows * seconds(one) / seconds(many)


def _heavy_request(scratch: Path, bundle: Path) -> tuple[float, float, float]:
    """Return the milliseconds of the slowest probe, the server's peak memory in MB, and the seconds of the request."""
    body = encode(bodies(_columns(bundle), RECORDS))
    with stopping(start_slipway(scratch, free_port(), bundle=bundle)) as server:
        statuses: list[int | None] = []
        sending = threading.Thread(target=lambda: statuses.append(exchange(server.port, "/predict", body, 120)[0]))
        began = time.monotonic()
        sending.start()
        slowest = 0.0
        while sending.is_alive():
            started = time.monotonic()
            if status_of(server.port, "/readyz", None) != 200:
                raise SlipwayError("A probe failed during the request.")
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.01)
        if statuses != [200]:
            raise SlipwayError(f"The request was answered with status {statuses}.")
        return slowest * 1e3, server.peak_megabytes(), time.monotonic() - began


def _scrapes(scratch: Path, name: str, bundle: Path) -> dict[str, bool]:
    """Scrape the metrics of a server that answers requests. Return for each requirement whether it is met."""
    record = read_records(1)[0] if bundle == BUNDLE else bodies(_columns(bundle), 1)[0]
    with stopping(start_slipway(scratch, free_port(), bundle=bundle)) as server:
        client = _Client(server.port, encode(record))
        client.answer_for(WARM_UP)
        delays, took, text = [], [], b""
        for _ in range(SCRAPES):
            found: list[tuple[int | None, bytes]] = []
            scraping = threading.Thread(target=lambda to=found: to.append(exchange(server.port, "/metrics", None)))
            began = time.monotonic()
            scraping.start()
            during = client.slowest_while(scraping.is_alive)
            took.append(time.monotonic() - began)
            delays.append(1e3 * (during - client.answer_for(took[-1])))
            text = found[0][1]
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    delay, longest = statistics.median(delays), max(delays)
    console.print(
        f"{name}: a scrape of {series} series took {1e3 * statistics.median(took):.1f} ms, and delayed an answer by "
        f"{delay:.1f} ms (the most in {SCRAPES} scrapes: {longest:.1f})."
    )
    return {
        f"{name}: a scrape delays an answer by at most {MOST_DELAY:g} ms ({delay:.1f})": delay <= MOST_DELAY,
        f"{name}: at most {MOST_SERIES} series ({series})": series <= MOST_SERIES,
        f"{name}: at most {MOST_BYTES:,} bytes ({len(text):,})": len(text) <= MOST_BYTES,
    }


class _Client:
    """Sends one request after the other on one connection, and measures the slowest answer in seconds."""

    def __init__(self, port: int, body: bytes) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        self._body = body

    def slowest_while(self, is_going_on: Callable[[], bool]) -> float:
        slowest = 0.0
        while is_going_on() or not slowest:
            started = time.monotonic()
            self._connection.request("POST", "/predict", self._body, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
            slowest = max(slowest, time.monotonic() - started)
            if answer.status != 200:
                raise SlipwayError(f"A record was answered with status {answer.status}.")
        return slowest

    def answer_for(self, seconds: float) -> float:
        end = time.monotonic() + seconds
        return self.slowest_while(lambda: time.monotonic() < end)


if __name__ == "__main__":
    exit_with(main)
