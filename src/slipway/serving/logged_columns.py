"""The columns of the prediction log: which values are stored, which are hashed, and which rows are sampled.

Keys are hashed in the same way as row ids (`slipway.pipeline.row_ids`), so that labels can be joined by key. If a KEY
column is marked `private`, keys are hashed with SLIPWAY_PREDICTION_LOG_SECRET. Without a secret, a reader of the log
could hash all possible values, and so find a private value.
"""

import struct
from collections.abc import Callable, Sequence
from datetime import date
from hashlib import blake2b
from typing import Any

from msgspec import UNSET

from slipway.bundle import Column, Schema
from slipway.errors import InputError
from slipway.serving.log_segments import LoggedColumn

DAY_ZERO = date(1970, 1, 1).toordinal()
SECONDS_PER_DAY = 86_400
LEAST_SECRET = 16
CANNOT_HASH = "the bundle has private columns that the prediction log hashes; set SLIPWAY_PREDICTION_LOG_SECRET"
HASH_BYTES = 16
KEY_BYTES = 8
SAMPLING = b"slipway sampling"  # makes the sample independent of the split, which also hashes keys

Encoder = Callable[[Any], bytes]


class LoggedColumns:
    """Converts the values of requests to the columns of the log.

    `columns` are in the order in which `Records` reads values. Raises InputError if the secret is too short.
    """

    def __init__(self, schema: Schema, columns: Sequence[Column], secret: str | None) -> None:
        names = [column.name for column in columns]
        private = {column.name for column in columns if column.private != "no"}
        in_request = set(schema.key) <= set(names)
        self._key_positions = [names.index(name) for name in schema.key] if in_request else []
        self.key = tuple(LoggedColumn(columns[i].name, columns[i].type) for i in self._key_positions)
        """The key columns, or () if requests lack a key column."""
        self.keyed = any(each.name in private for each in self.key)
        is_hashed = self.keyed or any(column.private == "hash" for column in columns)
        self.refusal = _missing_mark(columns) or (CANNOT_HASH if is_hashed and secret is None else "")
        """Why rows of this bundle must not be logged, with the fix, or an empty text if logging is allowed."""
        self._secret = hash_key(secret)
        stored = [(i, column) for i, column in enumerate(columns) if column.private in ("no", "hash")]
        self._stored = [(i, self._hasher(column) if column.private == "hash" else None) for i, column in stored]
        self._stores_all = all(column.private == "no" for column in columns)
        self.columns = tuple(
            LoggedColumn(column.name, "hash" if column.private == "hash" else column.type) for _, column in stored
        )

    def keys(self, values: Sequence[Sequence[Any]]) -> list[str] | None:
        """Return the hash of each row's key as hex digits. Return None if requests do not contain the key."""
        if not self.key:
            return None
        types = [each.type for each in self.key]
        return key_hashes(types, [values[i] for i in self._key_positions], self._secret if self.keyed else b"")

    def row_key(self, row: Sequence[Any]) -> str | None:
        """Return the hash of one row's key, as `keys` does."""
        hashes = self.keys([(value,) for value in row])
        return hashes[0] if hashes else None

    def stored(self, values: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Return the values to store, by column. Private values are hashed or left out."""
        return [[*values[i]] if hashed is None else [*map(hashed, values[i])] for i, hashed in self._stored]

    def stored_row(self, row: Sequence[Any]) -> Sequence[Any]:
        """Return the values to store of one row. Private values are hashed or left out."""
        if self._stores_all:
            return row
        return [row[i] if hashed is None else hashed(row[i]) for i, hashed in self._stored]

    def _hasher(self, column: Column) -> Callable[[Any], str | None]:
        encode, name = ENCODERS[column.type], column.name.encode() + b"\0"

        def hashed(value: Any) -> str | None:
            if value is None or value is UNSET:
                return None
            return blake2b(name + encode(value), digest_size=HASH_BYTES, key=self._secret).hexdigest()

        return hashed


def hash_key(secret: str | None) -> bytes:
    """Convert a secret to a key for BLAKE2b. The key is empty if the secret is None.

    Raises InputError if the secret is too short, or if its bytes are not UTF-8.
    """
    try:
        (secret or "").encode()
    except UnicodeEncodeError:  # the environment can contain any bytes
        raise InputError("SLIPWAY_PREDICTION_LOG_SECRET is not UTF-8; use letters and digits.") from None
    if secret is not None and len(secret) < LEAST_SECRET:
        raise InputError(f"SLIPWAY_PREDICTION_LOG_SECRET is too short; use {LEAST_SECRET} characters or more.")
    return b"" if secret is None else blake2b(secret.encode(), digest_size=32).digest()


def secret_of_keys(keyed: bool, secret: str | None) -> bytes:
    """Return the BLAKE2b key with which the row keys of a log are hashed. If `keyed` is false, this key is empty.

    Raises InputError if the secret is needed and not set.
    """
    if keyed and not secret:  # GitHub sets a secret that does not exist to an empty text
        raise InputError(
            "The key of this log is private; set SLIPWAY_PREDICTION_LOG_SECRET to the secret of the servers."
        )
    return hash_key(secret) if keyed else b""


def key_hashes(types: Sequence[str], values: Sequence[Sequence[Any]], secret: bytes = b"") -> list[str]:
    """Return the hash of each row's key as hex digits. `types` and `values` have one entry for each key column."""
    encoded = [map(ENCODERS[kind], column) for kind, column in zip(types, values, strict=True)]
    return [blake2b(b"".join(row), digest_size=KEY_BYTES, key=secret).hexdigest() for row in zip(*encoded, strict=True)]


def is_sampled(text: str, share: float) -> bool:
    """Return whether a row is sampled. `text` is the row's key hash or request id. `share` is the sampled share."""
    digest = blake2b(text.encode(), digest_size=8, person=SAMPLING).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def _number(value: float) -> bytes:
    return struct.pack("<d", value + 0.0)  # turns -0 into 0


def _date(value: date) -> bytes:
    return struct.pack("<qq", (value.toordinal() - DAY_ZERO) * SECONDS_PER_DAY, 0)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(8, "little") + encoded


def _vector(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


ENCODERS: dict[str, Encoder] = {
    "number": _number,
    "date": _date,
    "category": _text,
    "text": _text,
    "vector": _vector,
    "image": _text,
}


def _missing_mark(columns: Sequence[Column]) -> str:
    """Return an empty text if every column has the mark `private`, else the reason why rows must not be logged."""
    unmarked = [column.name for column in columns if column.private is None]
    if not unmarked:
        return ""
    more = f" and {len(unmarked) - 1} more" if len(unmarked) > 1 else ""
    return (
        f"the column {unmarked[0]!r}{more} of the bundle has no mark `private`; "
        'add metadata={"private": ...} to it in src/model/schema.py, with "no", "drop" or "hash"'
    )
