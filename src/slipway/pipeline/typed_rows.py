"""Convert delivered columns to the types of the schema, and find the values with a wrong type.

Arrow converts a whole column at once. Values are examined one by one only if Arrow cannot convert the column.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import repeat
from sys import float_info
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pandera.dtypes import DataType, is_bool, is_datetime, is_float, is_int
from pandera.errors import ParserError
from pandera.pandas import Column

from slipway.contract import ARRAYS, Model, kind_of, shape_of
from slipway.errors import InputError
from slipway.images import decode_base64, max_bytes
from slipway.pipeline.array_columns import Faults, has_arrays, objects, read_images, read_vectors
from slipway.pipeline.columns import REASON, ROW
from slipway.pipeline.csv_records import BOOLEANS, NUMBER
from slipway.pipeline.delivery import Chunk

ISO_8601 = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?$"
ISO_8601_WITH_ZONE = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})$"
YEARS = "from 1678 to 2261"
"""The years whose dates can be stored in nanoseconds, for messages."""
WHOLE = r"^[+-]?[0-9]+(\.0*)?$"
"""Matches the texts of whole numbers. pandas writes 3 as `3.0` if another value of the column is missing."""
FIRST_INEXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
"""For each type, the smallest whole number that may be the result of rounding a different number."""
INT64 = np.iinfo(np.int64)
Mask = NDArray[np.bool_]


def fault_table(rows: "pd.Index[int]", reason: str | Sequence[str]) -> pd.DataFrame:
    """Return a table of faults with one line for each row.

    `reason` is the reason for all rows, or a list with one reason for each row.
    """
    return pd.DataFrame({ROW: rows.astype("int64"), REASON: reason}).astype({REASON: "str"})


def join_faults(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of faults."""
    found = [table for table in tables if len(table)]
    return pd.concat(found, ignore_index=True) if found else fault_table(pd.Index([]), "")


def reasons_by_row(faults: pd.DataFrame) -> dict[int, list[str]]:
    """Return the reasons of each faulty row, in the order of the rows."""
    found: dict[int, list[str]] = {}
    each = zip(faults[ROW].tolist(), faults[REASON].tolist(), strict=True)
    for row, reason in sorted(each, key=lambda fault: fault[0]):  # faster than pandas for a few rows
        found.setdefault(row, []).append(reason)
    return found


class Batch:
    """Chunks with the same columns that are checked together. The chunks can be from several deliveries."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        self.table = pa.concat_tables([chunk.table for chunk in chunks])
        self.ends = np.cumsum([len(chunk.rows) for chunk in chunks])
        """For each chunk, the position in the batch after its last row."""

    def image_readers(self, limit: int) -> Iterator[Callable[[str], bytes]]:
        """Yield, for each row, a function that reads the image from a text, which is a file name or base64.

        `limit` is the maximum size of an image file in bytes.
        """
        for chunk in self.chunks:
            images = chunk.images
            yield from repeat(partial(images.read, limit=limit) if images else decode_base64, len(chunk.rows))

    def place(self, position: int) -> str:
        """Return the delivery and the row at a position, for messages."""
        number = int(np.searchsorted(self.ends, position, side="right"))
        chunk = self.chunks[number]
        return f"{chunk.where}, row {chunk.rows[position - int(self.ends[number])]}"


def typed_rows(batch: Batch, model: Model) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows whose values all have the types of the schema, and the faults of the other rows.

    Rows and faults are indexed by the position in the batch, not by the row number. Raises InputError if the type of a
    Parquet column cannot be converted, or if a key has more digits than its type can store.
    """
    index = pd.RangeIndex(len(batch.table))
    faults = []
    columns: dict[str, pd.Series[Any]] = {}
    right = np.ones(len(index), dtype=bool)
    for name, column in model.SCHEMA.columns.items():
        if kind_of(column) in ARRAYS:
            columns[name], found = _arrays(batch, name, column)
            faults += [fault_table(index[wrong], f"{name} {reason}") for reason, wrong in found.items()]
            right = np.all([right, *(~each for each in found.values())], axis=0)
            continue
        values, wrong = _converted(batch, name, column)
        if wrong is not None:
            faults.append(fault_table(index[wrong], f"{name} is not {type_in_words(column.dtype)}"))
            right &= ~wrong
        # NumPy's integers and booleans cannot represent missing values.
        if (is_int(column.dtype) or is_bool(column.dtype)) and not column.nullable and values.null_count:
            missing = _mask(values.is_null()) & ~(np.zeros_like(right) if wrong is None else wrong)
            faults.append(fault_table(index[missing], f"{name} is missing"))
            right &= ~missing
        columns[name] = _as_pandas(values, column.dtype)
    typed = pd.DataFrame(columns)
    _check_key_precision(batch, right, model)
    return typed if right.all() else typed[right], join_faults(faults)


