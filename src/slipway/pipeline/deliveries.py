"""Check the rows of a delivery against the model's schema.

A delivery can contain any content, so nothing in it is trusted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandera.errors import SchemaErrors

from slipway.config import Validate
from slipway.contract import ARRAYS, Model, hides_values, is_private, kind_of
from slipway.errors import InputError
from slipway.pipeline.columns import REASON, ROW, ROW_ID
from slipway.pipeline.delivery import BATCH_BYTES, Chunk, read_chunks, text_table
from slipway.pipeline.delivery_cache import CheckedPart, DeliveryCache, InvalidRows, without_added
from slipway.pipeline.header import Columns, check_header, why_none
from slipway.pipeline.image_folder import ImageFolder, check_named
from slipway.pipeline.row_ids import NO_IDS, Ids, row_ids
from slipway.pipeline.typed_rows import Batch, fault_table, join_faults, typed_rows

IN_WORDS = {  # maps the name of a pandera check to the reason for a row that fails it
    "isin": "is not one of {allowed_values}",
    "greater_than": "is not greater than {min_value}",
    "greater_than_or_equal_to": "is less than {min_value}",
    "less_than": "is not less than {max_value}",
    "less_than_or_equal_to": "is greater than {max_value}",
}


LARGEST = float(np.finfo(np.float32).max)
DOUBLE_BYTES = 8

MOST_VALUES, FEW_VALUES = 30, 5
"""A reason lists at most 30 allowed values. If more than 30 values are allowed, the reason lists 5 values and the
number of the remaining values.
"""
MOST_CHARACTERS = 500

BATCH_ROWS = 100_000
"""Maximum number of rows that are checked together. A check has a fixed cost, so small deliveries are checked together.
"""


@dataclass(frozen=True)
class Delivery:
    """A delivery, or a part of it.

    `table` contains the accepted rows, with their row numbers, their ids, and the columns and types of the schema.
    `faults` has the columns `row` and `reason`, with one line for each fault of a row.
    """

    name: str
    raw: InvalidRows
    table: pa.Table
    faults: pd.DataFrame
    columns: Columns
    is_key_list: bool = False
    """True if the delivery is a list of keys. The rows with these keys are deleted from earlier deliveries."""
    deleted: Ids = field(default_factory=lambda: NO_IDS)
    """The ids of the earlier rows that a list of keys deletes."""
    unmatched: int = 0
    """The number of keys in the list of keys that match no earlier row."""
    replaced: Ids = field(default_factory=lambda: NO_IDS)
    """The ids of the accepted rows that replace rows of earlier deliveries."""

    @cached_property
    def accepted(self) -> pd.DataFrame:
        """The accepted rows, indexed by their row numbers in the delivery."""
        return self.table.to_pandas().set_index(ROW)


@dataclass
class _Waiting:
    """A chunk that waits until its batch is complete. `is_last` is True for the last chunk of a delivery."""

    name: str
    path: Path
    key: str
    chunk: Chunk
    columns: Columns
    rows: int
    """The number of rows in the batch up to and including this chunk."""
    size: int
    """The size of the batch in bytes, up to and including this chunk."""
    is_last: bool = False

    def fits(self, chunk: Chunk) -> bool:
        """Return whether another chunk has the same columns and is small enough to join the batch."""
        is_small = self.rows + len(chunk.rows) <= BATCH_ROWS and self.size + chunk.size <= BATCH_BYTES
        return is_small and chunk.table.schema.equals(self.chunk.table.schema)


def read_deliveries(
    paths: Mapping[str, Path],
    model: Model,
    rules: Validate,
    today: date,
    cache: DeliveryCache,
    where: str | None = None,
) -> Iterator[Delivery]:
    """Read deliveries, and check each row against the model's schema.

    Yield each delivery in parts that fit into memory. A delivery in the cache is not read again. `where` replaces the
    path in messages, for example if `paths` contains a copy of a delivery.

    Raises InputError if a delivery is empty, truncated or not UTF-8. Also raises InputError if its columns are wrong,
    or if a row is dated after `today`. A row with a future date is not quarantined, because the same row would be
    accepted on a later day.
    """
    fresh: list[_Waiting] = []
    kept: list[tuple[str, Path, CheckedPart]] = []
    kept_rows = 0
    try:
        for name, path in paths.items():
            key, is_kept = cache.key(path), False
            for part in cache.read(key, path):
                yield from _checked(fresh, model, today, cache)
                fresh, is_kept = [], True
                kept.append((name, path, part))
                kept_rows += len(part.accepted)
                if kept_rows > BATCH_ROWS:
                    yield from _restored(kept, model, today)
                    kept, kept_rows = [], 0
            if is_kept:
                continue
            yield from _restored(kept, model, today)
            kept, kept_rows = [], 0
            for chunk, columns in _chunks(path, where or str(path), model, rules):
                if fresh and not fresh[-1].fits(chunk):
                    yield from _checked(fresh, model, today, cache)
                    fresh = []
                rows, size = (fresh[-1].rows, fresh[-1].size) if fresh else (0, 0)
                rows, size = rows + len(chunk.rows), size + chunk.size
                fresh.append(_Waiting(name, path, key, chunk, columns, rows, size))
            fresh[-1].is_last = True
        yield from _restored(kept, model, today)
        yield from _checked(fresh, model, today, cache)
    finally:
        cache.flush()


def _chunks(path: Path, where: str, model: Model, rules: Validate) -> Iterator[tuple[Chunk, Columns]]:
    readable = False
    images: ImageFolder | None = None
    named: set[str] = set()
    malformed: dict[int, tuple[str, str]] = {}
    for chunk in read_chunks(path, where):
        columns = check_header(chunk, model, rules)
        readable |= len(chunk.rows) > 0
        malformed |= chunk.malformed
        images = chunk.images
        named |= {*_image_names(chunk, model)}
        yield chunk, columns
    if not readable:
        raise InputError(f"{where} has no rows that can be read{why_none(malformed)}; deliver it again.")
    if images:
        check_named(images, named, [line for _, line in malformed.values()], where)


def _image_names(chunk: Chunk, model: Model) -> Iterator[str]:
    """Yield the names of the image files that a chunk refers to. Yield nothing if the folder has no images."""
    for name, column in model.SCHEMA.columns.items():
        if chunk.images and kind_of(column) == "image" and name in chunk.table.column_names:
            yield from (each for each in chunk.table.column(name).to_pylist() if isinstance(each, str))


def _restored(kept: Sequence[tuple[str, Path, CheckedPart]], model: Model, today: date) -> Iterator[Delivery]:
    """Yield parts from the cache.

    Only the dates are checked again, because the cached result does not depend on `today`.
    """
    if not kept:
        return
    if model.TIME:
        times = pa.concat_tables([part.accepted.select([ROW, model.TIME]) for _, _, part in kept]).to_pandas()
        ends = np.cumsum([len(part.accepted) for _, _, part in kept])

        def place(position: int) -> str:
            return f"{kept[int(np.searchsorted(ends, position, side='right'))][1]}, row {times[ROW][position]}"

        _check_not_future(times[model.TIME], model, today, place)
    for name, _, part in kept:
        yield Delivery(name, part.invalid, part.accepted, part.faults, part.columns)


def _checked(waiting: Sequence[_Waiting], model: Model, today: date, cache: DeliveryCache) -> Iterator[Delivery]:
    """Check a batch of chunks together. Yield the result for each chunk, and add it to the cache."""
    if not waiting:
        return
    batch = Batch([each.chunk for each in waiting])
    typed, faults = typed_rows(batch, model)
    if model.TIME:
        _check_not_future(_in_utc(typed[model.TIME]), model, today, batch.place)
    _check_whole_days(typed, model, batch.place)
    faults = join_faults([faults, *_too_large(typed, model), _broken_checks(typed, model)])
    faults = faults.sort_values(ROW, kind="stable")
    accepted = typed[~typed.index.isin(faults[ROW])] if len(faults) else typed
    accepted = accepted.assign(**{name: _in_utc(accepted[name]) for name in accepted if _has_zone(accepted[name])})
    accepted = accepted.assign(**{ROW_ID: row_ids(accepted, model)})
    invalid = np.unique(faults[ROW].to_numpy())
    texts = text_table(batch.table.take(pa.array(invalid)))
    bounds = [0, *batch.ends.tolist()]
    cuts, fault_cuts, invalid_cuts = (
        np.searchsorted(places, bounds) for places in (accepted.index, faults[ROW], invalid)
    )
    numbers = np.concatenate([each.chunk.rows for each in waiting])
    accepted = accepted.set_axis(pd.Index(numbers[accepted.index.to_numpy()], name=ROW))
    faults = faults.assign(**{ROW: numbers[faults[ROW].to_numpy()]})
    table = _as_table(accepted.reset_index(), model)
    for number, each in enumerate(waiting):
        start, end = cuts[number : number + 2]
        found = faults.iloc[slice(*fault_cuts[number : number + 2])]
        if each.chunk.malformed:
            found = join_faults([_malformed(each.chunk), found])
            rows = np.unique(found[ROW].to_numpy())
            text = each.chunk.as_text(rows)
        else:
            first, last = invalid_cuts[number : number + 2]
            rows, text = numbers[invalid[first:last]], texts.slice(first, last - first)
        text = without_added(text)
        kept = InvalidRows(rows, text, partial(read_chunks, each.path))
        part = CheckedPart(table.slice(start, end - start), kept, found, each.columns)
        cache.add(each.key, part, is_last=each.is_last)
        delivered = InvalidRows(rows, text, partial(list, [each.chunk]))
        yield Delivery(each.name, delivered, part.accepted, found, each.columns)


def _as_table(rows: pd.DataFrame, model: Model) -> pa.Table:
    """Convert rows to an Arrow table.

    A column of vectors or images gets the same type in each part, even if all its values are missing.
    """
    table = pa.Table.from_pandas(rows, preserve_index=False)
    for name, column in model.SCHEMA.columns.items():
        if kind_of(column) in ARRAYS:
            place = table.column_names.index(name)
            kind = pa.binary() if kind_of(column) == "image" else pa.list_(pa.float32())
            table = table.set_column(place, name, pc.cast(table.column(place), kind))
    return table


def _has_zone(values: "pd.Series[Any]") -> bool:
    return isinstance(values.dtype, pd.DatetimeTZDtype)


def _in_utc(times: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert times with a time zone to UTC and remove the zone, so that all stages compare times without a zone."""
    return times.dt.tz_convert("UTC").dt.tz_localize(None) if _has_zone(times) else times


