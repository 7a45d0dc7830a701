"""Read labels, which arrive after the prediction, into arrays that are sorted by the hash of the labelled row.

A label has the target column, the column `known_at`, and either `request_id` (with `row`, which is 0 by default) or the
columns of KEY. If a row has several labels, the latest label is used. If several labels with the latest time have
different truths, the row is not evaluated.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.dtypes import is_bool, is_datetime, is_float, is_int, is_string

from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.csv_records import BOOLEANS
from slipway.pipeline.delivery import read_chunks
from slipway.pipeline.row_ids import Ids, hash_rows
from slipway.pipeline.tensors import bounds_of

KNOWN_AT = "known_at"
REQUEST_ID, ROW = "request_id", "row"
ARRAYS = ("ids", "truth", "first_known", "contradictory")
REST = "rest.json"
DAY_ZERO = date(1970, 1, 1)

Floats = NDArray[np.float64]
Days = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelCounts:
    """Numbers of labels. `repeated` counts labels with the same id as another label.

    `corrected` counts labels that were replaced by a later label with another truth.
    """

    labels: int
    invalid: int
    repeated: int
    corrected: int
    contradictory: int


@dataclass(frozen=True)
class Labels:
    """All labels, sorted by id, with each id once. `first_known` is the day of the id's first label."""

    ids: Ids
    truth: Floats
    """The true value of each id. For a classification, the position of the true class in `classes`."""
    first_known: Days
    contradictory: Bools
    classes: tuple[str, ...]
    counts: LabelCounts

    def save(self, folder: Path) -> None:
        """Write the labels to a new folder."""
        folder.mkdir()
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / REST).write_text(json.dumps({"classes": self.classes, "counts": asdict(self.counts)}))

    @classmethod
    def load(cls, folder: Path) -> "Labels":
        """Open saved labels. The arrays are memory-mapped, so processes on one machine share the memory."""
        rest = json.loads((folder / REST).read_text())
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS}
        return cls(**arrays, classes=tuple(rest["classes"]), counts=LabelCounts(**rest["counts"]))

    def find(self, ids: Ids) -> tuple[NDArray[np.intp], Bools]:
        """Return the position of each id's label, and whether the id has a label."""
        if not len(self.ids):
            return np.zeros(len(ids), dtype=np.intp), np.zeros(len(ids), dtype=bool)
        positions = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return positions, self.ids[positions] == ids


def by_request(columns: Iterable[str]) -> bool:
    """Return whether labels are joined by request id. If False, labels are joined by KEY."""
    return REQUEST_ID in set(columns)


def columns_of_labels(model: Model) -> tuple[str, ...]:
    """Return the names of all columns that labels can have."""
    return (REQUEST_ID, ROW, *model.KEY, model.TARGET, KNOWN_AT)


def read_labels(files: Mapping[str, Path]) -> Iterator[pd.DataFrame]:
    """Yield the rows of label files in chunks. `files` maps the address of each file to its local path.

    The columns of CSV files are text. A line that cannot be split into columns becomes a row of missing values. Raises
    InputError if only some of the files have request ids.
    """
    forms: dict[bool, str] = {}
    for address, path in files.items():
        for chunk in read_chunks(path, address):
            rows = chunk.table.to_pandas().replace("", None)
            forms.setdefault(by_request(rows.columns), address)
            if len(forms) > 1:
                raise InputError(
                    f"{forms[True]} has the column {REQUEST_ID}, and {forms[False]} lacks it; identify the labels of "
                    f"all files by {REQUEST_ID}, or all by the columns of KEY."
                )
            yield rows.reindex(range(len(rows) + len(chunk.malformed)))


def collect(
    chunks: Iterable[pd.DataFrame],
    model: Model,
    is_classification: bool,
    hashed: Callable[[pd.DataFrame], Ids],
    today: date,
) -> Labels:
    """Read all labels. The function `hashed` computes the ids of rows. Raises InputError if a column is missing.

    Labels dated after tomorrow are invalid, because a single such label would make every day of the log mature. A label
    dated tomorrow is valid, because it can come from another time zone.
    """
    latest = (today - DAY_ZERO).days + 1
    ids, truths, known, total, invalid = [], [], [], 0, 0
    codes: dict[str, int] = {}
    for chunk in chunks:
        _require(chunk, model)
        days = _days(chunk[KNOWN_AT])
        truth = _codes(_classes(chunk, model), codes) if is_classification else _truths(chunk[model.TARGET], model)
        identity = _identity(chunk, model)
        valid = ~np.isnan(truth) & (days > np.iinfo(np.int32).min) & (days <= latest)
        valid &= identity.notna().all(axis=1).to_numpy()
        total, invalid = total + len(chunk), invalid + int((~valid).sum())
        ids.append(hashed(identity[valid]))
        truths.append(truth[valid])
        known.append(days[valid])
    return _resolve(np.concatenate(ids), np.concatenate(truths), np.concatenate(known), tuple(codes), total, invalid)


def request_ids(rows: pd.DataFrame) -> Ids:
    """Return the id of each row, computed from its request id and its position in the request."""
    return hash_rows([rows[REQUEST_ID], rows[ROW].astype("float64")])


def key_ids(rows: pd.DataFrame, model: Model, secret: bytes) -> Ids:
    """Return the id of each row, computed from its KEY columns in the same way as on the servers."""
    return hash_rows([rows[name] for name in model.KEY], secret)


