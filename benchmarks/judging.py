"""Measure the time of a verdict and of decay checks on large data: `python -m benchmarks.judging`.

The scores for one million holdout rows are drawn from the sample's scores, and `slipway gate` judges them. Four
deliveries with 27,000 rows each are drawn from the sample's rows, and moved to later days. The champion is checked for
decay on each delivery, as for a report. Times are CPU seconds, because machines are shared. They include the start of
Python.

Required: at most 5 seconds for the verdict, and at most 15 for the four deliveries.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.scratch import BIN, clone, console, exit_with, require, run_measured
from slipway import artifacts
from slipway.contract import load_model
from slipway.pipeline.columns import DELIVERY, ROW_ID, TIME
from slipway.pipeline.parquet import read_table, write_table

HOLDOUT_ROWS = 1_000_000
HOLDOUT_DAYS = 120
DELIVERIES = 4
DELIVERY_ROWS = 27_000
DELIVERY_DAYS = 30
MOST_SECONDS = {"verdict": 5.0, "decay": 15.0}
CHECK_DECAY = """
import sys
from slipway import artifacts
from slipway.config import load_params
from slipway.contract import load_model
from slipway.review.build_report import check_decay
for check in check_decay(load_params(artifacts.PARAMS), load_model(), sys.argv[1:]):
    print(f"{check.delivery}: {check.reason}.")
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        repository = clone(Path(folder) / "repository", "data.dvc", "champion.dvc")
        _run(repository, BIN / "slipway", "ingest")
        _run(repository, BIN / "dvc", "repro", "--quiet", "--pull", "--allow-missing")
        _enlarge_holdout(repository / artifacts.SCORES)
        verdict = _run(repository, BIN / "slipway", "gate")
        deliveries = _add_deliveries(repository / artifacts.VALIDATED)
        decay = _run(repository, sys.executable, "-c", CHECK_DECAY, *deliveries)
    return require(
        {
            f"verdict on {HOLDOUT_ROWS:,} rows: at most {MOST_SECONDS['verdict']:g} s ({verdict:.1f})": verdict
            <= MOST_SECONDS["verdict"],
            f"decay on {DELIVERIES} deliveries: at most {MOST_SECONDS['decay']:g} s ({decay:.1f})": decay
            <= MOST_SECONDS["decay"],
        }
    )


def _enlarge_holdout(path: Path) -> None:
    scores = read_table(path)
    chosen = np.random.default_rng(0).integers(len(scores), size=HOLDOUT_ROWS)
    large = scores.iloc[chosen].reset_index(drop=True)
    days = pd.to_timedelta(np.arange(HOLDOUT_ROWS) % HOLDOUT_DAYS, unit="D")
    large[TIME] = (scores[TIME].max() - days).astype(scores[TIME].dtype)
    write_table(path, large)


def _add_deliveries(path: Path) -> list[str]:
    """Add deliveries to the validated rows. Return the names of the deliveries."""
    rows, model = read_table(path), load_model()
    random = np.random.default_rng(1)
    parts = [rows]
    for index in range(DELIVERIES):
        part = rows.iloc[random.integers(len(rows), size=DELIVERY_ROWS)].reset_index(drop=True)
        part[ROW_ID] = random.integers(2**63, size=DELIVERY_ROWS).astype(rows[ROW_ID].dtype)
        part[DELIVERY] = f"later-{index}.csv"
        start = 1 + index * DELIVERY_DAYS
        days = pd.to_timedelta(random.integers(start, start + DELIVERY_DAYS, size=DELIVERY_ROWS), unit="D")
        part[model.TIME] = (rows[model.TIME].max() + days).astype(rows[model.TIME].dtype)
        parts.append(part)
    write_table(path, pd.concat(parts, ignore_index=True))
    return [f"later-{index}.csv" for index in range(DELIVERIES)]


def _run(repository: Path, *command: str | os.PathLike[str]) -> float:
    """Run a command in the repository, show its output, and return its CPU seconds."""
    usage = run_measured(repository, *command)
    console.print(usage.output, markup=False)
    return usage.cpu_seconds


if __name__ == "__main__":
    exit_with(main)
