"""Convert delivered columns to the types of the schema, and find the values that have another type.

Arrow converts whole columns. Only if that fails, each value is examined.
"""

from decimal import Decimal
from sys import float_info
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandera.dtypes import DataType, is_datetime, is_float
from pandera.errors import ParserError
from pandera.pandas import Column

from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import REASON, ROW
from slipway.pipeline.delivery import Chunk

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
Mask = NDArray[np.bool_]


def fault_table(rows: "pd.Index[int]", reason: str) -> pd.DataFrame:
    """Return a table of faults with one line for each of `rows`, all with the same reason."""
    return pd.DataFrame({ROW: rows.astype("int64"), REASON: reason}).astype({REASON: "str"})


def typed_rows(chunk: Chunk, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows whose values all have the types of the schema, and the faults of the other rows.

    Raises InputError if a column of a Parquet file has a type that cannot be converted, or if a key has more digits
    than its type holds.
    """
    index = pd.Index(chunk.rows, name=ROW)
    faults = [fault_table(index[:0], "")]
    columns: dict[str, pd.Series[Any]] = {}
    right = np.ones(len(index), dtype=bool)
    for name, column in model.SCHEMA.columns.items():
        values, wrong = _converted(chunk, name, column)
        if wrong is not None:
            faults.append(fault_table(index[wrong], f"{name} is not {type_in_words(column.dtype)}"))
            right &= ~wrong
        columns[name] = _as_pandas(values, column.dtype, index)
    if not right.all():
        columns = {name: values[right] for name, values in columns.items()}
    _check_key_precision(chunk, right, model)
    return pd.DataFrame(columns, index=index[right]), pd.concat(faults, ignore_index=True)


def type_in_words(dtype: DataType) -> str:
    """Return how a value of the type is called in messages, such as `a number`."""
    if is_float(dtype):
        return "a number"
    if is_datetime(dtype):
        return f"a date as {getattr(dtype, 'to_datetime_kwargs', {}).get('format', '2000-12-31')}"
    return "text"


def _converted(chunk: Chunk, name: str, column: Column) -> tuple[pa.Array, Mask | None]:
    """Return the values of a column with nulls for missing ones, and which are of another type. None means none is."""
    values = _plain(chunk.table.column(name))
    text = pa.types.is_string(values.type)
    if is_float(column.dtype):
        return _numbers_of_text(values) if text else _numbers(values, chunk, name)
    if is_datetime(column.dtype):
        return _dates_of_text(values, column.dtype) if text else (_dates(values, chunk, name), None)
    return (values if text else _texts(values, chunk, name)), None


def _plain(values: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array. Text of every kind becomes `string`, and the empty text is missing, as in CSV."""
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_string(kind)
    array = pc.cast(values, pa.string() if is_text or pa.types.is_null(kind) else kind).combine_chunks()
    if is_text and pc.any(pc.equal(array, "")).as_py():
        array = pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.string()), array)
    return array


def _numbers_of_text(values: pa.Array) -> tuple[pa.Array, Mask | None]:
    try:
        numbers = pc.cast(values, pa.float64())
        if pc.all(pc.is_finite(numbers)).as_py() is not False:
            return numbers, None
    except pa.ArrowInvalid:
        pass
    # Arrow accepts the texts that NUMBER matches, and inf and nan. It reads 1e999 as inf.
    numbers = pc.cast(pc.if_else(pc.match_substring_regex(values, NUMBER), values, None), pa.float64())
    finite = pc.fill_null(pc.is_finite(numbers), False)
    return pc.if_else(finite, numbers, None), _mask(pc.and_(values.is_valid(), pc.invert(finite)))


def _numbers(values: pa.Array, chunk: Chunk, name: str) -> tuple[pa.Array, Mask | None]:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _other_type(chunk, name, kind, "a number")
    numbers = pc.cast(values, pa.float64(), safe=False)
    if not pa.types.is_floating(kind):
        return numbers, None
    infinite = pc.fill_null(pc.is_inf(numbers), False)
    wrong = _mask(infinite) if pc.any(infinite).as_py() else None
    return pc.if_else(pc.is_finite(numbers), numbers, None), wrong


