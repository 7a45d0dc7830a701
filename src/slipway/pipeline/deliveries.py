"""Check the rows of a delivery, whose content is not trusted, against the schema of the model."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from pandera.errors import SchemaErrors

from slipway.config import Validate
from slipway.contract import Model, texts_of
from slipway.errors import InputError
from slipway.pipeline.columns import REASON, ROW, ROW_ID
from slipway.pipeline.delivery import Chunk, read_chunks
from slipway.pipeline.delivery_cache import DeliveryCache, Entry, Kept
from slipway.pipeline.header import Columns, check_header, why_none
from slipway.pipeline.row_ids import row_ids
from slipway.pipeline.typed_rows import Batch, fault_table, join_faults, typed_rows

IN_WORDS = {  # the reason that is given when a check of pandera fails, by the name of the check
    "in_range": "is not between {min_value} and {max_value}",
    "isin": "is not one of {allowed_values}",
    "greater_than": "is not above {min_value}",
    "greater_than_or_equal_to": "is below {min_value}",
    "less_than": "is not below {max_value}",
    "less_than_or_equal_to": "is above {max_value}",
}


MOST_VALUES, FEW_VALUES = 30, 5
"""A reason lists at most 30 allowed values. If there are more, it lists 5 and the number of the others."""
MOST_CHARACTERS = 500

LARGEST = float(np.finfo(np.float32).max)
BATCH_ROWS = 100_000
"""Rows that are checked at a time. A check has a fixed cost, so small deliveries are checked together."""


class RawRows(Protocol):
    """The rows of a part as they were delivered."""

    def as_text(self, rows: "pd.Index[int]") -> pd.DataFrame:
        """Return some of the rows as text."""


@dataclass(frozen=True)
class Delivery:
    """A delivery, or a part of it, indexed by the number of the row.

    `accepted` has the columns and types of the schema, and the ids of the rows. `faults` has the columns `row` and
    `reason`, with one line for each fault of a row.
    """

    name: str
    raw: RawRows
    accepted: pd.DataFrame
    faults: pd.DataFrame
    columns: Columns
    replaced: int = 0
    """The number of accepted rows that replace rows of earlier deliveries."""


@dataclass
class _Waiting:
    """A chunk that waits for its batch. `is_last` is set for the last chunk of a delivery."""

    name: str
    chunk: Chunk
    columns: Columns
    entry: Entry
    is_last: bool = False

    def fits(self, chunk: Chunk) -> bool:
        """Return whether another chunk has the same columns."""
        return bool(chunk.table.schema.equals(self.chunk.table.schema))


def read_deliveries(
    paths: Mapping[str, Path],
    model: Model,
    rules: Validate,
    today: date,
    cache: DeliveryCache,
    where: str | None = None,
) -> Iterator[Delivery]:
    """Read deliveries, and check each row against the schema of the model. Yield them in parts that fit into memory.

    A delivery in the cache is not read again. `where` names the delivery in messages, if it is a copy. Raises
    InputError if a whole delivery is unusable: empty, truncated, not UTF-8, with other columns, or with a row dated
    after `today`. A row with a future date is not quarantined, because the same file would be read differently on a
    later day.
    """
    fresh: list[_Waiting] = []
    kept: list[tuple[str, Path, Kept]] = []
    for name, path in paths.items():
        entry = cache.entry(path)
        for part in entry.read():
            yield from _checked(fresh, model, today)
            fresh = []
            if sum(len(each.table) for _, _, each in kept) > BATCH_ROWS:
                yield from _restored(kept, model, today)
                kept = []
            kept.append((name, path, part))
        if kept and kept[-1][0] == name:
            continue
        yield from _restored(kept, model, today)
        kept = []
        for chunk, columns in _chunks(path, where or str(path), model, rules):
            together = sum(len(each.chunk.rows) for each in fresh) + len(chunk.rows)
            if fresh and (together > BATCH_ROWS or not fresh[-1].fits(chunk)):
                yield from _checked(fresh, model, today)
                fresh = []
            fresh.append(_Waiting(name, chunk, columns, entry))
        fresh[-1].is_last = True
    yield from _restored(kept, model, today)
    yield from _checked(fresh, model, today)


def _chunks(path: Path, where: str, model: Model, rules: Validate) -> Iterator[tuple[Chunk, Columns]]:
    readable = False
    malformed: dict[int, tuple[str, str]] = {}
    for chunk in read_chunks(path, where):
        columns = check_header(chunk, model, rules)
        readable |= len(chunk.rows) > 0
        malformed |= chunk.malformed
        yield chunk, columns
    if not readable:
        raise InputError(f"{where} has no rows that can be read{why_none(malformed)}; deliver it again.")


def _restored(kept: Sequence[tuple[str, Path, Kept]], model: Model, today: date) -> Iterator[Delivery]:
    """Return parts that were checked before."""
    if not kept:
        return
    ends = np.cumsum([len(part.table) for _, _, part in kept])
    accepted = pa.concat_tables([part.table for _, _, part in kept]).to_pandas().set_index(ROW)
    if model.TIME:

        def place(position: int) -> str:
            path = kept[int(np.searchsorted(ends, position, side="right"))][1]
            return f"{path}, row {accepted.index[position]}"

        _check_not_future(accepted[model.TIME].reset_index(drop=True), today, place)
    for (name, _, part), end in zip(kept, ends, strict=True):
        yield Delivery(name, part.raw, accepted.iloc[end - len(part.table) : end], part.faults, part.columns)


def _checked(waiting: Sequence[_Waiting], model: Model, today: date) -> Iterator[Delivery]:
    """Check a batch, and divide it into its deliveries."""
    if not waiting:
        return
    batch = Batch([each.chunk for each in waiting])
    typed, faults = typed_rows(batch, model)
    if model.TIME:
        _check_not_future(typed[model.TIME], today, batch.place)
    _check_whole_days(typed, model, batch.place)
    faults = join_faults([faults, *_too_large(typed, model), _broken_checks(typed, model)])
    faults = faults.sort_values(ROW, kind="stable")
    accepted = typed[~typed.index.isin(faults[ROW])] if len(faults) else typed
    accepted = accepted.assign(**{ROW_ID: row_ids(accepted, model)})
    bounds = [0, *batch.ends.tolist()]
    cuts = np.searchsorted(accepted.index, bounds)
    fault_cuts = np.searchsorted(faults[ROW], bounds)
    numbers = np.concatenate([each.chunk.rows for each in waiting])
    accepted = accepted.set_axis(pd.Index(numbers[accepted.index.to_numpy()], name=ROW))
    faults = faults.assign(**{ROW: numbers[faults[ROW].to_numpy()]})
    table = pa.Table.from_pandas(accepted.reset_index(), preserve_index=False)
    for number, each in enumerate(waiting):
        start, end = cuts[number : number + 2]
        found = faults.iloc[slice(*fault_cuts[number : number + 2])]
        found = join_faults([_malformed(each.chunk), found]) if each.chunk.malformed else found
        each.entry.add(table.slice(start, end - start), each.chunk, found, each.columns, is_last=each.is_last)
        yield Delivery(each.name, each.chunk, accepted.iloc[start:end], found, each.columns)


def _malformed(chunk: Chunk) -> pd.DataFrame:
    """Return the faults of rows that cannot be split into columns."""
    reasons = [fault for fault, _ in chunk.malformed.values()]
    return pd.DataFrame({ROW: [*chunk.malformed], REASON: reasons}).astype({ROW: "int64", REASON: "str"})


def _check_not_future(times: "pd.Series[pd.Timestamp]", today: date, place: Callable[[int], str]) -> None:
    future = times[times >= pd.Timestamp(today) + pd.Timedelta(days=1)]
    if not future.empty:
        raise InputError(
            f"{place(future.index[0])}: {times.name} {future.iloc[0]:%Y-%m-%d} is in the future "
            f"({len(future)} such rows); deliver the file with the right date."
        )


def _check_whole_days(typed: pd.DataFrame, model: Model, place: Callable[[int], str]) -> None:
    """Raise InputError if a feature has a time of day, because a request has only dates."""
    for name in model.FEATURES:
        if name in typed and typed[name].dtype.kind == "M":
            odd = typed[name][typed[name].notna() & (typed[name] != typed[name].dt.normalize())]
            if not odd.empty:
                raise InputError(
                    f"{place(odd.index[0])}: {name} is {odd.iloc[0]}, but a feature can only be a date without a time "
                    "of day; deliver the date, and the hour as a number, or remove it from FEATURES."
                )


def _too_large(typed: pd.DataFrame, model: Model) -> Iterator[pd.DataFrame]:
    """Yield the faults of features beyond single precision, which the model and the server read as infinite."""
    for name in model.FEATURES:
        if name in typed and typed[name].dtype.kind == "f":
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
        detail = "" if texts_of(model) else f" ({first['failure_case']})"  # may quote a value
        raise InputError(
            f"src/model/schema.py: the check {first['check']!r} does not work on the data{detail}; correct the schema."
        )
    kinds = cases[["schema_context", "column", "check"]].astype(str)
    each_row = list(zip(kinds["schema_context"], kinds["column"], kinds["check"], strict=True))
    words = {kind: _in_words(model, *kind) for kind in set(each_row)}
    reasons = [words[kind] for kind in each_row]
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
        if str(declared.error) == check and declared.name in IN_WORDS:
            statistics = {name: _shortened(value) for name, value in declared.statistics.items()}
            return f"{column} {IN_WORDS[declared.name].format(**statistics)}"
    return f"{column} breaks {_shortened(check)}"


def _shortened(value: Any) -> Any:
    """Shorten a long list or text, because each rejected row repeats it."""
    if isinstance(value, str):
        return value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}…"
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, Collection) and len(value) > MOST_VALUES:
        first = ", ".join(map(repr, [*value][:FEW_VALUES]))
        return f"[{first} and {len(value) - FEW_VALUES:,} more]"
    return value


def _limits_in_words(min_value: int | None = None, max_value: int | None = None, **_: object) -> str:
    """Describe a length outside of the limits."""
    if min_value is None:
        return f"more than {max_value:,}"
    return f"fewer than {min_value:,}" if max_value is None else f"fewer than {min_value:,} or more than {max_value:,}"