def _malformed(chunk: Chunk) -> pd.DataFrame:
    """Return the faults of rows that cannot be split into columns."""
    reasons = [fault for fault, _ in chunk.malformed.values()]
    return pd.DataFrame({ROW: [*chunk.malformed], REASON: reasons}).astype({ROW: "int64", REASON: "str"})


def _check_not_future(times: "pd.Series[pd.Timestamp]", model: Model, today: date, place: Callable[[int], str]) -> None:
    future = times[times >= pd.Timestamp(today) + pd.Timedelta(days=1)]
    if not future.empty:
        shown = "" if is_private(model, str(times.name)) else f" {future.iloc[0]:%Y-%m-%d}"
        raise InputError(
            f"{place(future.index[0])}: {times.name}{shown} is in the future "
            f"({len(future)} such rows); deliver the file with the right date."
        )


def _check_whole_days(typed: pd.DataFrame, model: Model, place: Callable[[int], str]) -> None:
    """Raise InputError if a feature contains a time of day, because a request can only contain dates."""
    for name in model.FEATURES:
        if name in typed and typed[name].dtype.kind == "M":
            odd = typed[name][typed[name].notna() & (typed[name] != typed[name].dt.normalize())]
            if not odd.empty:
                shown = "has a time of day" if is_private(model, name) else f"is {odd.iloc[0]}"
                raise InputError(
                    f"{place(odd.index[0])}: {name} {shown}, but a feature can only be a date without a time of day; "
                    "deliver the date, and the hour as a number, or remove it from FEATURES."
                )


