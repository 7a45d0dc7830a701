"""split: build/validated.parquet → build/split/{training,holdout}.parquet."""

import numpy as np
import pandas as pd

from slipway import artifacts
from slipway.config import Params, Split
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.parquet import read_table, write_table
from slipway.pipeline.row_ids import hash_rows


def run(params: Params, model: Model) -> tuple[int, int]:
    """Split the validated rows; returns how many are for training and how many are held out."""
    rows = read_table(artifacts.VALIDATED)
    held_out = holdout_mask(rows, params.split, model)
    if held_out.all() or not held_out.any():
        raise InputError(
            f"params.yaml: `split` puts {held_out.sum()} of {len(rows)} rows into the holdout; "
            "both parts need rows, so change `split.days` or `split.share`."
        )
    for path, part in ((artifacts.TRAINING, rows[~held_out]), (artifacts.HOLDOUT, rows[held_out])):
        write_table(path, part)
    return int((~held_out).sum()), int(held_out.sum())


def holdout_mask(rows: pd.DataFrame, split: Split, model: Model) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows are held out.

    By time, the newest `days` days. By key or group, a row's hash decides, so that a row stays on its side
    of the split when data is added, and a group is never torn apart.
    """
    if split.by == "time":
        if model.TIME is None:
            raise InputError("params.yaml: `split.by` is time and the model has no TIME column; split by key or group.")
        day = rows[model.TIME].dt.normalize()
        newest: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
            day > day.max() - pd.Timedelta(days=split.days)
        ).to_numpy()
        return newest
    if split.by == "key":
        hashes = rows[ROW_ID].to_numpy()
    else:
        if split.column not in rows.columns:
            raise InputError(
                f"params.yaml: `split.column` is {split.column!r}, which is no column of the data; name one."
            )
        hashes = hash_rows([rows[split.column]])
    chosen: np.ndarray[tuple[int], np.dtype[np.bool_]] = hashes / 2.0**64 < split.share
    return chosen
