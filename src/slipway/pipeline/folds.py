"""Divide the training rows into folds, so that settings can be compared without the holdout."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.config import Split
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.row_ids import hash_rows

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Fold:
    """Masks of the training rows: the rows to fit a model on, and the rows to compare models on."""

    training: Mask
    validation: Mask


def make_folds(rows: pd.DataFrame, split: Split, model: Model, count: int) -> tuple[Fold, ...]:
    """Return folds of the training rows that imitate the split between training rows and holdout.

    If `split.by` is `group`, each fold compares models on a different set of groups. Otherwise, if rows have a time,
    each fold compares models on some days, and fits models on the days before. The last fold compares models on the
    newest days. If the split is by time, a fold compares models on at most `split.days` days. With `time_and_group`,
    the rows of a group are never on both sides of a fold. If rows have no time, each row is assigned to a fold by the
    hash of its key.

    Raises InputError if a fold has no rows to fit on or to compare on.
    """
    groups = _numbers(hash_rows([rows[split.column]]), count) if split.by_group else None
    if split.by == "group" or model.TIME is None:
        numbers = _numbers(rows[ROW_ID].to_numpy(), count) if groups is None else groups
        folds = tuple(Fold(numbers != number, numbers == number) for number in range(count))
    else:
        folds = tuple(_rolling(rows[model.TIME], split, groups, count))
    for number, fold in enumerate(folds, start=1):
        if not fold.training.any() or not fold.validation.any():
            raise InputError(
                f"params.yaml: `tune.folds` is {count}, but fold {number} has {fold.training.sum()} rows to fit on and "
                f"{fold.validation.sum()} to compare on; use fewer folds, or deliver more rows."
            )
    return folds


def _numbers(hashes: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    return hashes % np.uint64(count)


def _rolling(
    times: "pd.Series[pd.Timestamp]", split: Split, groups: NDArray[np.uint64] | None, count: int
) -> Iterator[Fold]:
    day = times.to_numpy().astype("datetime64[D]").astype(np.int64)
    length = max(1, (int(day.max() - day.min()) + 1) // (count + 1))
    if split.by_time:
        length = min(length, split.days)
    for number in range(count):
        last = day.max() - (count - 1 - number) * length
        first = last - length + 1
        training, validation = day < first - split.gap_days, (day >= first) & (day <= last)
        if groups is not None:
            training, validation = training & (groups != number), validation & (groups == number)
        yield Fold(training, validation)
