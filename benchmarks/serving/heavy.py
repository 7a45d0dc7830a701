"""Measure heavy models and shared runs: `python -m benchmarks.serving.heavy`, on Linux, with wrk.

Two servers run on one core, and take turns in short rounds: the current version, and an earlier version. Without
`--before`, the second server is the current version without shared runs. Single records are sent over 1, 16 and 64
connections. Each result is a ratio between the two versions: their good answers per second of CPU time, as a median
over the rounds. The champion, two MLPs and an encoder are measured.

Then one request with 1,000 records is sent to the encoder, while a client sends one probe after the other. The slowest
probe and the peak of the server's memory are printed.
"""

import argparse
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.closed_loop import Load, load, write_bodies
from benchmarks.serving.heavy_models import BUNDLES, bodies
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
from slipway.bundle import SCHEMA, Schema
from slipway.errors import SlipwayError
from slipway.integrations.ports import free_port

CHAMPION = "champion"
ENCODER = "encoder, 6 layers"
CONNECTIONS = (1, 16, 64)
WARM_UP = 1.0  # seconds
RECORDS = 1_000
LEAST = {(CHAMPION, 1): 0.97, (CHAMPION, 16): 1.2, ("MLP 2048-2048", 16): 4.0}
MOST_MILLISECONDS = 100.0
MOST_MEGABYTES = 256.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
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
        for name in arguments.only or (CHAMPION, *BUNDLES):
            bundle = BUNDLE if name == CHAMPION else BUNDLES[name](scratch / name)
            sent = records if name == CHAMPION else bodies(_columns(bundle), 256)
            file = write_bodies(scratch / "bodies.txt", [encode(each) for each in sent])
            ratios = _ratios(scratch, bundle, file, arguments)
            table.add_row(name, *(f"{each:.2f}" for each in ratios.values()))
            for connections, ratio in ratios.items():
                least = LEAST.get((name, connections))
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


if __name__ == "__main__":
    exit_with(main)