def _identity(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Return the columns that identify the labelled rows, with the types of the log.

    Invalid values become missing values.
    """
    if by_request(rows.columns):
        positions = _numbers(rows[ROW]) if ROW in rows else 0
        return pd.DataFrame({REQUEST_ID: _texts(rows[REQUEST_ID]), ROW: positions}, index=rows.index)
    columns = {}
    for name in model.KEY:
        dtype, values = model.SCHEMA.columns[name].dtype, rows[name]
        if is_datetime(dtype):
            form = (getattr(dtype, "to_datetime_kwargs", None) or {}).get("format", "ISO8601")
            times = pd.to_datetime(values, errors="coerce", utc=True, format=form)
            columns[name] = times.dt.tz_localize(None).dt.as_unit("s")
        elif is_bool(dtype):
            columns[name] = _booleans(values)
        else:
            columns[name] = _texts(values) if is_string(dtype) else _numbers(values)
    return pd.DataFrame(columns, index=rows.index)


def _texts(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert values to texts. Numbers that are whole get no decimal point. Bytes that are not UTF-8 are missing."""
    if any(isinstance(value, bytes) for value in values):
        values = values.map(lambda value: _decoded(value) if isinstance(value, bytes) else value)
    return values.convert_dtypes().astype("str") if values.dtype.kind in "iuf" else values.astype("str")


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _require(chunk: pd.DataFrame, model: Model) -> None:
    wanted = [model.TARGET, KNOWN_AT, *([] if by_request(chunk.columns) else model.KEY)]
    missing = [name for name in wanted if name not in chunk.columns]
    if missing:
        raise InputError(
            f"The labels lack the column {missing[0]!r}; they need {model.TARGET}, {KNOWN_AT}, and {REQUEST_ID} or "
            "the columns of KEY."
        )
    if repeated := [*chunk.columns[chunk.columns.duplicated()]]:
        raise InputError(f"The labels have the column {repeated[0]!r} several times; remove or rename one of them.")


def _days(values: "pd.Series[Any]") -> Days:
    """Convert times to days since 1970-01-01. Invalid times become the smallest 32-bit number."""
    times = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    days = times.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int64)
    found: Days = np.maximum(days, np.iinfo(np.int32).min).astype(np.int32)
    return found


def _numbers(values: "pd.Series[Any]") -> Floats:
    """Convert values to finite numbers. Other values, such as times, become NaN."""
    if values.dtype.kind in "mM":  # pandas would convert times and durations to their number of nanoseconds
        return np.full(len(values), np.nan)
    numbers: Floats = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _truths(values: "pd.Series[Any]", model: Model) -> Floats:
    """Convert true values to numbers. Numbers outside of the range that the schema allows become NaN."""
    numbers = _numbers(values)
    (low, no_low), (high, no_high) = bounds_of(model.SCHEMA.columns[model.TARGET].checks)
    if low is not None:
        numbers[(numbers <= low) if no_low else (numbers < low)] = np.nan
    if high is not None:
        numbers[(numbers >= high) if no_high else (numbers > high)] = np.nan
    return numbers


def _booleans(values: "pd.Series[Any]") -> Floats:
    """Convert values to 1 and 0. Values that a delivery cannot contain as booleans become NaN."""
    found: Floats = _texts(values).str.lower().map(BOOLEANS).to_numpy(dtype=np.float64, na_value=np.nan)
    return found


def _classes(rows: pd.DataFrame, model: Model) -> "pd.Series[Any]":
    """Return the class of each row as bundles name it: the text of a value with the type of the target."""
    dtype, values = model.SCHEMA.columns[model.TARGET].dtype, rows[model.TARGET]
    name: Callable[[float], str]
    if is_bool(dtype):
        numbers, name = _booleans(values), lambda number: str(bool(number))
    elif is_float(dtype) or is_int(dtype):
        numbers, name = _numbers(values), str if is_float(dtype) else lambda number: str(int(number))
    else:
        return _texts(values).where(values.notna())
    return pd.Series(numbers, values.index).map(name, na_action="ignore")


def _codes(found: "pd.Series[Any]", codes: dict[str, int]) -> Floats:
    """Convert classes to numbers. New classes are added to `codes`."""
    for text in found.dropna().unique():
        codes.setdefault(text, len(codes))
    numbers: Floats = found.map(codes).to_numpy(dtype=np.float64, na_value=np.nan)
    return numbers


def _resolve(ids: Ids, truth: Floats, known: Days, classes: tuple[str, ...], total: int, invalid: int) -> Labels:
    order = np.lexsort((known, ids))
    ids, truth, known = ids[order], truth[order], known[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]]) if len(ids) else np.zeros(0, dtype=np.intp)
    sizes = np.diff(np.r_[starts, len(ids)])
    last = starts + sizes - 1
    group = np.repeat(np.arange(len(starts)), sizes)
    differs = truth != truth[last][group]
    at_last = known == known[last][group]
    contradictory = np.zeros(len(starts), dtype=bool)
    contradictory[group[differs & at_last]] = True
    counts = LabelCounts(
        labels=total,
        invalid=invalid,
        repeated=len(ids) - len(starts),
        corrected=int((differs & ~at_last).sum()),
        contradictory=int(contradictory.sum()),
    )
    return Labels(ids[starts], truth[last], known[starts], contradictory, classes, counts)
