"""Reading a delivery: a CSV file that arrived from outside, so nothing in it is trusted."""

import csv
import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
from pandera.errors import ParserError, SchemaErrors

from slipway.contract import Model
from slipway.errors import BadInput

ROW = "row"
REASON = "reason"


@dataclass(frozen=True)
class Delivery:
    """The rows of one file, each in one of two tables, indexed by the row's number in the file (header: 1).

    `accepted` has the columns and types of the model's schema. `faults` has the columns `row` and `reason`, one line
    for each reason; `raw` has every row that could be cut into columns, as text.
    """

    name: str
    raw: pd.DataFrame
    accepted: pd.DataFrame
    faults: pd.DataFrame


def read_delivery(path: Path, model: Model, today: date) -> Delivery:
    """Read one file and hold each row against the schema of the model.

    Raises BadInput if the file as a whole cannot be used: empty, truncated, not UTF-8, other columns,
    or a row dated after `today`. (That one is no row's fault to quarantine: the same file
    would give other rows tomorrow.)
    """
    raw, malformed = _cut(path)
    _check_header(path, list(raw.columns), list(model.SCHEMA.columns))
    typed, faults = _parse(raw, model)
    if model.TIME:
        _check_not_future(path, typed[model.TIME], today)
    faults = pd.concat([malformed, faults, _broken_checks(typed, model)], ignore_index=True)
    accepted = typed.drop(index=faults[ROW].unique(), errors="ignore")
    return Delivery(path.name.removesuffix(".csv"), raw, accepted, faults)


def fault_table(rows: "pd.Index[int]", reason: str) -> pd.DataFrame:
    """The same reason for each of `rows`."""
    return pd.DataFrame({ROW: rows.astype("int64"), REASON: reason}).astype({REASON: "str"})


def _cut(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows as text, and the faults of those that have too few or too many values."""
    content = path.read_bytes()
    if not content.strip():
        raise BadInput(f"{path} is empty; deliver it again.")
    if not content.endswith(b"\n"):
        raise BadInput(f"{path} is truncated: its last row has no line break; deliver it again.")
    _check_utf8(path, content)

    malformed: list[tuple[int, str]] = []

    def refuse(row: pa.csv.InvalidRow) -> str:
        malformed.append((row.number, f"has {row.actual_columns} values instead of {row.expected_columns}"))
        return "skip"

    header = content.split(b"\n", 1)[0].decode("utf-8-sig").rstrip("\r")
    try:
        names = next(csv.reader([header]), [])
        table = pa.csv.read_csv(
            io.BytesIO(content),
            read_options=pa.csv.ReadOptions(use_threads=False),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=refuse, ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except (csv.Error, pa.ArrowInvalid) as error:
        raise BadInput(f"{path} is not CSV ({error}); deliver it again.") from None
    raw = table.to_pandas()
    taken = {row for row, _ in malformed}
    raw.index = pd.Index([row for row in range(2, len(raw) + len(taken) + 2) if row not in taken], name=ROW)
    if raw.empty:
        raise BadInput(f"{path} has no rows that can be read; deliver it again.")
    return raw, pd.DataFrame(malformed, columns=[ROW, REASON]).astype({ROW: "int64", REASON: "str"})


def _check_utf8(path: Path, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, row {row}: not UTF-8; deliver the file in UTF-8.") from None


def _check_header(path: Path, delivered: list[str], expected: list[str]) -> None:
    problems = {
        "lacks the column": [name for name in expected if name not in delivered],
        "has the unknown column": [name for name in delivered if name not in expected],
        "has twice the column": [name for name in expected if delivered.count(name) > 1],
    }
    for problem, names in problems.items():
        if names:
            plural = "s" if len(names) > 1 else ""
            raise BadInput(
                f"{path} {problem}{plural} {', '.join(names)}; "
                "deliver the columns of src/model/schema.py, or change the schema with the data."
            )


def _parse(raw: pd.DataFrame, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Text to the types of the schema; a row with a value that is not of its type is at fault."""
    faults = [fault_table(pd.Index([]), "")]
    columns = {}
    for name, column in model.SCHEMA.columns.items():
        values = raw[name]
        try:
            columns[name] = column.dtype.try_coerce(values)
        except ParserError as error:
            wrong = pd.Index(error.failure_cases["index"])
            faults.append(fault_table(wrong, f"{name} is not of type {column.dtype}"))
            columns[name] = column.dtype.try_coerce(values.mask(values.index.isin(wrong)))
    typed = pd.DataFrame(columns)
    found = pd.concat(faults, ignore_index=True)
    return typed.drop(index=found[ROW].unique()), found


def _check_not_future(path: Path, times: "pd.Series[pd.Timestamp]", today: date) -> None:
    future = times[times >= pd.Timestamp(today) + pd.Timedelta(days=1)]
    if not future.empty:
        raise BadInput(
            f"{path}, row {future.index[0]}: {times.name} {future.iloc[0]:%Y-%m-%d} is in the future "
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
        raise BadInput(
            f"src/model/schema.py: the check {first['check']!r} does not work on the data "
            f"({first['failure_case']}); correct the schema."
        )
    cases = cases.assign(row=cases["index"].astype("int64"), reason=_in_words(cases))
    return cases[[ROW, REASON]].drop_duplicates(ignore_index=True)


def _in_words(cases: pd.DataFrame) -> "pd.Series[str]":
    check = cases["check"].astype(str)
    column = cases["column"].astype(str)
    words = column.str.cat(check, sep=" breaks ")
    words = words.mask(check == "not_nullable", column + " is missing")
    return words.mask(cases["schema_context"] == "DataFrameSchema", check).astype("str")
