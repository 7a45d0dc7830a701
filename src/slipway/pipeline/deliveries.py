"""Read and check a delivery, a CSV file whose content is not trusted."""

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from pandera.dtypes import DataType, is_float, is_string
from pandera.errors import ParserError, SchemaErrors
from pandera.pandas import Check

from slipway.contract import Model, texts_of
from slipway.errors import InputError
from slipway.pipeline.columns import REASON, ROW

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
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
    """The rows of one file, indexed by the number of the row in the file. The header is row 1.

    `accepted` has the columns and types of the schema. `faults` has the columns `row` and `reason`, with one line for
    each fault of a row. `raw` has every row as text. If a row cannot be split into columns, the first column of `raw`
    contains the whole line. A text is replaced by its length.
    """

    name: str
    raw: pd.DataFrame
    accepted: pd.DataFrame
    faults: pd.DataFrame


def read_delivery(path: Path, model: Model, today: date) -> Delivery:
    """Read one file and check each row against the schema of the model.

    Raises InputError if the whole file is unusable: empty, truncated, not UTF-8, with other columns, or with a row
    dated after `today`. A row with a future date is not quarantined, because the same file would be read differently on
    a later day.
    """
    raw, malformed, uncut = _cut(path)
    _check_header(path, list(raw.columns), list(model.SCHEMA.columns))
    typed, faults = _parse(raw, model)
    _check_key_precision(path, raw.loc[typed.index], model)
    if model.TIME:
        _check_not_future(path, typed[model.TIME], today)
    faults = pd.concat([malformed, faults, _broken_checks(typed, model)], ignore_index=True)
    accepted = typed.drop(index=faults[ROW].unique(), errors="ignore")
    shown = pd.concat([_without_texts(raw, model), _without_content(uncut, model)]).sort_index()
    return Delivery(path.name.removesuffix(".csv"), shown, accepted, faults)


