"""Join one file of a prediction log with the labels.

The join of a file can run in another process or on another machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slipway.bundle import Decision, bundle_with, contained
from slipway.config import Params, SliceRule
from slipway.contract import Model, load_model
from slipway.errors import InputError
from slipway.integrations.log_store import KNOWN_AT, RECORD, TRUTH, LogStore
from slipway.monitoring.labels import Labels, request_ids
from slipway.monitoring.live_decay import ChampionAnswers
from slipway.monitoring.live_performance import UNKNOWN
from slipway.monitoring.log_tables import COMMON_TYPES, TYPES, UNREADABLE, answer_columns, read_table, refuse_copy
from slipway.pipeline.logged_rows import logged_rows
from slipway.pipeline.measure import measure_of
from slipway.pipeline.row_ids import ids_of_keys
from slipway.pipeline.slices import columns_of, slice_labels
from slipway.pipeline.tensors import features, tensors
from slipway.serving.log_segments import Header, header_in

OUTCOMES = ("joined", "missing", "contradictory", "known_before", "repeated_request", "other_class")
MAX_LABEL = 100
"""Maximum length of the value of a slice. A limit is needed, because clients choose the values."""
FIRST, LAST = (pa.scalar(time, COMMON_TYPES.field("time").type) for time in (0, 253_402_214_400_000_000))
"""Times before 1970 or after the year 9999 are damaged, and Python cannot represent all of them."""
Slice = tuple[str, str]
"""The column and the value of a slice."""


@dataclass(frozen=True)
class JoinTask:
    """The part of the join's input that is the same for all files.

    All paths are absolute, and every process must be able to read them.
    """

    log: LogStore
    output: Path
    """Folder to which the joined files are written, under their names in the log."""
    labels: Mapping[bool, Path]
    """Folders of the saved labels. The key True is for labels whose ids are hashed with the secret."""
    by_request: bool
    params: Params
    bundle: Path | None
    """The bundle that is checked for skew by scoring its own logged records again."""
    bundle_hash: str | None
    champion: str | None
    """Hash of the bundle that is checked for decay."""
    repeated: Path | None
    """File with a mask of the labels whose request is in the log several times, or None if labels are joined by KEY."""
    seen: Path | None
    """File with the sorted ids of the rows that the champion was trained on, or evaluated on at its release."""


@dataclass(frozen=True)
class FileSkew:
    """Differences between one file's logged predictions and the predictions when its records are scored again."""

    unchecked: str | None
    """The reason why the records cannot be scored again."""
    rows: int = 0
    different: int = 0
    largest: float = 0.0
    first: tuple[str, date] | None = None
    """Id and day of the first request whose prediction differs."""
    by_slice: Mapping[Slice, tuple[int, int]] = field(default_factory=dict)
    """For each slice, the number of predictions that differ, and the number of rows."""


@dataclass(frozen=True)
class JoinedFile:
    """The result of joining one file with the labels. The arrays and `slices` have an entry for each row."""

    bundle: str
    keyed: bool
    """The key in `JoinTask.labels` for the labels of this file."""
    outcomes: Mapping[str, int]
    positions: NDArray[np.intp]
    """The positions of the labels that belong to rows of this file."""
    losses: NDArray[np.float64]
    days: NDArray[np.int32]
    delays: NDArray[np.int32]
    slices: pd.DataFrame
    answers: ChampionAnswers | None
    """The champion's predictions, or None if the predictions in this file come from another bundle."""
    skew: FileSkew


def labelled_requests(task: JoinTask, name: str) -> NDArray[np.intp]:
    """Return the positions of the labels that belong to the rows of a file. Labels must be joined by request id."""
    table, _ = read_file(task.log, name)
    positions, hit = _labels(task.labels[False]).find(_requests(table))
    return positions[hit]


