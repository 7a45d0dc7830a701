"""Measure memory and time of `slipway join`: `python -m benchmarks.join_log`.

The log contains real records from the newest deliveries, in random order, with the champion's predictions. Every row
has a label with its request id. A separate process joins log and labels, and checks the champion for decay.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scratch import REPOSITORY, console, exit_with, require
from benchmarks.serving.processes import BUNDLE
from benchmarks.serving.records import read_records
from slipway.bundle import load_bundle
from slipway.monitoring.log_tables import to_parquet, to_table
from slipway.pipeline.tensors import features, tensors
from slipway.serving.log_segments import Account, Block, Header, LoggedColumn, Segment

FILE_ROWS = 20_000
DAYS = 90
MOST_GIGABYTES = 2.0
JOIN = """
import json, resource, sys
from pathlib import Path
from slipway.artifacts import Holdout, Release
from slipway.bundle import load_bundle
from slipway.config import load_params
from slipway.contract import load_model
from slipway.integrations.log_store import LogStore
from slipway.monitoring import join_log
from slipway.pipeline.decay import AtRelease
bundle = load_bundle(Path(sys.argv[4]))
holdout = Holdout(rows=1_000, first=None, last=None)
release = Release(champion=bundle.hash, loss="mean_absolute_error", value=1e4, holdout=holdout)
live = join_log.run(load_params(Path(sys.argv[3])), load_model(), LogStore(sys.argv[1]), sys.argv[2], bundle, None,
                    AtRelease(release, bundle, None, bundle.training_rows()))
print(live.counts.joined, sum(each.different for each in live.skew), live.decay.found.whole.rows,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="number of logged rows")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        write_log(scratch / "log", scratch / "labels", rows)
        began = time.monotonic()
        paths = [scratch / "log", scratch / "labels", REPOSITORY / "params.yaml", BUNDLE]
        done = subprocess.run(
            [sys.executable, "-c", JOIN, *paths], cwd=scratch, capture_output=True, text=True, check=True
        )
        seconds = time.monotonic() - began
        shutil.rmtree(scratch / "log")
    joined, different, judged, gigabytes = map(float, done.stdout.split())
    console.print(f"{rows:,} rows joined in {seconds:,.0f} s")
    return require(
        {
            f"every row has its truth ({joined:,.0f})": joined == rows,
            f"no answer differs ({different:,.0f})": different == 0,
            f"decay is judged ({judged:,.0f} rows)": judged > 0,
            f"at most {MOST_GIGABYTES:g} GB of memory ({gigabytes:.2f})": gigabytes <= MOST_GIGABYTES,
        }
    )


def write_log(log: Path, labels: Path, rows: int) -> None:
    bundle, random = load_bundle(BUNDLE), np.random.default_rng(0)
    records = pd.DataFrame(read_records(1_000))
    dates = [column.name for column in bundle.schema.columns if column.type == "date"]
    frame = records.assign(**{name: pd.to_datetime(records[name]) for name in dates})
    answers = bundle.predict(tensors(features(frame, bundle.schema), bundle.schema))
    columns = tuple(LoggedColumn(column.name, column.type) for column in bundle.schema.columns)
    labels.mkdir()
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        chosen = random.integers(0, len(records), min(FILE_ROWS, rows - first))
        day = number * DAYS * FILE_ROWS // rows
        requests = [(f"request-{first + i}", start + 86_400 * day + i, 0.001) for i in range(len(chosen))]
        values = [records[column.name].to_numpy(dtype=object)[chosen].tolist() for column in columns]
        name = datetime.fromtimestamp(start + 86_400 * day, UTC).date().isoformat()
        header = Header(
            bundle.hash, "model", name, "0", number, len(chosen), columns, (bundle.schema.target,), (), False, Account()
        )
        block = Block(requests, [*range(len(chosen))], [0] * len(chosen), None, values, answers[chosen].tobytes())
        path = log / f"day={name}/bundle={bundle.hash}/0-{number:08}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_parquet(to_table(Segment(header, (block,)))))
        truth = {
            "request_id": [request_id for request_id, _, _ in requests],
            bundle.schema.target: answers[chosen, 0] + random.normal(0, 1e4, len(chosen)),
            "known_at": [name] * len(chosen),
        }
        pq.write_table(pa.table(truth), labels / f"{number:08}.parquet")


if __name__ == "__main__":
    exit_with(main)