def type_in_words(dtype: DataType) -> str:
    """Return the words that messages use for a value of the type, such as `a number`."""
    if is_float(dtype):
        return "a number"
    if is_int(dtype):
        low, high = _int_range(dtype)
        is_short = high < INT64.max
        return f"a whole number from {low} to {high}" if is_short else "a whole number of at most 64 bits"
    if is_bool(dtype):
        return "true or false"
    if is_datetime(dtype) and getattr(dtype, "tz", None) and _has_no_format(dtype):
        return f"a time {YEARS} with its zone as 2000-12-31T23:59:59Z"
    if is_datetime(dtype):
        return f"a date {YEARS} as {getattr(dtype, 'to_datetime_kwargs', {}).get('format', '2000-12-31')}"
    return "text"


def _arrays(batch: Batch, name: str, column: Column) -> tuple["pd.Series[Any]", Faults]:
    """Return a column's vectors or images, and a mask of the rows with each fault.

    Missing and faulty values become None.
    """
    if name not in batch.table.column_names:
        return pd.Series(objects([None] * len(batch.table))), {}
    values = _plain(batch.table.column(name))
    kind, shape = str(kind_of(column)), shape_of(column) or ()
    if not has_arrays(values.type, kind):
        words = "images as bytes" if kind == "image" else "a list of numbers"
        raise _other_type(batch, name, values.type, words)
    if kind == "image":
        return read_images(values, shape, batch.image_readers(max_bytes(shape)))
    return read_vectors(values, *shape)


def _converted(batch: Batch, name: str, column: Column) -> tuple[pa.Array, Mask | None]:
    """Return the values of a column, and a mask of the values with a wrong type.

    Missing values are null. The mask is None if all values have the right type.
    """
    if name not in batch.table.column_names:
        return _missing(column.dtype, len(batch.table)), None
    values = _plain(batch.table.column(name))
    text = pa.types.is_string(values.type)
    if is_float(column.dtype):
        return _numbers_of_text(values) if text else _numbers(values, batch, name)
    if is_int(column.dtype):
        return _within_type(*_whole_numbers(values, batch, name), column.dtype)
    if is_bool(column.dtype):
        return _booleans(values, batch, name)
    if is_datetime(column.dtype):
        return _dates_of_text(values, column.dtype) if text else (_dates(values, batch, name, column.dtype), None)
    return (values if text else _texts(values, batch, name)), None


def _missing(dtype: DataType, rows: int) -> pa.Array:
    at = pa.timestamp("ns", str(dtype.tz) if getattr(dtype, "tz", None) else None)
    kinds = ((is_float, pa.float64()), (is_int, pa.int64()), (is_bool, pa.bool_()), (is_datetime, at))
    return pa.nulls(rows, next((kind for is_kind, kind in kinds if is_kind(dtype)), pa.string()))


def _plain(values: pa.ChunkedArray) -> pa.Array:
    """Return a column as one Arrow array.

    All strings get the type `string`. An empty string becomes null, as in CSV.
    """
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


def _numbers(values: pa.Array, batch: Batch, name: str) -> tuple[pa.Array, Mask | None]:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise _other_type(batch, name, kind, "a number")
    numbers = pc.cast(values, pa.float64(), safe=False)
    if not pa.types.is_floating(kind):
        return numbers, None
    infinite = pc.fill_null(pc.is_inf(numbers), False)
    wrong = _mask(infinite) if pc.any(infinite).as_py() else None
    return pc.if_else(pc.is_finite(numbers), numbers, None), wrong