def join_file(task: JoinTask, model: Model | None, name: str) -> JoinedFile:
    """Join a file, and write its rows with the columns `truth` and `known_at`.

    If `model` is None, as in another process, this function loads the model. Raises InputError if the file cannot be
    joined.
    """
    model = model or load_model()
    table, header = read_file(task.log, name)
    keyed = header.keyed and not task.by_request
    if keyed not in task.labels:
        raise InputError(f"{task.log.address}/{name} cannot be joined: its key differs from others of its bundle.")
    labels = _labels(task.labels[keyed])
    ids = _requests(table) if task.by_request else _keys(table, header, model)
    positions, hit = labels.find(ids)
    days = table["time"].to_numpy().astype("datetime64[D]").astype(np.int32)
    truth, first = np.full(len(ids), np.nan), days.copy()
    truth[hit], first[hit] = _truth(labels, positions[hit], header, task.params), labels.first_known[positions[hit]]
    contradictory, repeated = np.zeros((2, len(ids)), dtype=bool)
    contradictory[hit] = labels.contradictory[positions[hit]]
    if task.repeated:
        repeated[hit] = _array(task.repeated)[positions[hit]]
    repeated &= ~contradictory
    before = hit & ~contradictory & ~repeated & (first < days)
    other = hit & ~contradictory & ~repeated & ~before & np.isnan(truth)
    known = hit & ~contradictory & ~repeated & ~before & ~other
    sums = (known, ~hit, contradictory, before, repeated, other)
    answers = np.column_stack([table[name].to_numpy() for name in answer_columns(header)]).astype(np.float64)
    losses = np.full(len(ids), np.nan)
    if known.any():
        losses[known] = _losses(table.filter(pa.array(known)), header, truth[known], answers[known], task.params, model)
    slices = _slices(table, header, task.params)
    _write(task.output / name, table, header, known, truth, first, task.params)
    return JoinedFile(
        bundle=header.bundle,
        keyed=keyed,
        outcomes={name: int(each.sum()) for name, each in zip(OUTCOMES, sums, strict=True)},
        positions=np.unique(positions[hit]),
        losses=losses,
        days=days,
        delays=np.where(known, first - days, UNKNOWN).astype(np.int32),
        slices=slices,
        answers=_answers(table, header, known & ~np.isnan(losses), truth, answers, task)
        if header.bundle == task.champion
        else None,
        skew=_skew(table, header, answers, slices, task),
    )


def read_file(log: LogStore, name: str) -> tuple[pa.Table, Header]:
    """Read a file of a prediction log. Raises InputError if the file is not part of a log."""
    content = log.read(name)
    try:
        table = read_table(content)
        header = header_in(table.schema.metadata)
        logged = [pa.field(RECORD + column.name, TYPES[column.type]) for column in header.columns]
        answers = [pa.field(name, pa.float32(), nullable=False) for name in answer_columns(header)]
        schema = pa.schema([*COMMON_TYPES, *logged, *answers], table.schema.metadata)
        found = table.select(schema.names).cast(schema)
        refuse_copy(name, header)
        _check_times(found)
    except UNREADABLE as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{log.address}/{name} cannot be joined: {reason}; remove it, or name the address of a log."
        ) from None
    return found, header


def _check_times(rows: pa.Table) -> None:
    """Raise ValueError if the time of a row is out of range."""
    if pc.any(pc.or_(pc.less(rows["time"], FIRST), pc.greater(rows["time"], LAST))).as_py():
        raise ValueError("a time is out of range")


@lru_cache(maxsize=2)
def _labels(folder: Path) -> Labels:
    return Labels.load(folder)


@lru_cache(maxsize=2)
def _array(path: Path) -> NDArray[Any]:
    found: NDArray[Any] = np.load(path)
    return found


def _write(
    path: Path,
    table: pa.Table,
    header: Header,
    known: NDArray[np.bool_],
    truth: NDArray[np.float64],
    first: NDArray[np.int32],
    params: Params,
) -> None:
    is_classification = params.task.kind == "classification"
    whole: list[Any] = [None] * len(known)
    for i in np.flatnonzero(known):
        whole[i] = header.outputs[int(truth[i])] if is_classification else truth[i]
    known_at = pa.array(np.where(known, first, 0), pa.int32(), mask=~known).cast(pa.date32())
    joined = table.append_column(TRUTH, pa.array(whole, pa.string() if is_classification else pa.float64()))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(joined.append_column(KNOWN_AT, known_at), path, compression="zstd")


def _requests(table: pa.Table) -> NDArray[np.uint64]:
    return request_ids(table.select(["request_id", "row"]).to_pandas())


def _keys(table: pa.Table, header: Header, model: Model) -> NDArray[np.uint64]:
    if tuple(each.name for each in header.key) != tuple(model.KEY):
        reason = "KEY had other columns then" if header.key else "requests lack a column of KEY"
        raise InputError(f"Rows of bundle {header.bundle} cannot be joined by KEY, because {reason}; use request_id.")
    try:
        return ids_of_keys(table["key"].to_pylist())
    except ValueError:
        raise InputError(f"A row of bundle {header.bundle} has a key that is not a hash; remove its file.") from None


def _truth(labels: Labels, positions: NDArray[np.intp], header: Header, params: Params) -> NDArray[np.float64]:
    """Return the true value of each row. For a classification, return the position of the true class in the outputs.

    The value is NaN if the model does not have the class, or if the model is not for the task of params.yaml.
    """
    truth: NDArray[np.float64] = labels.truth[positions]
    if (len(header.outputs) > 1) != (params.task.kind == "classification"):
        return np.full(len(truth), np.nan)
    if len(header.outputs) == 1:
        return truth
    codes = np.array([header.outputs.index(each) if each in header.outputs else np.nan for each in labels.classes])
    return codes[truth.astype(np.intp)]