def _too_large(typed: pd.DataFrame, model: Model) -> Iterator[pd.DataFrame]:
    """Yield a fault for each number that is too large for float32, if its column is a feature or the target.

    The model and the server would read or predict such a number as infinite. Other columns of float32 are checked, too.
    """
    single = (*model.FEATURES, getattr(model, "TARGET", None))  # a list of keys has no target
    for name in typed:
        if typed[name].dtype.kind == "f" and (name in single or typed[name].dtype.itemsize < DOUBLE_BYTES):
            large = typed.index[(typed[name].abs() > LARGEST).to_numpy()]
            if len(large):
                yield fault_table(large, f"{name} is beyond single precision ({LARGEST:.4g})")


def _broken_checks(typed: pd.DataFrame, model: Model) -> pd.DataFrame:
    try:
        model.SCHEMA.validate(typed, lazy=True)
    except SchemaErrors as error:
        cases = error.failure_cases
    else:
        return fault_table(pd.Index([]), "")
    whole = cases[cases["index"].isna()]
    if not whole.empty:
        first = whole.iloc[0]
        detail = "" if hides_values(model) else f" ({first['failure_case']})"  # may quote a value
        raise InputError(
            f"src/model/schema.py: the check {first['check']!r} does not work on the data{detail}; correct the schema."
        )
    kinds = cases[["schema_context", "column", "check"]].astype("str")
    numbers = kinds.groupby([*kinds], dropna=False, sort=False).ngroup().to_numpy()
    first = kinds[~pd.Series(numbers).duplicated().to_numpy()].itertuples(index=False)
    words = [_in_words(model, *map(str, kind)) for kind in first]
    reasons = np.array(words, dtype=object)[numbers]
    found = pd.DataFrame({ROW: cases["index"].astype("int64"), REASON: reasons}).astype({REASON: "str"})
    return found.drop_duplicates(ignore_index=True)


