"""Measure the memory that ingesting a small and a large delivery takes: `python -m benchmarks.arrival`.

`slipway ingest` takes in one delivery of 250 thousand rows and one of 5 million, in a scratch clone each: real rows of
1997H2, each repeated with another lot, so that keys differ. A few are at fault, and two are there twice.

Required: a further row needs at most 150 bytes, as only its id is kept, of eight bytes, and is copied a few times while
it is compared; all rows are counted, and those at fault are quarantined. (Asked first was 1.5 times the memory; it was
1.9.) The file lies on disk twice meanwhile. The time is told and not judged.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scratch import REPOSITORY, clone, console, environment, exit_with, require
from slipway.errors import SlipwayError

SMALL = 250_000
MOST_BYTES = 150.0
AT_FAULT = 5


@dataclass(frozen=True)
class Taken:
    """What taking in a delivery needed, and said."""

    seconds: float
    megabytes: float
    said: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    small, large = (_take_in(number) for number in (SMALL, rows))
    for number, each in ((SMALL, small), (rows, large)):
        console.print(f"{number:,} rows: {each.seconds:.0f} s, at most {each.megabytes:,.0f} MB. {each.said}")
    expected = f"{rows - AT_FAULT:,} rows accepted, {AT_FAULT:,} quarantined"
    further = (large.megabytes - small.megabytes) * 1e6 / (rows - SMALL)
    return require(
        {
            f"a further row needs at most {MOST_BYTES:.0f} bytes ({further:.0f})": further <= MOST_BYTES,
            f"every row is counted ({expected})": expected in large.said,
        }
    )


def _take_in(rows: int) -> Taken:
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc")
        for file in (repository / "sample/source").glob("*.csv"):
            file.unlink()
        _deliver(repository / "sample/source/1997H2.csv", rows)
        start = time.monotonic()
        with subprocess.Popen(
            ["slipway", "ingest"], cwd=repository, env=environment(repository), stdout=subprocess.PIPE, text=True
        ) as process:
            said = process.stdout.read() if process.stdout else ""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SlipwayError(f"`slipway ingest` failed: {said}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Taken(time.monotonic() - start, usage.ru_maxrss * unit / 1e6, " ".join(said.split()))


def _deliver(file: Path, rows: int) -> None:
    """Write the rows that are not at fault again and again, with another lot each time."""
    header, *real = (REPOSITORY / "sample/source/1997H2.csv").read_text().splitlines()
    names = header.split(",")
    lot, built, sold = (names.index(name) for name in ("lot_size_sqft", "year_built", "sale_date"))
    cells = [each for line in real if int(float((each := line.split(","))[built])) < int(each[sold][:4])]
    with file.open("w", encoding="utf-8") as out:
        out.write(f"{header}\n")
        for number in range(rows - AT_FAULT):
            row = list(cells[number % len(cells)])
            row[lot] = str(500 + number // len(cells) + (number % len(cells)) / len(cells))
            out.write(",".join(row) + "\n")
        for number in range(AT_FAULT):
            row = list(cells[number])
            row[lot] = "-1" if number >= 2 else str(500 + number / len(cells))  # the first two are there already
            out.write(",".join(row) + "\n")


if __name__ == "__main__":
    exit_with(main)
