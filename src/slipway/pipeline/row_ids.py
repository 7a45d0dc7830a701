"""Compute the ids of rows. An id is a 64-bit hash of the row's key.

A bundle contains the ids of its training rows, and a split by key or group uses the same hash function. The ids must
therefore be equal on every machine and with every version of the libraries. The hashed bytes are defined below.
`VERSION` increases with every change to the hashed bytes.

Version 1: BLAKE2b with an 8-byte digest, read as a little-endian number, over these bytes of each key column in order:

    number   float64, with 0 for -0. A whole number that float64 cannot represent: int64
    date     int64 seconds since 1970-01-01, then int64 nanoseconds
    text     uint64 length in bytes, then UTF-8, or 8 bytes of 255 for a missing text

All hashed numbers are little-endian.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.dtypes import is_datetime, is_string

from slipway.contract import Model

VERSION = 1
MISSING = b"\xff" * 8
HASH_DIGITS = 16
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

Ids = np.ndarray[tuple[int], np.dtype[np.uint64]]
"""Array of the ids of rows."""
NO_IDS: Ids = np.array([], dtype=np.uint64)


def row_ids(rows: pd.DataFrame, model: Model) -> Ids:
    """Return the id of each row, which is a hash of its key."""
    return hash_rows([rows[name] for name in model.KEY])


def row_id_scheme(model: Model) -> str:
    """Return the scheme of this model's ids: the version, and the key columns with their types.

    Example: `1: sale_date date, latitude number`. Ids with different schemes cannot be compared.
    """
    columns = (f"{name} {_type_in_words(model.SCHEMA.columns[name].dtype)}" for name in model.KEY)
    return f"{VERSION}: {', '.join(columns)}"


def hash_rows(columns: Sequence["pd.Series[Any]"], secret: bytes = b"") -> Ids:
    """Hash each row. The columns contain numbers, dates or text. `secret` is the key of BLAKE2b, at most 64 bytes."""
    parts: list[Iterable[bytes]] = []
    for fixed_width, group in groupby(columns, lambda column: column.dtype.kind in "biufM"):
        if fixed_width:  # a joined array needs one bytes object per row instead of one per value
            parts.append(_rows_of(np.column_stack([_words(column) for column in group])))
        else:
            parts.extend(_encoded(column) for column in group)
    rows = parts[0] if len(parts) == 1 else map(b"".join, zip(*parts, strict=True))
    digests = b"".join([blake2b(row, digest_size=8, key=secret).digest() for row in rows])
    ids: Ids = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    return ids


def ids_of_keys(keys: Iterable[str | None]) -> Ids:
    """Convert keys from a prediction log to row ids. Each key is the hash of a row as 16 hex digits.

    Raises ValueError if a key is missing or is not such a hash.
    """
    hashes = [key or "" for key in keys]
    if any(len(each) != HASH_DIGITS for each in hashes):  # other lengths can add up to whole hashes
        raise ValueError("a key is not a hash")
    ids: Ids = np.frombuffer(bytes.fromhex("".join(hashes)), dtype="<u8").astype(np.uint64)
    return ids


def _words(values: "pd.Series[Any]") -> NDArray[np.int64]:
    """Return the bytes to hash for a column of numbers or dates, as 64-bit words with the shape [rows, words]."""
    if values.dtype.kind == "M":
        unit, _ = np.datetime_data(values.dtype)
        seconds, rest = np.divmod(values.to_numpy().astype("int64"), PER_SECOND[unit])
        return np.column_stack([seconds, rest * (10**9 // PER_SECOND[unit])])
    if values.dtype.kind in "iu":
        whole: NDArray[np.int64] = values.to_numpy(dtype="int64", na_value=0)
        rounded = whole.astype(np.float64)
        fits = rounded < 2.0**63  # the largest whole numbers are rounded up to 2**63
        exact = fits & (np.where(fits, rounded, 0).astype(np.int64) == whole)
        words = np.where(exact, rounded.view(np.int64), whole)
        words[values.isna().to_numpy()] = np.float64("nan").view(np.int64)  # only a group can be missing
        return words[:, None]
    numbers: NDArray[np.float64] = values.to_numpy(dtype="float64", na_value=np.nan) + 0.0  # turns -0 into 0
    return numbers.view(np.int64)[:, None]


def _rows_of(words: NDArray[np.int64]) -> list[bytes]:
    little = np.ascontiguousarray(words.astype("<i8"))
    rows: list[bytes] = little.view(f"V{little.itemsize * little.shape[1]}").ravel().tolist()
    return rows


def _encoded(texts: "pd.Series[Any]") -> Iterator[bytes]:
    for text in texts.astype(object).where(texts.notna(), None):
        encoded = str(text).encode()
        yield MISSING if text is None else len(encoded).to_bytes(8, "little") + encoded


def _type_in_words(dtype: Any) -> str:
    if is_datetime(dtype):
        return "date"
    return "text" if is_string(dtype) else "number"
