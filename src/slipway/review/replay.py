"""Replay logged production requests, and compare the challenger's answers with the champion's.

The requests come from the newest days before the day of the judged commit, so that a second run gives the same result.
Logged values are untrusted. The result contains only numbers, dates and short slice labels.
"""

import io
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slipway.bundle import Bundle, Schema, Tensors, load_bundle
from slipway.config import Params
from slipway.config import Replay as ReplaySettings
from slipway.contract import Model
from slipway.errors import InputError
from slipway.integrations.log_store import DAY, RECORD, LogStore
from slipway.pipeline.measure import measure_of
from slipway.pipeline.slices import slice_labels
from slipway.review.replay_truth import compare_with_truth, truth_columns
from slipway.review.report import Replay, ReplaySlice
from slipway.serving.problems import Problem, pointer
from slipway.serving.records import Records

BATCH = 1_000
MAX_SLICES = 8
MAX_LABEL = 100
IDENTITY = ["time", "request_id", "row"]
Predictions = NDArray[np.float32]


def replay(
    params: Params, champion: Path, challenger: Path, before: date, model: Model, *, is_fork: bool
) -> Replay | None:
    """Replay the log that `replay` in params.yaml names. Return None if `replay` is not set, or without a champion.

    A pull request from a fork of the repository gets no replay, because its author must not see requests. If the log
    cannot be read or replayed, the result contains the reason.
    """
    if is_fork or params.replay is None or not champion.is_dir():
        return None
    old, new = load_bundle(champion), load_bundle(challenger)
    private = [column.name for column in old.schema.columns if column.private in ("drop", "hash")]
    if private:
        return _unavailable(params.replay, f"the column {private[0]} is private")
    try:
        rows = _newest(LogStore(params.replay.log), params.replay.requests, before, old.schema.key)
    except InputError as error:
        return _unavailable(params.replay, str(error))
    if rows.empty:
        return _unavailable(params.replay, f"it has no request from before {before}")
    return _compare(rows, old, new, params, params.replay, model)


def _unavailable(settings: ReplaySettings, reason: str) -> Replay:
    return Replay(
        requests=0,
        first=None,
        last=None,
        refused=0,
        moved=0.0,
        changes=(0.0, 0.0, 0.0),
        slices=(),
        feedback=settings.feedback,
        unavailable=reason[:2_000],
    )


def _newest(store: LogStore, count: int, before: date, key: tuple[str, ...]) -> pd.DataFrame:
    """Return logged records from the newest days, with the columns that identify a request, and with the truth.

    The files of a day are read in a random order that depends only on their names, until `count` rows are found. The
    rows therefore do not come from the first servers only.
    """
    names = [name for name in store.files() if name.startswith(DAY) and name[len(DAY) :][:10] < before.isoformat()]
    names.sort(key=lambda name: (name.partition("/")[0], blake2b(name.encode()).digest()), reverse=True)
    parts, rows = [], 0
    for name in names:
        if rows >= count:
            break
        parts.append(_read(store, name, before, key))
        rows += len(parts[-1])
    if not parts:
        return pd.DataFrame(columns=IDENTITY)
    found = pd.concat(parts, ignore_index=True).sort_values(IDENTITY, kind="stable", ignore_index=True)
    return found.tail(count).reset_index(drop=True)


def _read(store: LogStore, name: str, before: date, key: tuple[str, ...]) -> pd.DataFrame:
    content = store.read(name)
    try:
        table = pq.read_table(io.BytesIO(content))
        columns = [each for each in table.column_names if each.startswith(RECORD)]
        rows = table.select([*IDENTITY, *columns]).to_pandas()
        return pd.concat([rows, truth_columns(table, key, before)], axis=1)
    except (OSError, ValueError, KeyError):  # the exceptions of pyarrow
        raise InputError(f"{store.address}/{name} is not a file of a prediction log") from None


