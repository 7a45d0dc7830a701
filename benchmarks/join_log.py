"""Measure memory and time of `slipway join`: `python -m benchmarks.join_log`, on Linux.

The log contains real records from the newest deliveries, in random order, with the champion's predictions. Every row
has a label with its request id. A separate process joins log and labels, and checks the champion for decay. It does so
with each engine in turn: in one process, and with `compute.processes`. Memory is measured twice a second for the
process and its children together. Memory that they share, such as the labels, counts once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scratch import REPOSITORY, console, exit_with, require
from benchmarks.serving.processes import BUNDLE, cpu_seconds, resident_megabytes
from benchmarks.serving.records import read_records
from slipway.bundle import load_bundle
from slipway.errors import SlipwayError
from slipway.monitoring.log_tables import file_name, to_parquet, to_table
from slipway.pipeline.tensors import features, tensors
from slipway.serving.log_segments import METADATA_KEY, Account, Block, Header, LoggedColumn, Segment, header_in

LOWEST_PRICE = 1_000
FILE_ROWS = 20_000
DAYS = 90
MOST_GIGABYTES = 2.0
JOIN = """
import hashlib, json, sys
from datetime import date
from pathlib import Path
from slipway.artifacts import Holdout, Release
from slipway.bundle import load_bundle
from slipway.config import load_params
from slipway.contract import load_model
from slipway.integrations.compute import Engine
from slipway.integrations.label_source import LabelSource
from slipway.integrations.log_store import LogStore
from slipway.monitoring import join_log
from slipway.pipeline.decay import AtRelease
bundle = load_bundle(Path(sys.argv[4]))
holdout = Holdout(rows=1_000, first=None, last=None)
release = Release(champion=bundle.hash, loss="mean_absolute_error", value=1e4, holdout=holdout)
labels = LabelSource(sys.argv[2])
champion = AtRelease(release, bundle, None, bundle.training_rows())
live = join_log.run(load_params(Path(sys.argv[3])), load_model(), date.today(), LogStore(sys.argv[1]), labels,
                    bundle=bundle, champion=champion, engine=Engine(int(sys.argv[5])))
digest = hashlib.blake2b(join_log.LIVE.read_bytes())
for path in sorted(join_log.JOINED.rglob("*.parquet")):
    digest.update(path.read_bytes())
print(json.dumps([live.counts.joined, sum(each.different for each in live.skew), live.decay.found.whole.rows,
                  digest.hexdigest()]))
"""


@dataclass(frozen=True)
class Join:
    """One run of the join. `digest` is a hash of everything that it wrote."""

    joined: int
    different: int
    judged: int
    digest: str
    cpu_seconds: float
    gigabytes: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="number of logged rows")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes, in turn")
    arguments = parser.parse_args()
    rows = arguments.rows
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder) / "log", Path(folder) / "labels", rows)
        found = {processes: join(Path(folder), processes) for processes in arguments.processes}
    requirements = {"every engine writes the same bytes": len({each.digest for each in found.values()}) == 1}
    for processes, each in found.items():
        console.print(f"{processes} processes: {rows:,} rows joined with {each.cpu_seconds:,.0f} seconds of CPU")
        requirements |= {
            f"{processes} processes: every row has its truth ({each.joined:,})": each.joined == rows,
            f"{processes} processes: no answer differs ({each.different:,})": each.different == 0,
            f"{processes} processes: decay is judged ({each.judged:,} rows)": each.judged > 0,
            f"{processes} processes: at most {MOST_GIGABYTES:g} GB of memory ({each.gigabytes:.2f})": each.gigabytes
            <= MOST_GIGABYTES,
        }
    return require(requirements)


def join(scratch: Path, processes: int) -> Join:
    used = most = 0.0
    paths = [scratch / "log", scratch / "labels", REPOSITORY / "params.yaml", BUNDLE]
    command = [sys.executable, "-c", JOIN, *paths, str(processes)]
    with subprocess.Popen(command, cwd=scratch, stdout=subprocess.PIPE, text=True) as running:
        while running.poll() is None:
            most, used = max(most, resident_megabytes(running.pid) / 1e3), max(used, cpu_seconds(running.pid))
            time.sleep(0.5)
        out = running.stdout.read() if running.stdout else ""
    if running.returncode:
        raise SlipwayError("The join failed; the error is above.")
    return Join(*json.loads(out), cpu_seconds=used, gigabytes=most)


def write_log(log: Path, labels: Path, rows: int) -> None:
    """Write the files of a log, with at most `FILE_ROWS` rows each, and a file of labels for each of them."""
    random, records = np.random.default_rng(0), _records()
    labels.mkdir()
    start = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - first)
        day = start + 86_400 * (number * DAYS * FILE_ROWS // rows)
        name = datetime.fromtimestamp(day, UTC).date().isoformat()
        header = msgspec.structs.replace(header_in(records.schema.metadata), day=name, number=number, rows=count)
        changed = {
            "time": pa.array(((day + np.arange(count)) * 1e6).astype(np.int64), pa.timestamp("us", "UTC")),
            "request_id": pa.array([f"request-{first + i}" for i in range(count)]),
        }
        table = records.take(pa.array(random.integers(0, len(records), count)))
        columns = {name: changed.get(name, table[name]) for name in table.column_names}
        path = log / file_name(header)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            to_parquet(pa.table(columns).replace_schema_metadata({METADATA_KEY: msgspec.json.encode(header)}))
        )
        truth = {
            "request_id": changed["request_id"],
            # A truth below the minimum of the schema would be invalid.
            header.outputs[0]: np.maximum(table["answer"].to_numpy() + random.normal(0, 1e4, count), LOWEST_PRICE),
            "known_at": pa.array([name]).take(pa.array(np.zeros(count, dtype=np.int64))),
        }
        pq.write_table(pa.table(truth), labels / f"{number:08}.parquet")


def _records() -> pa.Table:
    """Return real records with the champion's predictions, as a table of a log."""
    bundle, records = load_bundle(BUNDLE), pd.DataFrame(read_records(1_000))
    dates = [column.name for column in bundle.schema.columns if column.type == "date"]
    frame = records.assign(**{name: pd.to_datetime(records[name]) for name in dates})
    answers = bundle.predict(tensors(features(frame, bundle.schema), bundle.schema))
    columns = tuple(LoggedColumn(column.name, column.type) for column in bundle.schema.columns)
    outputs, rows = (bundle.schema.target,), len(records)
    header = Header(bundle.hash, "model", "2026-01-01", "0", 0, rows, columns, outputs, (), False, Account())
    values = [records[column.name].to_numpy(dtype=object).tolist() for column in columns]
    block = Block([("", 0.0, 0.001)], [0] * rows, [0] * rows, None, values, answers.tobytes())
    return to_table(Segment(header, (block,)))


if __name__ == "__main__":
    exit_with(main)
