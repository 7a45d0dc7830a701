"""split: divide the validated rows into training rows and holdout rows → build/split/."""

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from slipway import artifacts
from slipway.config import Params, Split
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.parquet import TableWriter, column_names, read_parts, read_table
from slipway.pipeline.row_ids import hash_rows

Mask = NDArray[np.bool_]


def run(params: Params, model: Model) -> tuple[int, int]:
    """Split the validated rows, and return the number of training rows and of holdout rows."""
    known = column_names(artifacts.VALIDATED)
    rows = read_table(
        artifacts.VALIDATED, [name for name in known if name in (ROW_ID, model.TIME, params.split.column)]
    )
    training, holdout = masks(rows, params.split, model)
    if not training.any() or not holdout.any():
        raise InputError(
            f"params.yaml: `split` gives {training.sum()} of {len(rows)} rows to training and {holdout.sum()} to the "
            "holdout; both parts need rows, so change `split.days`, `split.gap_days` or `split.share`."
        )
    with TableWriter(artifacts.TRAINING) as first, TableWriter(artifacts.HOLDOUT) as second:
        start = 0
        for group in read_parts(artifacts.VALIDATED):
            for writer, chosen in ((first, training), (second, holdout)):
                writer.add(group.filter(pa.array(chosen[start : start + len(group)])))
            start += len(group)
    return int(training.sum()), int(holdout.sum())


def masks(rows: pd.DataFrame, split: Split, model: Model) -> tuple[Mask, Mask]:
    """Return the masks of the training rows and of the holdout rows.

    The masks depend on `split.by`. With `time`, the newest `days` days are held out, and the `gap_days` days before
    them are not used. With `key`, the hash of a row's key decides whether the row is held out. With `group`, the hash
    of its group decides, so a group is never divided. With `key` or `group`, a row stays on its side of the split when
    data is added. With `time_and_group`, the newest days of some groups are held out. The older days of all other
    groups are training rows, and no other rows are used.
    """
    if split.column is not None and split.column not in rows.columns:
        raise InputError(f"params.yaml: `split.column` is {split.column!r}, but the data has no such column; name one.")
    if split.by == "time":
        return _by_time(rows, split, model)
    chosen = by_hash(rows, split)
    if split.by != "time_and_group":
        return ~chosen, chosen
    old, new = _by_time(rows, split, model)
    return old & ~chosen, new & chosen


def by_hash(rows: pd.DataFrame, split: Split) -> Mask:
    """Return the mask of the rows that are held out by the hash of their key or group, regardless of their time.

    If `split.by` is `time`, the mask includes all rows.
    """
    if split.by == "time":
        return np.ones(len(rows), dtype=bool)
    hashes = hash_rows([rows[split.column]]) if split.by_group else rows[ROW_ID].to_numpy()
    chosen: Mask = hashes / 2.0**64 < split.share
    return chosen


def _by_time(rows: pd.DataFrame, split: Split, model: Model) -> tuple[Mask, Mask]:
    if model.TIME is None:
        raise InputError(
            f"params.yaml: `split.by` is {split.by} and the model has no TIME column; split by key or group."
        )
    day = rows[model.TIME].dt.normalize()
    first = day.max() - pd.Timedelta(days=split.days - 1)
    old = day < first - pd.Timedelta(days=split.gap_days)
    return old.to_numpy(), (day >= first).to_numpy()