def _whole_numbers(values: pa.Array, batch: Batch, name: str) -> tuple[pa.Array, Mask | None]:
    """Convert values to 64-bit integers without loss.

    A number with a fraction, or with more than 64 bits, has a wrong type.
    """
    kind = values.type
    whole = values
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), None, values)
        whole = pc.if_else(pc.is_finite(values), values, None)
    elif pa.types.is_string(kind):
        whole = pc.if_else(pc.match_substring_regex(values, WHOLE), pc.utf8_ltrim(values, "+"), None)
        if pc.any(pc.match_substring(whole, ".")).as_py():
            whole = pc.replace_substring_regex(whole, r"\.0*$", "")
    elif not (pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise _other_type(batch, name, kind, "a whole number")
    try:
        numbers = pc.cast(whole, pa.int64())
    except pa.ArrowInvalid:
        numbers = pa.array([_as_int64(value) for value in whole.to_pylist()], pa.int64())
    wrong = pc.and_(values.is_valid(), numbers.is_null())
    return numbers, _mask(wrong) if pc.any(wrong).as_py() else None


def _within_type(numbers: pa.Array, wrong: Mask | None, dtype: DataType) -> tuple[pa.Array, Mask | None]:
    """Return the numbers, and a mask that also marks those that the type cannot store, such as 300 in a `uint8` column.

    NumPy would silently store another number.
    """
    low, high = _int_range(dtype)
    if (low, high) == (INT64.min, INT64.max):
        return numbers, wrong
    fits = pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))
    beyond = _mask(pc.invert(fits))
    if not beyond.any():
        return numbers, wrong
    return pc.if_else(fits, numbers, None), beyond if wrong is None else beyond | wrong


def _int_range(dtype: DataType) -> tuple[int, int]:
    """Return the smallest and the largest whole number that a column of this type stores, within 64 signed bits."""
    stored = np.iinfo(getattr(dtype.type, "numpy_dtype", dtype.type))
    return int(stored.min), min(int(stored.max), INT64.max)


def _as_int64(value: Any) -> int | None:
    if value is None or int(value) != (value if not isinstance(value, str) else int(value)):
        return None
    return int(value) if -(2**63) <= int(value) < 2**63 else None


def _booleans(values: pa.Array, batch: Batch, name: str) -> tuple[pa.Array, Mask | None]:
    kind = values.type
    if pa.types.is_boolean(kind):
        return values, None
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        raise _other_type(batch, name, kind, "true or false")
    texts = pc.utf8_lower(pc.cast(values, pa.string()))
    known = pc.is_in(texts, pa.array([*BOOLEANS]))
    found = pc.if_else(known, pc.is_in(texts, pa.array([text for text, value in BOOLEANS.items() if value])), None)
    wrong = pc.and_(values.is_valid(), pc.invert(known))
    return found, _mask(wrong) if pc.any(wrong).as_py() else None


def _dates_of_text(values: pa.Array, dtype: DataType) -> tuple[pa.Array, Mask | None]:
    """Convert texts to dates. Each distinct text is converted only once, because dates often repeat in a column."""
    encoded = values.dictionary_encode()
    distinct = encoded.dictionary.to_pandas()
    wrong = _not_dates(distinct, dtype)
    right = distinct.mask(distinct.index.isin(wrong))
    read = _read_iso_8601(right, dtype) if _has_no_format(dtype) else dtype.try_coerce(right)
    zone = getattr(dtype, "tz", None)
    dates = pa.Array.from_pandas(read if zone is None else read.dt.tz_convert(None))
    dates = dates if zone is None else dates.cast(pa.timestamp("ns", str(zone)))
    converted = dates.take(encoded.indices)
    return converted, None if wrong.empty else _mask(pc.and_(values.is_valid(), converted.is_null()))


def _has_no_format(dtype: DataType) -> bool:
    return "format" not in (getattr(dtype, "to_datetime_kwargs", None) or {})


def _read_iso_8601(texts: "pd.Series[str]", dtype: DataType) -> "pd.Series[Any]":
    """Convert ISO 8601 texts to times. If the type has a time zone, each text must have a zone or an offset."""
    zone = getattr(dtype, "tz", None)
    if zone is not None:
        known = texts.where(texts.str.fullmatch(ISO_8601_WITH_ZONE, na=False))
        times = pd.to_datetime(known, format="ISO8601", errors="coerce", utc=True)
        return _within_range(times).dt.tz_convert(zone).dt.as_unit("ns")
    dates = pd.to_datetime(texts.where(texts.str.fullmatch(ISO_8601, na=False)), format="ISO8601", errors="coerce")
    return _within_range(dates).astype("datetime64[ns]")


def _within_range(times: "pd.Series[Any]") -> "pd.Series[Any]":
    """Remove times that do not fit into 64-bit nanoseconds. One such time would make pandas reject the whole column."""
    zone = times.dt.tz
    first, last = (each.tz_localize(zone) for each in (pd.Timestamp.min.ceil("D"), pd.Timestamp.max.floor("D")))
    return times.where(times.between(first, last))


