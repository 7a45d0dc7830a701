"""Read delivered vector and image columns, and find the rows whose vector or image does not fit the schema."""

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from slipway.images import NotAnImage, decode_base64, decode_image

Mask = NDArray[np.bool_]
Faults = dict[str, Mask]
"""Map from a fault, such as `is not a list of 64 numbers`, to the mask of the rows with this fault."""

NOT_FINITE = "has a number that is missing, not finite, or beyond single precision"
_decode = msgspec.json.Decoder(list[float]).decode


def objects(arrays: "list[Any] | NDArray[Any]", positions: NDArray[np.intp] | None = None, rows: int = 0) -> Any:
    """Return a one-dimensional NumPy array of objects, with `arrays` as its elements.

    With `positions`, the result has `rows` elements: each array at its position, and None at all other positions.
    """
    column = np.full(len(arrays) if positions is None else rows, None, dtype=object)
    for position, array in zip(range(len(arrays)) if positions is None else positions, arrays, strict=True):
        column[position] = array  # because NumPy would convert a list of arrays to one array of numbers
    return column


def has_arrays(kind: pa.DataType, column: str) -> bool:
    """Return whether a delivered column of the Arrow type `kind` can contain vectors or images.

    `column` is the kind of the schema's column: "vector" or "image".

    CSV files contain vectors as JSON texts, and images as base64 texts or as names of files.
    """
    if column == "image":
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_string(kind))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
    return bool(pa.types.is_string(kind))


def read_vectors(values: pa.Array, length: int) -> tuple["pd.Series[Any]", Faults]:
    """Return vectors as float32 arrays, and a mask of the rows with each fault.

    Missing and faulty vectors become None.
    """
    given = np.asarray(values.is_valid())
    if pa.types.is_string(values.type):
        values = pa.array([_from_json(text) for text in values.to_pylist()], pa.list_(pa.float64()))
    lengths = pc.fill_null(pc.cast(pc.list_value_length(values), pa.int64()), -1).to_numpy()
    fits = lengths == length
    flat = pc.cast(pc.list_flatten(values.filter(pa.array(fits))), pa.float32(), safe=False)
    numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, length)  # a null becomes NaN
    finite = np.isfinite(numbers).all(axis=1)
    infinite = np.zeros(len(fits), dtype=bool)
    infinite[np.flatnonzero(fits)[~finite]] = True
    rows = np.flatnonzero(fits & ~infinite)
    vectors = objects(numbers if finite.all() else numbers[finite], rows, len(fits))
    return pd.Series(vectors), {f"is not a list of {length:,} numbers": given & ~fits, NOT_FINITE: infinite}


def read_images(
    values: pa.Array, shape: tuple[int, ...], readers: Iterable[Callable[[str], bytes]] = repeat(decode_base64)
) -> tuple["pd.Series[Any]", Faults]:
    """Return encoded images as bytes, and a mask of the rows with each fault. Missing and faulty images become None.

    For each row, `readers` yields a function that converts the row's text to the bytes of its image. The default
    function decodes base64.
    """
    images: list[bytes | None] = []
    faults: Faults = {}
    for row, (value, read) in enumerate(zip(values.to_pylist(), readers, strict=False)):
        try:
            content = read(value) if isinstance(value, str) else value
            if content is not None:
                decode_image(content, shape)
        except NotAnImage as error:
            content = None
            faults.setdefault(str(error), np.zeros(len(values), dtype=bool))[row] = True
        images.append(content)
    return pd.Series(objects(images)), faults


def _from_json(text: str | None) -> list[float] | None:
    try:
        return None if text is None else _decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
