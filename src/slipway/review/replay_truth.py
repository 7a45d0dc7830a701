"""Compare champion and challenger on replayed requests whose truth is in the log's column `truth`.

Requests for rows that a model was trained on are left out. The comparison therefore requires that the log and both
models identify rows by the same key.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from slipway.bundle import Bundle, Schema
from slipway.config import Params
from slipway.integrations.log_store import KNOWN_AT, RECORD, TRUTH
from slipway.pipeline.columns import GROUP, TIME
from slipway.pipeline.gate import compare, mean_by_block
from slipway.pipeline.logged_rows import logged_rows
from slipway.pipeline.measure import Measure
from slipway.pipeline.row_ids import ids_of_keys
from slipway.review.report import ReplayTruth
from slipway.serving.log_segments import Header

HASH = "^[0-9a-f]{16}$"
ID = "row_id"
"""The column with the id of the requested row. The id is missing if the log does not identify rows."""


def truth_columns(table: pa.Table, header: Header | None, key: tuple[str, ...], before: date) -> pd.DataFrame:
    """Return the columns `TRUTH` and `ID` of a log file. Unusable values become missing values.

    A truth that became known on the day `before` or later becomes a missing value, so that a repeated replay gives the
    same result.
    """
    rows = pd.DataFrame({TRUTH: pd.Series([None] * len(table), dtype=object), ID: None})
    if {TRUTH, KNOWN_AT} <= {*table.column_names}:
        known = pd.to_datetime(table[KNOWN_AT].to_pandas(), errors="coerce", utc=True, format="ISO8601")
        rows[TRUTH] = table[TRUTH].to_pandas().astype(object).where(known < pd.Timestamp(before, tz="UTC"), None)
    if _is_identified(header, key):
        keys = table["key"].cast(pa.string())
        rows[ID] = pc.if_else(pc.match_substring_regex(keys, HASH), keys, None).to_pandas().astype(object)
    return rows


def compare_with_truth(
    rows: pd.DataFrame,
    before: NDArray[np.float32],
    now: NDArray[np.float32],
    models: Sequence[Bundle],
    params: Params,
    measure: Measure,
) -> ReplayTruth | None:
    """Return the losses of each model on the rows whose truth is known. Return None if there is no such row.

    `rows` has the columns of `truth_columns` and of the log. `before` has the predictions of the champion
    (`models[0]`), and `now` has the challenger's predictions.
    """
    truth = _truth(rows[TRUTH], models[0].schema)
    known = np.isfinite(truth)
    if not known.any():
        return None
    old, new = models
    if reason := _why_not_comparable(rows, old.schema, new.schema, params):
        return _not_compared(known, reason)
    known &= rows[ID].notna().to_numpy()
    if not known.any():
        return _not_compared(np.isfinite(truth), "requests do not show whether a model was trained on their rows")
    ids = ids_of_keys(rows[ID][known])
    trained = old.was_trained_on(ids) | new.was_trained_on(ids)
    chosen = np.flatnonzero(known)[~trained]
    records = measure.features(logged_rows(rows.iloc[chosen].reset_index(drop=True), new.schema.columns))
    losses = [
        measure.losses(truth[chosen], each[chosen].astype(np.float64), records, model.schema.decision)
        for each, model in ((before, old), (now, new))
    ]
    defined = np.isfinite(losses[0]) & np.isfinite(losses[1]) & measure.is_defined(truth[chosen])
    losses, chosen = [each[defined] for each in losses], chosen[defined]
    if not len(chosen):
        return _not_compared(known, "a model was trained on their rows")
    group = params.split.column
    blocks = pd.DataFrame({TIME: rows["time"].iloc[chosen].dt.tz_localize(None).to_numpy()})
    if group:
        blocks[GROUP] = rows[RECORD + group].iloc[chosen].astype("str").to_numpy()
    gain = compare(mean_by_block(losses[0] - losses[1], blocks), params.gate.confidence)
    return ReplayTruth(
        requests=len(chosen),
        trained_on=int(trained.sum()),
        champion=float(losses[0].mean()),
        challenger=float(losses[1].mean()),
        difference=gain.difference,
        interval=gain.interval,
        confidence=gain.confidence,
    )


def _why_not_comparable(rows: pd.DataFrame, old: Schema, new: Schema, params: Params) -> str | None:
    """Return the reason why the losses of two models on replayed requests cannot be compared, or None."""
    if (old.row_ids, old.target, old.classes) != (new.row_ids, new.target, new.classes):
        return "the models differ in KEY, TARGET or classes"
    if params.task.weight is not None:
        return "the weights of requests are not known"
    group = params.split.column
    if group and RECORD + group not in rows:
        return f"requests lack the column {group}, by which rows are grouped"
    return None


def _not_compared(known: NDArray[np.bool_], reason: str) -> ReplayTruth:
    return ReplayTruth(
        requests=int(known.sum()),
        trained_on=0,
        champion=0.0,
        challenger=0.0,
        difference=0.0,
        interval=None,
        confidence=0.0,
        unavailable=reason,
    )


def _is_identified(header: Header | None, key: tuple[str, ...]) -> bool:
    """Return whether a file's key hashes are row ids of the columns `key`. Hashes with a secret are not row ids."""
    return header is not None and not header.keyed and tuple(each.name for each in header.key) == key


def _truth(values: "pd.Series[Any]", schema: Schema) -> NDArray[np.float64]:
    """Convert true values to numbers, or to positions of classes. Unknown and unusable values become NaN."""
    if schema.classes:
        positions = {name: float(i) for i, name in enumerate(schema.classes)}
        return np.array([positions.get(each, np.nan) if isinstance(each, str) else np.nan for each in values])
    found: NDArray[np.float64] = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return found