def _slices(table: pa.Table, header: Header, params: Params) -> pd.DataFrame:
    """Return the slices that each row belongs to, with a categorical column for each sliced column.

    Columns without values in the log are left out, and also columns whose type has no slices, such as text.
    """
    types = {column.name: column.type for column in header.columns}

    def is_logged(name: str, rule: SliceRule) -> bool:
        return types.get(name) == "number" or (types.get(name) in ("category", "date") and rule == "values")

    known = params.evaluate.slices
    rules = {
        name: rule
        for name, rule in known.items()
        if all(is_logged(part, known.get(part, "values")) for part in columns_of([name], types))
    }
    columns = sorted(columns_of(rules, types))
    rows = table.select([RECORD + name for name in columns]).to_pandas().set_axis(columns, axis=1)
    labels = slice_labels(rows, rules)
    return labels.apply(lambda column: column.str[:MAX_LABEL]).astype("category")


def _losses(
    table: pa.Table,
    header: Header,
    truth: NDArray[np.float64],
    answers: NDArray[np.float64],
    params: Params,
    model: Model,
) -> NDArray[np.float64]:
    """Return the loss of each row. An undefined loss, such as the percentage error for a truth of 0, is NaN."""
    measure = measure_of(params.task, model, header.outputs if params.task.kind == "classification" else None)
    decision = None if header.decision is None else Decision.model_validate(header.decision)
    rows = measure.features(_records(table, header)) if params.task.loss_is_own else pd.DataFrame()
    losses = measure.losses(truth, answers, rows, decision)
    return np.where(np.isfinite(losses) & measure.is_defined(truth), losses, np.nan)


def _records(table: pa.Table, header: Header) -> pd.DataFrame:
    """Return the logged records as validated rows. Hashed columns are left out."""
    columns = [column for column in header.columns if column.type != "hash"]
    return logged_rows(table.select([RECORD + column.name for column in columns]).to_pandas(), columns)


def _answers(
    table: pa.Table,
    header: Header,
    known: NDArray[np.bool_],
    truth: NDArray[np.float64],
    answers: NDArray[np.float64],
    task: JoinTask,
) -> ChampionAnswers:
    seen = np.zeros(len(known), dtype=bool)
    if task.seen and header.key and not header.keyed:  # rows without a readable key are treated as new
        seen = contained(ids_of_keys(table["key"].to_pylist()), _array(task.seen))
    group = task.params.split.column
    has_groups = group is not None and RECORD + group in table.column_names
    return ChampionAnswers(
        truths=truth,
        answers=answers.astype(np.float32),
        unseen=known & ~seen,
        groups=table[RECORD + str(group)].to_pandas().astype("str").to_numpy() if has_groups else None,
        seen=int((known & seen).sum()),
    )


def _skew(
    table: pa.Table, header: Header, answers: NDArray[np.float64], slices: pd.DataFrame, task: JoinTask
) -> FileSkew:
    """Score the records again, and count the predictions that differ by more than `gate.equality_tolerance`.

    Smaller differences are ignored, because processors add numbers in different orders.
    """
    if task.bundle is None or task.bundle_hash != header.bundle:
        return FileSkew("it is not the champion")
    bundle = bundle_with(task.bundle, header.bundle)
    logged = {column.name for column in header.columns if column.type != "hash"}
    private = [column.name for column in bundle.schema.columns if column.name not in logged]
    if private or not len(table):
        return FileSkew(f"the column {private[0]} is private" if private else None)
    again = bundle.predict(tensors(features(_records(table, header), bundle.schema), bundle.schema))
    size = np.abs(again)
    scale = np.maximum(size, max(size.mean() * 1e-2, np.finfo(np.float32).tiny)) if len(header.outputs) == 1 else 1.0
    difference = np.max(np.abs(answers - again) / scale, axis=1)
    is_different = ~(difference <= task.params.gate.equality_tolerance)
    first = int(is_different.argmax()) if is_different.any() else None
    return FileSkew(
        unchecked=None,
        rows=len(table),
        different=int(is_different.sum()),
        largest=float(difference.max()),
        first=None if first is None else (table["request_id"][first].as_py(), table["time"][first].as_py().date()),
        by_slice=_by_slice(slices, is_different),
    )


def _by_slice(slices: pd.DataFrame, is_different: NDArray[np.bool_]) -> dict[Slice, tuple[int, int]]:
    counts: dict[Slice, tuple[int, int]] = {}
    for column in slices.columns:
        rows = slices[column].value_counts(sort=False)
        different = slices[column][is_different].value_counts(sort=False)
        counts |= {(str(column), str(value)): (int(different[value]), int(rows[value])) for value in rows.index}
    return counts
