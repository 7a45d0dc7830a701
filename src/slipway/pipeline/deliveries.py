"""Check the rows of a delivery, whose content is not trusted, against the schema of the model."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
from pandera.errors import SchemaErrors

from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import REASON, ROW
from slipway.pipeline.delivery import Chunk, read_chunks
from slipway.pipeline.header import check_header, why_none
from slipway.pipeline.typed_rows import fault_table, typed_rows

IN_WORDS = {  # the reason that is given when a check of pandera fails, by the name of the check
    "in_range": "is not between {min_value} and {max_value}",
    "isin": "is not one of {allowed_values}",
    "greater_than": "is not above {min_value}",
    "greater_than_or_equal_to": "is below {min_value}",
    "less_than": "is not below {max_value}",
    "less_than_or_equal_to": "is above {max_value}",
}


@dataclass(frozen=True)
class Delivery:
    """Some rows of a delivery, indexed by the number of the row.

    `accepted` has the columns and types of the schema. `faults` has the columns `row` and `reason`, with one line for
    each fault of a row. `chunk` has every row as it was delivered.
    """

    name: str
    chunk: Chunk
    accepted: pd.DataFrame
    faults: pd.DataFrame


def read_delivery(
    path: Path, model: Model, today: date, name: str = "", where: str | None = None
) -> Iterator[Delivery]:
    """Read a delivery, and check each row against the schema of the model. Yield it in parts that fit into memory.

    `where` names the delivery in messages, if it is a copy. Raises InputError if the whole delivery is unusable: empty,
    truncated, not UTF-8, with other columns, or with a row dated after `today`. A row with a future date is not
    quarantined, because the same file would be read differently on a later day.
    """
    where = where or str(path)
    readable = False
    malformed: dict[int, tuple[str, str]] = {}
    for chunk in read_chunks(path, where):
        check_header(chunk, list(model.SCHEMA.columns))
        readable |= len(chunk.rows) > 0
        malformed |= chunk.malformed
        yield _checked(name, chunk, model, today)
    if not readable:
        raise InputError(f"{where} has no rows that can be read{why_none(malformed)}; deliver it again.")


def _checked(name: str, chunk: Chunk, model: Model, today: date) -> Delivery:
    typed, faults = typed_rows(chunk, model)
    if model.TIME:
        _check_not_future(chunk.where, typed[model.TIME], today)
    reasons = [fault for fault, _ in chunk.malformed.values()]
    malformed = pd.DataFrame({ROW: pd.Index(chunk.malformed, dtype="int64"), REASON: reasons}).astype({REASON: "str"})
    faults = pd.concat([malformed, faults, _broken_checks(typed, model)], ignore_index=True)
    accepted = typed.drop(index=faults[ROW].unique(), errors="ignore")
    return Delivery(name, chunk, accepted, faults)


def _check_not_future(where: str, times: "pd.Series[pd.Timestamp]", today: date) -> None:
    future = times[times >= pd.Timestamp(today) + pd.Timedelta(days=1)]
    if not future.empty:
        raise InputError(
            f"{where}, row {future.index[0]}: {times.name} {future.iloc[0]:%Y-%m-%d} is in the future "
            f"({len(future)} such rows); deliver the file with the right date."
        )


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
        raise InputError(
            f"src/model/schema.py: the check {first['check']!r} does not work on the data "
            f"({first['failure_case']}); correct the schema."
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
        if str(declared.error) == check and declared.name in IN_WORDS:
            return f"{column} {IN_WORDS[declared.name].format(**declared.statistics)}"
    return f"{column} breaks {check}"