def _dates_of_text(values: pa.Array, dtype: DataType) -> tuple[pa.Array, Mask | None]:
    """Convert each distinct text once, because most columns repeat their dates."""
    encoded = values.dictionary_encode()
    distinct = encoded.dictionary.to_pandas()
    wrong = _not_dates(distinct, dtype)
    dates = pa.Array.from_pandas(dtype.try_coerce(distinct.mask(distinct.index.isin(wrong))))
    converted = dates.take(encoded.indices)
    return converted, None if wrong.empty else _mask(pc.and_(values.is_valid(), converted.is_null()))


def _not_dates(texts: "pd.Series[str]", dtype: DataType) -> "pd.Index[int]":
    """Return the positions of the texts that cannot be converted."""
    try:
        dtype.try_coerce(texts)
    except ParserError as error:
        if error.failure_cases is not None:
            return pd.Index(error.failure_cases["index"])
    else:
        return texts.index[:0]
    if len(texts) == 1:
        return texts.index
    half = len(texts) // 2  # pandas does not name the row, for example of a date outside its range, so bisect
    return _not_dates(texts.iloc[:half], dtype).append(_not_dates(texts.iloc[half:], dtype))


def _dates(values: pa.Array, chunk: Chunk, name: str) -> pa.Array:
    kind = values.type
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise _other_type(chunk, name, kind, "a date")
    if getattr(kind, "tz", None):
        raise _other_type(chunk, name, kind, "a date without a time zone")
    try:
        return pc.cast(values, pa.timestamp("ns"))
    except pa.ArrowInvalid:
        raise InputError(f"{chunk.where}: {name} has a date outside of the years 1678 to 2261; correct it.") from None


def _texts(values: pa.Array, chunk: Chunk, name: str) -> pa.Array:
    if not pa.types.is_integer(values.type):
        raise _other_type(chunk, name, values.type, "text")
    return pc.cast(values, pa.string())


def _other_type(chunk: Chunk, name: str, kind: pa.DataType, words: str) -> InputError:
    return InputError(
        f"{chunk.where}: the column {name} has the type {str(kind)[:100]}, but src/model/schema.py declares {words}; "
        "deliver the declared type, or correct the schema."
    )


def _as_pandas(values: pa.Array, dtype: DataType, index: "pd.Index[int]") -> "pd.Series[Any]":
    series: pd.Series[Any] = values.to_pandas().set_axis(index)
    return series if series.dtype == dtype.type else dtype.try_coerce(series)


def _check_key_precision(chunk: Chunk, right: Mask, model: Model) -> None:
    """Raise InputError if a key has more digits than a float can store. Two rows could then get the same id."""
    for name in model.KEY:
        values = _plain(chunk.table.column(name))
        if not is_float(model.SCHEMA.columns[name].dtype) or pa.types.is_floating(values.type):
            continue
        texts = pc.cast(values, pa.string())
        long = np.flatnonzero(_mask(pc.greater(pc.utf8_length(texts), float_info.dig)) & right)
        for place in long:
            if not _is_faithful(text := texts[int(place)].as_py()):
                raise InputError(
                    f"{chunk.where}, row {chunk.rows[place]}: {name} is part of KEY, and {text} has more digits than a "
                    f"float holds; declare {name!r} as str in src/model/schema.py."
                )


def _is_faithful(text: str) -> bool:
    """Return True if the conversion to float loses nothing.

    The text must be the exact value of its float, its shortest form, or its form with 17 digits.
    """
    number = float(text)
    return Decimal(text) in (Decimal(number), Decimal(repr(number)), Decimal(f"{number:.17g}"))


def _mask(values: pa.Array) -> Mask:
    mask: Mask = np.asarray(pc.fill_null(values, False))
    return mask