def _compare(
    rows: pd.DataFrame, old: Bundle, new: Bundle, params: Params, settings: ReplaySettings, model: Model
) -> Replay:
    records = list(_records(rows, old.schema))
    accepted, before = _predict(records, old)
    also, now = _predict([records[i] for i in accepted], new)
    before, kept = before[also], rows.loc[accepted].iloc[also]
    change = np.abs(now - before).max(axis=1) if len(now) else np.zeros(0, dtype=np.float32)
    moved = _moves(before, now, change, (old.schema, new.schema), params.gate.equality_tolerance)
    measure = measure_of(params.task, model, new.schema.classes)
    quantiles = np.quantile(change, (0.5, 0.95, 1.0)).tolist() if len(change) else [0.0, 0.0, 0.0]
    days = rows["time"].dt.date
    return Replay(
        requests=len(accepted),
        first=days.min(),
        last=days.max(),
        refused=len(accepted) - len(also),
        moved=float(moved.mean()) if len(moved) else 0.0,
        changes=(quantiles[0], quantiles[1], quantiles[2]),
        slices=_slices(kept, moved, params),
        feedback=settings.feedback,
        truth=compare_with_truth(kept, before, now, (old, new), params, measure),
    )


def _records(rows: pd.DataFrame, schema: Schema) -> Iterator[dict[str, Any]]:
    """Yield a record for each row, with the champion's fields, as a client sends it. Missing values are left out."""
    names = [column.name for column in schema.columns if RECORD + column.name in rows]
    columns = []
    for name in names:
        values = rows[RECORD + name]
        columns.append([None if pd.isna(each) else str(each) if isinstance(each, date) else each for each in values])
    for values in zip(*columns, strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _predict(records: list[dict[str, Any]], bundle: Bundle) -> tuple[list[int], Predictions]:
    """Return the positions of the records that the server would accept, and the predictions for these records."""
    reader = Records(bundle.schema, BATCH)
    positions: list[int] = []
    predictions: list[Predictions] = []
    for start in range(0, len(records), BATCH):
        for first, tensors in _accepted(reader, records, start, min(start + BATCH, len(records))):
            answers = bundle.predict(tensors)
            positions += range(first, first + len(answers))
            predictions.append(answers)
    outputs = len(bundle.schema.outputs)
    return positions, np.concatenate(predictions) if predictions else np.zeros((0, outputs), dtype=np.float32)


def _accepted(reader: Records, records: list[dict[str, Any]], start: int, stop: int) -> Iterator[tuple[int, Tensors]]:
    """Yield the tensors of accepted records, each with the position of its first record.

    A batch that is refused as a whole is read record by record, so that only its invalid records are left out.
    """
    try:
        yield start, reader.from_rows(records[start:stop], pointer)
    except Problem:
        for i in range(start, stop):
            try:
                yield i, reader.from_rows([records[i]], pointer)
            except Problem:
                continue


def _moves(
    before: Predictions,
    now: Predictions,
    change: NDArray[np.float32],
    schemas: tuple[Schema, Schema],
    tolerance: float,
) -> NDArray[np.bool_]:
    old, new = schemas
    if old.classes:
        return np.asarray(old.chosen(before) != new.chosen(now))
    return np.asarray(change > tolerance * np.maximum(np.abs(before[:, 0]), np.finfo(np.float32).tiny))


def _slices(rows: pd.DataFrame, moved: NDArray[np.bool_], params: Params) -> tuple[ReplaySlice, ...]:
    """Return the slices with the largest share of moved answers. Slices with few requests are left out."""
    named = rows.rename(columns=lambda name: name.removeprefix(RECORD))
    rules = {
        name: rule
        for name, rule in params.evaluate.slices.items()
        if RECORD + name in rows and (rule == "values" or named[name].dtype.kind in "biuf")
    }
    found = []
    labels = slice_labels(named, rules)
    for column in labels.columns:
        shares = pd.Series(moved, index=rows.index).groupby(labels[column].str[:MAX_LABEL]).agg(["size", "mean"])
        large = shares[shares["size"] >= params.gate.slices.minimum_rows]
        found += [
            ReplaySlice(column=column[:MAX_LABEL], value=str(value), requests=int(size), moved=float(mean))
            for value, size, mean in large.itertuples()
        ]
    found.sort(key=lambda part: (-part.moved, part.column, part.value))
    return tuple(found[:MAX_SLICES])
