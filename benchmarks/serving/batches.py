"""Measure refused batches: `python -m benchmarks.serving.batches`.

Eight clients send batches with 1,000 records. Each client sends its next batch after the answer to the last batch. So
at most eight batches wait at once, which the server can answer in time. The share of answers with status 503 is
printed. It depends little on the machine, because the server measures waiting work in CPU time.
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.processes import start_slipway, stopping, take_load_core
from benchmarks.serving.records import encode, read_records
from slipway.integrations.ports import free_port
from slipway.release.load_client import CLIENTS, LoadClient

RECORDS = 1_000
MOST_REFUSED = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help=f"number of clients, a multiple of {CLIENTS}")
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of the load")
    parser.add_argument("--max-wait", help="another value for SLIPWAY_MAX_WAIT")
    arguments = parser.parse_args()
    take_load_core()
    records = read_records(4 * RECORDS)
    bodies = [encode(records[i : i + RECORDS]) for i in range(0, len(records), RECORDS)]
    settings = {"max_wait": arguments.max_wait} if arguments.max_wait else {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(stopping(start_slipway(Path(folder), free_port(), **settings)))
        loads = [
            stack.enter_context(LoadClient(server.port, bodies).sending()) for _ in range(arguments.clients // CLIENTS)
        ]
        time.sleep(arguments.seconds)
        outcomes = [outcome for load in loads for outcome in load.outcomes]
    counts = Counter(outcome.failure or "status 200" for outcome in outcomes)
    for answer, count in counts.most_common():
        console.print(f"{answer:<12} {count:>8,} {count / len(outcomes):>8.1%}")
    refused = counts["status 503"] / len(outcomes)
    others = counts.keys() - {"status 200", "status 503"}
    return require(
        {
            f"less than {MOST_REFUSED:.0%} of the batches of {arguments.clients} clients are refused": refused
            < MOST_REFUSED,
            "all other batches are answered": not others,
        }
    )


if __name__ == "__main__":
    exit_with(main)