def _not_dates(texts: "pd.Series[str]", dtype: DataType) -> "pd.Index[int]":
    """Return the positions of the texts that cannot be converted to dates."""
    if _has_no_format(dtype):
        return texts.index[texts.notna().to_numpy() & _read_iso_8601(texts, dtype).isna().to_numpy()]
    try:
        dtype.try_coerce(texts)
    except ParserError as error:
        if error.failure_cases is not None:
            return pd.Index(error.failure_cases["index"])
    else:
        return texts.index[:0]
    if len(texts) == 1:
        return texts.index
    half = len(texts) // 2  # bisect, because pandas does not report which text it cannot convert
    return _not_dates(texts.iloc[:half], dtype).append(_not_dates(texts.iloc[half:], dtype))


def _dates(values: pa.Array, batch: Batch, name: str, dtype: DataType) -> pa.Array:
    kind, zone = values.type, getattr(dtype, "tz", None)
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise _other_type(batch, name, kind, "a date")
    if bool(getattr(kind, "tz", None)) != (zone is not None):
        raise _other_type(batch, name, kind, f"a {'time with' if zone else 'date without'} a time zone")
    try:
        return pc.cast(values, pa.timestamp("ns", str(zone) if zone else None))
    except pa.ArrowInvalid:
        years = np.asarray(pc.fill_null(pc.year(values), 2000))
        place = batch.place(int(np.argmax((years < 1678) | (years > 2261))))
        raise InputError(f"{place}: {name} is not {YEARS}; correct it.") from None


def _texts(values: pa.Array, batch: Batch, name: str) -> pa.Array:
    if not pa.types.is_integer(values.type):
        raise _other_type(batch, name, values.type, "text")
    return pc.cast(values, pa.string())


def _other_type(batch: Batch, name: str, kind: pa.DataType, words: str) -> InputError:
    return InputError(
        f"{batch.chunks[0].where}: the column {name} has the type {str(kind)[:100]}, but src/model/schema.py declares "
        f"{words}; deliver the declared type, or correct the schema."
    )


def _as_pandas(values: pa.Array, dtype: DataType) -> "pd.Series[Any]":
    if is_bool(dtype):
        booleans = values.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get)
        return booleans if hasattr(dtype.type, "na_value") else booleans.fillna(value=False).astype(bool)
    if is_int(dtype):  # pandas would convert integers with missing values to float and lose digits
        whole = values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
        return whole.astype(dtype.type) if hasattr(dtype.type, "na_value") else whole.fillna(0).astype(dtype.type)
    series: pd.Series[Any] = values.to_pandas()
    if series.dtype == dtype.type:
        return series
    with np.errstate(over="ignore"):  # a number beyond the type becomes infinite, and then gets a fault
        return dtype.try_coerce(series)


def _check_key_precision(batch: Batch, right: Mask, model: Model) -> None:
    """Raise InputError if a key has more digits than a float can store, because two rows could then get the same id."""
    for name in model.KEY:
        values = _plain(batch.table.column(name))
        if is_int(model.SCHEMA.columns[name].dtype) and values.type in FIRST_INEXACT:
            numbers = pc.fill_null(pc.cast(values, pa.float64()), 0).to_numpy()
            inexact = np.flatnonzero((np.abs(numbers) >= FIRST_INEXACT[values.type]) & right)
            if len(inexact):
                raise InputError(
                    f"{batch.place(int(inexact[0]))}: {name} is part of KEY, and has the type {values.type}, which "
                    f"cannot hold all digits of its number; deliver it as whole numbers or as text."
                )
        if not is_float(model.SCHEMA.columns[name].dtype) or pa.types.is_floating(values.type):
            continue
        texts = pc.cast(values, pa.string())
        long = np.flatnonzero(_mask(pc.greater(pc.utf8_length(texts), float_info.dig)) & right)
        for place in long:
            if not _is_faithful(texts[int(place)].as_py()):
                raise InputError(
                    f"{batch.place(int(place))}: {name} is part of KEY, and has more digits than a float "
                    f"holds; declare {name!r} as str in src/model/schema.py."
                )


def _is_faithful(text: str) -> bool:
    """Return True if converting the text to float loses no digits.

    The text must be the float's exact value, its shortest form, or its form with 17 digits.
    """
    number = float(text)
    return Decimal(text) in (Decimal(number), Decimal(repr(number)), Decimal(f"{number:.17g}"))


def _mask(values: pa.Array) -> Mask:
    mask: Mask = np.asarray(pc.fill_null(values, False))
    return mask
