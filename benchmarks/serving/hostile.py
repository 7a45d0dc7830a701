"""Post bodies that the server must refuse, and print its memory: `python -m benchmarks.serving.hostile`, on Linux.

The bodies come from tests/slipway/serving/test_arrays.py: decompression bombs, truncated and mislabelled images,
invalid base64, and vectors with a wrong length or wrong numbers. Some are larger than the server's limit. The memory at
the end is compared with the memory after the first twentieth of the bodies, when each code path has run.
"""

import argparse
import http.client
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.scratch import console, exit_with, require
from benchmarks.serving.processes import Server, free_port, start_slipway, stopping, take_load_core
from slipway.errors import SlipwayError

BODIES = 100_000
MAX_GROWTH = 1.05
"""Maximum ratio of the resident memory at the end to the resident memory after the first bodies."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=BODIES, help="number of bodies to post")
    count: int = parser.parse_args().bodies
    with tempfile.TemporaryDirectory() as folder:
        bundle, bodies = _hostile(Path(folder))
        take_load_core()
        with stopping(start_slipway(Path(folder), free_port(), bundle=bundle)) as server:
            began = time.monotonic()
            memory, statuses = _post(server, bodies, count)
            seconds = time.monotonic() - began
    table = Table("bodies", "resident MB")
    for posted, megabytes in memory.items():
        table.add_row(f"{posted:,}", f"{megabytes:.1f}")
    console.print(table)
    console.print(
        f"{count:,} bodies of {len(bodies)} kinds in {seconds:.0f} s; statuses: {dict(sorted(statuses.items()))}"
    )
    first, *_, last = list(memory.values())[1:]
    return require(
        {
            "every body is refused with 4xx": all(400 <= status < 500 for status in statuses),
            f"memory grows by at most {MAX_GROWTH - 1:.0%} (from {first:.1f} to {last:.1f} MB)": last
            <= MAX_GROWTH * first,
        }
    )


def _hostile(folder: Path) -> tuple[Path, list[bytes]]:
    """Write a bundle with vectors and an image. Return its folder, and bodies that its server must refuse."""
    try:
        from tests.slipway.serving.arrays import ROW, write_bundle
        from tests.slipway.serving.test_arrays import HOSTILE
    except ModuleNotFoundError:
        raise SlipwayError("tests/slipway/ is missing; run this benchmark in a clone of the template.") from None
    bodies = [json.dumps(ROW | {column: value}).encode() for column, value, _ in HOSTILE.values()]
    bodies += [body.replace(b"4.5", number) for number in (b"NaN", b"1e999") for body in bodies[:1]]
    bundle = folder / "bundle"
    bundle.mkdir()
    return write_bundle(bundle), [*bodies, b"[" + b"1," * 5_000_000 + b"1]"]


def _post(server: Server, bodies: Sequence[bytes], count: int) -> tuple[dict[int, float], Counter[int]]:
    """Post bodies in turn on one connection. Return the memory by the number of posted bodies, and all statuses."""
    memory, statuses = {0: server.resident_megabytes()}, Counter[int]()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    step = max(1, count // 20)
    for posted in range(1, count + 1):
        body = bodies[posted % len(bodies)]
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        except ConnectionError:  # the server answers 413 and closes before it has read a body that is too large
            statuses[413] += 1
            connection.close()
        if posted % step == 0:
            memory[posted] = server.resident_megabytes()
    connection.close()
    return memory, statuses


if __name__ == "__main__":
    exit_with(main)
