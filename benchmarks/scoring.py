"""Measure the speed and the memory of `slipway score`: `python -m benchmarks.scoring`.

A Parquet file with 2 million rows repeats the real rows that the server accepts. `python -m slipway.scoring`, the
command of the batch image, scores the file in its own process on one core. For comparison, ONNX Runtime alone predicts
as many rows on the same core, in chunks of the same size, from tensors that are ready in memory. The times are CPU
times, because other processes on the machine do not change CPU times much. The time for scoring includes the start of
Python. A CSV file is measured too.

Required: scoring needs at most 700 MB of memory. With Parquet, it reaches at least 60% of the rows per second that ONNX
Runtime alone reaches.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.scratch import clone, console, exit_with, require, run_measured
from slipway.errors import SlipwayError

MOST_MEGABYTES = 700
LEAST_SHARE = 0.6
FORMATS = ("parquet", "csv")


@dataclass(frozen=True)
class Cost:
    """The CPU time and the peak memory of a process."""

    seconds: float
    megabytes: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc", "champion.dvc")
        # These steps run in other processes, because on Linux the peak memory of a child is at least the peak of its
        # parent.
        for step in (write_rows, _predict_alone):
            child = get_context("spawn").Process(target=step, args=(repository, Path(folder), rows))
            child.start()
            child.join()
            if child.exitcode:
                raise SlipwayError(f"{step.__name__} failed; see above.")
        alone = float((Path(folder) / "alone").read_text())
        costs = {name: _score(repository, Path(folder), name, rows) for name in FORMATS}
    console.print(f"ONNX Runtime alone: {rows / alone:,.0f} rows per CPU second")
    for name, cost in costs.items():
        share = f"{alone / cost.seconds:.0%} of ONNX Runtime alone"
        console.print(f"{name}: {rows / cost.seconds:,.0f} rows per CPU second, {share}, {cost.megabytes:,.0f} MB")
    parquet = costs["parquet"]
    return require(
        {
            f"{rows:,} rows of {name} need at most {MOST_MEGABYTES} MB ({cost.megabytes:,.0f})": cost.megabytes
            <= MOST_MEGABYTES
            for name, cost in costs.items()
        }
        | {
            f"at least {LEAST_SHARE:.0%} of ONNX Runtime alone ({alone / parquet.seconds:.0%})": alone / parquet.seconds
            >= LEAST_SHARE,
        }
    )


def write_rows(repository: Path, folder: Path, rows: int) -> None:
    """Write rows.parquet and rows.csv, which repeat the real rows of a repository."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    deliveries = [pd.read_csv(path) for path in sorted((repository / "data").glob("*.csv"))]
    sales = pd.concat(deliveries, ignore_index=True).drop(columns="price")
    real = pa.Table.from_pandas(sales.drop_duplicates(), preserve_index=False)
    with (
        pq.ParquetWriter(folder / "rows.parquet", real.schema) as parquet,
        pa.csv.CSVWriter(folder / "rows.csv", real.schema) as text,
    ):
        for start in range(0, rows, len(real)):
            part = real.slice(0, rows - start)
            parquet.write_table(part)
            text.write_table(part)


def _predict_alone(repository: Path, folder: Path, rows: int) -> None:
    """Write the CPU seconds that ONNX Runtime alone needs for all rows to a file."""
    import pyarrow.parquet as pq

    from slipway.scoring.read_part import read_part
    from slipway.scoring.score import CHUNK_ROWS
    from slipway.serving.served_model import ServedModel

    _use_one_core()
    model = ServedModel(repository / "champion", "model", CHUNK_ROWS)
    pq.write_table(pq.read_table(folder / "rows.parquet").slice(0, 16 * CHUNK_ROWS), folder / "few.parquet")
    (block,) = read_part(folder / "few.parquet", "few.parquet", model.schema, ())
    starts = range(0, len(block.rows), CHUNK_ROWS)
    chunks = [model.records.from_columns(block.columns(range(start, start + CHUNK_ROWS))) for start in starts]
    predicted = 0
    start_of_cpu = time.process_time()
    while predicted < rows:
        for chunk in chunks:
            predicted += len(model.run(chunk))
    seconds = (time.process_time() - start_of_cpu) * rows / predicted
    (folder / "alone").write_text(str(seconds))


def _score(repository: Path, folder: Path, name: str, rows: int) -> Cost:
    command = [sys.executable, "-m", "slipway.scoring", "champion", folder / f"rows.{name}", folder / f"out-{name}"]
    usage = run_measured(repository, *command, in_child=_use_one_core)
    if f"{rows:,} of {rows:,} rows scored" not in usage.output:
        raise SlipwayError(f"`slipway score` failed:\n{usage.output}")
    return Cost(usage.cpu_seconds, usage.memory / 1e6)


def _use_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    exit_with(main)