def _in_words(model: Model, context: str, column: str, check: str) -> str:
    """Return the reason for a failed check, such as `price is not between 1000 and 5000000`."""
    if context == "DataFrameSchema":
        return check
    if check == "not_nullable":
        return f"{column} is missing"
    for declared in model.SCHEMA.columns[column].checks:
        if str(declared.error) == check and declared.name == "str_length":
            return f"{column} has {_limits_in_words(**declared.statistics)} characters"
        if str(declared.error) == check and declared.name == "in_range":
            return f"{column} {_range_in_words(**declared.statistics)}"
        if str(declared.error) == check and declared.name in IN_WORDS:
            statistics = {name: _shortened(value) for name, value in declared.statistics.items()}
            return f"{column} {IN_WORDS[declared.name].format(**statistics)}"
    return f"{column} breaks {_shortened(check)}"


def _shortened(value: Any) -> Any:
    """Shorten a long list or text in a reason, because each rejected row repeats the reason."""
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}…"
    if isinstance(value, Collection) and len(value) > MOST_VALUES:
        first = ", ".join(map(repr, [*value][:FEW_VALUES]))
        return f"[{first} and {len(value) - FEW_VALUES:,} more]"
    return value


def _range_in_words(min_value: Any, max_value: Any, *, include_min: bool = True, include_max: bool = True) -> str:
    """Return the reason for a value outside of a range, such as `is not between 1 and 5`."""
    if include_min and include_max:
        return f"is not between {min_value} and {max_value}"
    return (
        f"is not {'at least' if include_min else 'greater than'} {min_value} "
        f"and {'at most' if include_max else 'less than'} {max_value}"
    )


def _limits_in_words(min_value: int | None = None, max_value: int | None = None, **_: object) -> str:
    """Return the words for a length that is outside of the limits, such as `more than 2,000`."""
    if min_value is None:
        return f"more than {max_value:,}"
    return f"fewer than {min_value:,}" if max_value is None else f"fewer than {min_value:,} or more than {max_value:,}"
