"""Replay logged production requests, and compare the challenger's predictions with the champion's.

The requests come from the newest days before the day of the evaluated commit, so that a repeated replay gives the same
result. Logged values are untrusted. The result contains only numbers, dates and short slice labels.
"""

import base64
import io
import time
from collections.abc import Callable, Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slipway.bundle import Bundle, Schema, Tensors, load_bundle
from slipway.config import Params
from slipway.config import Replay as ReplaySettings
from slipway.contract import Model
from slipway.errors import InputError
from slipway.integrations.log_store import DAY, RECORD, LogStore
from slipway.pipeline.measure import measure_of
from slipway.pipeline.number_text import number
from slipway.pipeline.slices import slice_labels
from slipway.review.replay_truth import compare_with_truth, truth_columns
from slipway.review.report import Replay, ReplaySlice, SlowestRequest
from slipway.serving.log_segments import Header, header_in
from slipway.serving.problems import Problem, pointer
from slipway.serving.records import Records

BATCH = 1_000
MAX_SLICES = 8
MAX_LABEL = 100
IDENTITY_TYPES = pa.schema({"time": pa.timestamp("us", "UTC"), "request_id": pa.string(), "row": pa.int64()})
IDENTITY = IDENTITY_TYPES.names
FIRST = pd.Timestamp(0, tz="UTC")
SECONDS = "seconds"
TIMED_RUNS = 5
Predictions = NDArray[np.float32]


def replay(
    params: Params,
    champion: Path,
    challenger: Path,
    before: date,
    model: Model,
    say: Callable[[str], None],
    *,
    is_fork: bool,
) -> Replay | None:
    """Replay the log that `replay` in params.yaml names.

    Return None if `replay` is not set, or if there is no champion. A pull request from a fork of the repository gets
    no replay, because its author must not see requests. If the log cannot be read or replayed, the result contains the
    reason. `say` is called with the times of both models for the slowest request. The result does not contain these
    times, because they vary.
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
    return _compare(rows, old, new, params, params.replay, model, say)


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

    The files of a day are read in a random order that depends only on their names, until `count` rows are found. In the
    order of their names, the first files could all come from the same few servers.
    """
    names = [name for name in store.files() if name.startswith(DAY) and name[len(DAY) :][:10] < before.isoformat()]
    names.sort(key=lambda name: (name.partition("/")[0], blake2b(name.encode()).digest()), reverse=True)
    parts, rows, seen = [], 0, set[tuple[str, int]]()
    for name in names:
        if rows >= count:
            break
        parts.append(_read(store, name, before, key, seen))
        rows += len(parts[-1])
    if not parts:
        return pd.DataFrame(columns=IDENTITY)
    found = pd.concat(parts, ignore_index=True).sort_values(IDENTITY, kind="stable", ignore_index=True)
    return found.tail(count).reset_index(drop=True)


def _read(store: LogStore, name: str, before: date, key: tuple[str, ...], seen: set[tuple[str, int]]) -> pd.DataFrame:
    """Read a file. `seen` contains the segments of the files that were read before, and is extended."""
    content = store.read(name)
    try:
        table = pq.read_table(io.BytesIO(content))
        columns = [each for each in table.column_names if each.startswith(RECORD)]
        header = _header(table)
        if header is not None:
            segment = (header.instance, header.number)
            # An earlier bundle had private columns, whose values are not in the log. A file can also be a copy.
            if segment in seen or any(column.type == "hash" for column in header.columns):
                table = table.slice(0, 0)
            seen.add(segment)
        identity = table.select([*IDENTITY]).cast(IDENTITY_TYPES)
        rows = pd.concat([identity.to_pandas(), table.select(columns).to_pandas()], axis=1)
        rows[SECONDS] = np.nan
        if SECONDS in table.column_names:
            rows[SECONDS] = pd.to_numeric(table[SECONDS].to_pandas(), errors="coerce")
        in_time = rows["time"].between(FIRST, pd.Timestamp(before, tz="UTC"), inclusive="left")
        return pd.concat([rows, truth_columns(table, header, key, before)], axis=1)[in_time]
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        raise InputError(f"{store.address}/{name} is not a file of a prediction log") from None


def _header(table: pa.Table) -> Header | None:
    """Return the header of a log file, or None if the file has no valid header."""
    try:
        return header_in(table.schema.metadata)
    except ValueError:
        return None


def _compare(
    rows: pd.DataFrame,
    old: Bundle,
    new: Bundle,
    params: Params,
    settings: ReplaySettings,
    model: Model,
    say: Callable[[str], None],
) -> Replay:
    records = list(_records(rows, old.schema))
    accepted, before = _predict(records, old)
    also, now = _predict([records[i] for i in accepted], new)
    slowest = _slowest(rows.loc[accepted])
    if slowest is not None:
        of_slowest = [records[accepted[i]] for i in also if accepted[i] in slowest]
        say(_times(of_slowest, old, new))
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
        slowest=None if slowest is None else _as_artifact(rows.loc[slowest]),
        truth=compare_with_truth(kept, before, now, (old, new), params, measure),
    )


def _records(rows: pd.DataFrame, schema: Schema) -> Iterator[dict[str, Any]]:
    """Yield a record for each row, with the champion's fields, as a client sends it. Missing values are left out."""
    names = [column.name for column in schema.columns if RECORD + column.name in rows]
    columns = [map(_as_sent, rows[RECORD + name]) for name in names]
    for values in zip(*columns, strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _as_sent(value: Any) -> Any:
    """Convert a logged value to the JSON value that a client sends, or to None if it is missing."""
    match value:
        case np.ndarray():  # a vector
            return value.tolist()
        case bytes():  # an image
            return base64.b64encode(value).decode()
    return None if pd.isna(value) else str(value) if isinstance(value, date) else value


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
    """Yield batches of accepted records as tensors, each with the position of the batch's first record.

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


def _slowest(rows: pd.DataFrame) -> "pd.Index[int] | None":
    """Return the rows of the request with the longest logged duration. Return None if no row has a duration."""
    seconds = rows[SECONDS].where(np.isfinite(rows[SECONDS]) & (rows[SECONDS] >= 0))
    if not seconds.notna().any():
        return None
    longest = rows.loc[seconds.idxmax()]
    return rows.index[(rows["time"] == longest["time"]) & (rows["request_id"] == longest["request_id"])]


def _as_artifact(slowest: pd.DataFrame) -> SlowestRequest:
    first = slowest.iloc[0]
    return SlowestRequest(seconds=float(slowest[SECONDS].max()), at=first["time"], records=len(slowest))


def _times(records: list[dict[str, Any]], old: Bundle, new: Bundle) -> str:
    """Return a sentence with the time that each model takes for the records of one request."""
    if not records:
        return "replay: the challenger refuses the request that took production longest"
    times = []
    for bundle in (new, old):
        reader, durations = Records(bundle.schema, len(records)), []
        for _ in range(TIMED_RUNS):
            start = time.perf_counter()
            bundle.predict(reader.from_rows(records, pointer))
            durations.append(time.perf_counter() - start)
        times.append(f"{number(min(durations) * 1_000)} ms")
    return (
        f"replay: the request that took production longest takes the challenger {times[0]} on this machine, and the "
        f"champion {times[1]}"
    )


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
    """Return the slices with the largest share of changed predictions. Slices with few requests are left out."""
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