def _without_texts(raw: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Replace texts by their lengths if the schema has a text, because the quarantine is recorded in MLflow.

    A row may have its texts in the wrong columns, so only numbers, dates and listed values are shown.
    """
    if not texts_of(model):
        return raw
    shown = {}
    for name, column in model.SCHEMA.columns.items():
        values = raw[name]
        if is_string(column.dtype):
            hidden = ~values.isin([value for check in column.checks for value in _listed(check)])
        else:
            hidden = values.index.to_series().isin(_not_of_type(values, column.dtype))
        shown[name] = values.mask(hidden, values.map(_as_length, na_action="ignore"))
    return raw.assign(**shown)


def _listed(check: Check) -> Iterable[str]:
    return map(str, (check.statistics or {}).get("allowed_values", ()))


def _without_content(uncut: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Replace lines that could not be split, if a column is a text."""
    return uncut.map(_as_length) if texts_of(model) else uncut


def _as_length(text: str) -> str:
    return f"({len(text):,} characters)"


def fault_table(rows: "pd.Index[int]", reason: str) -> pd.DataFrame:
    """Return a table of faults with one line for each of `rows`, all with the same reason."""
    return pd.DataFrame({ROW: rows.astype("int64"), REASON: reason}).astype({REASON: "str"})


def _cut(path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split the lines of a file into columns of text.

    Return the rows, the faults of lines with too few or too many values, and these lines as a whole.
    """
    content = path.read_bytes()
    if not content.strip():
        raise InputError(f"{path} is empty; deliver it again.")
    if not content.endswith(b"\n"):
        raise InputError(f"{path} is truncated: its last row has no line break; deliver it again.")
    _check_utf8(path, content)

    malformed: dict[int, tuple[str, str]] = {}

    def refuse(row: pa.csv.InvalidRow) -> str:
        fault = f"has {row.actual_columns} values instead of {row.expected_columns}"
        malformed[row.number] = (fault, row.text)
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
        raise InputError(f"{path} is not CSV ({error}); deliver it again.") from None
    _check_lines(path, content, len(table) + len(malformed))
    raw = table.to_pandas()
    raw.index = pd.Index([row for row in range(2, len(raw) + len(malformed) + 2) if row not in malformed], name=ROW)
    if raw.empty:
        raise InputError(f"{path} has no rows that can be read; deliver it again.")
    rows = pd.Index(list(malformed), dtype="int64", name=ROW)
    faults = pd.DataFrame({ROW: rows, REASON: [fault for fault, _ in malformed.values()]}).astype({REASON: "str"})
    uncut = pd.DataFrame({raw.columns[0]: [text for _, text in malformed.values()]}, index=rows)
    return raw, faults, uncut


def _check_lines(path: Path, content: bytes, rows: int) -> None:
    """Check that each line is one row. If a quote is not closed, the next lines would become part of its value."""
    lines = content.split(b"\n")[1:-1]
    if len(lines) == rows:
        return
    odd = [number for number, line in enumerate(lines, start=2) if line.count(b'"') % 2 or b"\r" in line.rstrip(b"\r")]
    where = f", row {odd[0]}" if odd else ""
    raise InputError(
        f"{path}{where}: {len(lines)} lines make {rows} rows, so a quote is not closed or a value holds a line break; "
        "deliver one row a line."
    )


def _check_utf8(path: Path, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {row}: not UTF-8; deliver the file in UTF-8.") from None


def _check_header(path: Path, delivered: list[str], expected: list[str]) -> None:
    problems = {
        "lacks the column": [name for name in expected if name not in delivered],
        "has the unknown column": [name for name in delivered if name not in expected],
        "has twice the column": [name for name in expected if delivered.count(name) > 1],
    }
    for problem, names in problems.items():
        if names:
            plural = "s" if len(names) > 1 else ""
            raise InputError(
                f"{path} {problem}{plural} {', '.join(names)}; "
                "deliver the columns of src/model/schema.py, or change the schema with the data."
            )


def _parse(raw: pd.DataFrame, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Convert text to the types of the schema. Return the converted rows, and the faults of rows with a wrong type."""
    faults = [fault_table(pd.Index([]), "")]
    columns = {}
    for name, column in model.SCHEMA.columns.items():
        values = raw[name]
        wrong = _not_of_type(values, column.dtype)
        if not wrong.empty:
            faults.append(fault_table(wrong, f"{name} is not {_type_in_words(column.dtype)}"))
            values = values.mask(values.index.isin(wrong))
        columns[name] = column.dtype.try_coerce(values)
    typed = pd.DataFrame(columns)
    found = pd.concat(faults, ignore_index=True)
    return typed.drop(index=found[ROW].unique()), found


def _not_of_type(values: "pd.Series[str]", dtype: DataType) -> "pd.Index[int]":
    """Return the numbers of the rows whose text cannot be converted to the type."""
    if is_float(dtype):  # Python also accepts 1_000, inf and nan, and reads 1e999 as inf
        numbers = values.where(values.str.fullmatch(NUMBER, na=False)).astype("float64")
        return values.index[values.notna().to_numpy() & ~np.isfinite(numbers.to_numpy())]
    try:
        dtype.try_coerce(values)
    except ParserError as error:
        if error.failure_cases is not None:
            return pd.Index(error.failure_cases["index"])
    else:
        return values.index[:0]
    if len(values) == 1:
        return values.index
    half = len(values) // 2  # pandas does not name the row, for example of a date outside its range, so bisect
    return _not_of_type(values.iloc[:half], dtype).append(_not_of_type(values.iloc[half:], dtype))


def _type_in_words(dtype: DataType) -> str:
    if is_float(dtype):
        return "a number"
    return f"a date as {getattr(dtype, 'to_datetime_kwargs', {}).get('format', '2000-12-31')}"


def _check_key_precision(path: Path, raw: pd.DataFrame, model: Model) -> None:
    """Raise InputError if a key has more digits than a float can store. Two rows could then get the same id."""
    for name in model.KEY:
        if not is_float(model.SCHEMA.columns[name].dtype):
            continue
        long = raw[name][raw[name].str.len() > sys.float_info.dig]
        for row, text in long.items():
            if not _is_faithful(text):
                raise InputError(
                    f"{path}, row {row}: {name} is part of KEY, and {text} has more digits than a float holds; "
                    f"declare {name!r} as str in src/model/schema.py."
                )


def _is_faithful(text: str) -> bool:
    """Return True if the conversion to float loses nothing.

    The text must be the exact value of its float, its shortest form, or its form with 17 digits.
    """
    number = float(text)
    return Decimal(text) in (Decimal(number), Decimal(repr(number)), Decimal(f"{number:.17g}"))


def _check_not_future(path: Path, times: "pd.Series[pd.Timestamp]", today: date) -> None:
    future = times[times >= pd.Timestamp(today) + pd.Timedelta(days=1)]
    if not future.empty:
        raise InputError(
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
            return f"{column} {IN_WORDS[declared.name].format(**declared.statistics)}"
    return f"{column} breaks {check}"


def _limits_in_words(min_value: int | None = None, max_value: int | None = None, **_: object) -> str:
    """Describe a length outside of the limits."""
    if min_value is None:
        return f"more than {max_value:,}"
    return f"fewer than {min_value:,}" if max_value is None else f"fewer than {min_value:,} or more than {max_value:,}"
