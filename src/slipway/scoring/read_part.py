"""Read one part of the input in blocks of rows.

Each value is converted to the form that a client would send in JSON.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from slipway.bundle import Column, Schema
from slipway.delivery_names import NOT_TAKEN, delivery_name
from slipway.errors import InputError
from slipway.pipeline.csv_records import BOOLEANS, NUMBER
from slipway.pipeline.delivery import read_chunks
from slipway.serving.problems import listed


class BadPart(Exception):
    """An error that prevents the scoring of a whole part. The message is a complete sentence."""


@dataclass(frozen=True)
class Block:
    """Some rows of a part.

    `rows` contains the row numbers. `features` contains the columns that the model reads. `kept` contains the columns
    that are copied to the answers. `malformed` maps the number of each unreadable row to the reason. The numbers in
    `malformed` are not in `rows`.
    """

    rows: NDArray[np.int64]
    features: Mapping[Column, pa.Array]
    kept: pa.Table
    malformed: Mapping[int, str]

    def kept_values(self, index: int) -> list[Any]:
        """Return the copied values of one row, which is given by its position in the block."""
        values = [_object(column[index]) for column in self.kept.columns]
        return [f"{each.type} out of range" if isinstance(each, pa.Scalar) else each for each in values]

    def columns(self, rows: range) -> dict[str, list[Any]]:
        """Return the values of a range of rows as one list for each column.

        `rows` are positions in the block, starting with 0.
        """
        return {
            column.name: _values(array.slice(rows.start, len(rows)), column) for column, array in self.features.items()
        }


def read_part(path: Path, name: str, schema: Schema, keep: Sequence[str]) -> Iterator[Block]:
    """Yield the rows of a part in at least one block. The first data row has the number 2 in every format.

    `name` identifies the part in messages. `keep` lists the columns to copy to the answers, in addition to the key
    columns. Raises BadPart if the part cannot be read, or if it lacks columns that the model requires.
    """
    if delivery_name(path.name) is None:
        raise BadPart(f"{name} is not scored, because {NOT_TAKEN}; rename or remove it.")
    try:
        for chunk in read_chunks(path, name):
            kept = _kept_columns(chunk.table.column_names, name, schema, keep)
            given = [each for each in schema.columns if each.name in chunk.table.column_names]
            yield Block(
                chunk.rows,
                {each: chunk.table[each.name].combine_chunks() for each in given},
                chunk.table.select(kept),
                {row: fault for row, (fault, _) in chunk.malformed.items()},
            )
    except InputError as error:
        raise BadPart(str(error)) from None


def _kept_columns(names: Sequence[str], part: str, schema: Schema, keep: Sequence[str]) -> list[str]:
    """Return the columns to copy to the answers. Raise BadPart if a column is missing or repeated.

    Also raise BadPart for an unknown column if the bundle's server would reject unknown fields in requests.
    """
    features = [each.name for each in schema.columns]
    required = [each.name for each in schema.columns if each.required]
    known = {*features, *schema.key, schema.target, *keep}
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise BadPart(f"{part} has twice the column {listed(twice)}; deliver each column once.")
    if missing := [name for name in dict.fromkeys([*required, *keep]) if name not in names]:
        raise BadPart(f"{part} lacks the column {listed(missing)}; deliver it again with all columns.")
    unknown = [name for name in names if name not in known]
    if unknown and schema.unknown_fields == "refuse":
        raise BadPart(
            f"{part} has the column {listed(unknown)}, which the model does not read; leave it out, or copy it to the "
            "answers with --keep."
        )
    return [name for name in dict.fromkeys([*schema.key, *keep]) if name in names]


def _values(array: pa.Array, column: Column) -> list[Any]:
    """Convert a column to values that JSON can contain. NaN and NaT become None, the missing value."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if column.type == "date":
        return _dates(array)
    if column.type == "vector" and pa.types.is_string(array.type):
        return [_from_json(text) for text in array.to_pylist()]
    if column.type == "image" and not pa.types.is_string(array.type):
        return [None if value is None else _as_base64(value) for value in _objects(array)]
    if column.boolean and pa.types.is_string(array.type):
        return [BOOLEANS.get(text.lower(), text) if text else None for text in array.to_pylist()]
    if column.type == "number" and not pa.types.is_boolean(array.type):
        return _numbers(array)
    return _objects(array)


def _objects(array: pa.Array) -> list[Any]:
    """Convert an Arrow array to Python objects.

    Values that Python cannot represent, such as times after the year 9999, stay unchanged, so that the record check
    rejects them.
    """
    try:
        return array.to_pylist()  # type: ignore[no-any-return]
    except (OverflowError, ValueError):
        return [_object(value) for value in array]


def _object(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return value


def _from_json(text: str | None) -> Any:
    """Decode a vector that is stored as a JSON array in a CSV field.

    If the text is not JSON, return it unchanged, so that the record check rejects it.
    """
    try:
        return msgspec.json.decode(text or "null")
    except msgspec.DecodeError:
        return text


def _as_base64(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _numbers(array: pa.Array) -> list[Any]:
    """Convert numbers, and texts that contain numbers, to floats.

    Other values stay unchanged, so that the record check rejects them.
    """
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return _parsed(array)
    if not (pa.types.is_floating(array.type) or pa.types.is_integer(array.type) or pa.types.is_decimal(array.type)):
        return _objects(array)
    numbers = array.cast(pa.float64(), safe=False)
    missing = pc.is_nan(numbers)
    return _listed(pc.if_else(missing, None, numbers) if pc.any(missing).as_py() else numbers)


def _parsed(texts: pa.Array) -> list[Any]:
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = None
    if numbers is None or pc.all(pc.is_finite(numbers), min_count=0).as_py() is False:
        is_number = re.compile(NUMBER).fullmatch
        return [float(text) if text and is_number(text) else text for text in texts.to_pylist()]
    return _listed(numbers)


def _dates(array: pa.Array) -> list[Any]:
    """Convert dates to ISO 8601 texts. A time of day stays in the text, so that the record check rejects it."""
    if not (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        return _objects(array)
    days = array.cast(pa.date32(), safe=False)
    texts = pc.if_else(pc.equal(days.cast(array.type), array), days.cast(pa.string()), array.cast(pa.string()))
    return texts.to_pylist()  # type: ignore[no-any-return]


def _listed(numbers: pa.Array) -> list[Any]:
    """Convert an Arrow array to a list. NumPy is faster than Arrow, but cannot represent missing integers."""
    return numbers.to_pylist() if numbers.null_count else numbers.to_numpy().tolist()  # type: ignore[no-any-return]
