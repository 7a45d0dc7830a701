"""Measure the pipeline with 50 million rows on one machine: `python -m benchmarks.large_data`.

A model is trained on 1 million rows, because `train` has all its rows in memory. With 50 million rows, `validate`,
`split`, `evaluate` and `gate` then run once. The rows are drawn like those of `benchmarks.growth`. The files of 50
million rows need about 20 GB of disk.

Required: each of these stages needs at most 4 GB of memory. The time has no limit and is printed.
"""

import argparse
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks.growth import allow_faults, generate, move_real_rows, run
from benchmarks.scratch import clone, console, exit_with, require

MOST_GIGABYTES = 4.0
STAGES = ("validate", "split", "evaluate", "gate")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000, help="Rows of all deliveries.")
    parser.add_argument("--training-rows", type=int, default=1_000_000, help="Rows that the model is trained on.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc", "champion.dvc")
        real = move_real_rows(repository, Path(folder) / "real")
        allow_faults(repository / "params.yaml")
        generate(real, repository / "data", options.training_rows)
        for stage in ("validate", "split", "train"):
            run(stage, repository)
        generate(real, repository / "data", options.rows)
        size = sum(file.stat().st_size for file in (repository / "data").iterdir()) / 1e9
        console.print(f"[dim]{options.rows:,} rows are {size:.1f} GB of CSV[/]")
        costs = {}
        for stage in STAGES:
            costs[stage] = run(stage, repository)
            console.print(f"[dim]{stage} took {costs[stage].seconds:.0f} seconds[/]")
    table = Table("slipway", "seconds", "CPU seconds", "GB", box=None, padding=(0, 2, 0, 0))
    for stage, cost in costs.items():
        table.add_row(stage, f"{cost.seconds:.0f}", f"{cost.cpu_seconds:.0f}", f"{cost.gigabytes:.2f}")
    console.print(table)
    return require(
        {
            f"{stage}: at most {MOST_GIGABYTES:g} GB ({cost.gigabytes:.2f})": cost.gigabytes <= MOST_GIGABYTES
            for stage, cost in costs.items()
        }
    )


if __name__ == "__main__":
    exit_with(main)
