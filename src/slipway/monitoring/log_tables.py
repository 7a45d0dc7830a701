"""Shipped prediction logs: Parquet files by day and bundle.

The path of a file is `day=2026-11-26/bundle=HASH/INSTANCE-NUMBER.parquet`. Shipping a segment twice produces the same
path and the same content. Each row has these columns:

    time         time of the response (UTC)
    request_id   `x-request-id` of the request
    row          position of the record in its request, from 0
    key          hash of the row's key as hex digits, or null if requests lack the key
    seconds      duration of the request on the server
    record_NAME  each column of the record that is not private
    answer       the prediction, or answer_CLASS with the probability of each class
"""

import io
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slipway.images import decode_base64
from slipway.integrations.log_store import ANSWER, DAY, RECORD
from slipway.serving.log_segments import METADATA_KEY, Block, Header, Segment
from slipway.serving.logged_columns import key_hashes

COMMON_TYPES = pa.schema(
    [
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("seconds", pa.float64()),
    ]
)
"""The first columns of every log. The columns of the record and of the prediction follow."""
TYPES = {
    "number": pa.float64(),
    "date": pa.date32(),
    "category": pa.string(),
    "text": pa.string(),
    "vector": pa.list_(pa.float32()),
    "image": pa.binary(),
    "hash": pa.string(),
}

UNREADABLE = (OSError, ValueError, KeyError, TypeError, OverflowError, pa.ArrowException)
"""The errors of functions that read a damaged file, or a file that is not part of a log."""


def file_name(header: Header) -> str:
    """Return the path of a segment's Parquet file, relative to the address of the log."""
    return f"{DAY}{header.day}/bundle={header.bundle}/{header.instance}-{header.number:08}.parquet"


def refuse_copy(name: str, header: Header) -> None:
    """Raise ValueError if the file with this name is a copy of the file that its header belongs to."""
    if name != file_name(header):
        raise ValueError(f"it is a copy of {file_name(header)}")


def one_of_each_bundle(names: Iterable[str]) -> list[str]:
    """Return one file of each bundle in a log. All files of a bundle hash keys in the same way."""
    return [*{name.rpartition("/")[0].rpartition("/")[2]: name for name in names}.values()]


def expired_folders(folders: list[str], keep_days: int, today: date) -> list[str]:
    """Return the folders of days that are older than `keep_days`. Folders with other names are never returned."""
    oldest = (today - timedelta(days=keep_days)).isoformat()
    return [
        each for each in folders if each.startswith(DAY) and _is_day(each[len(DAY) :]) and each[len(DAY) :] < oldest
    ]


def answer_columns(header: Header) -> list[str]:
    """Return the names of the columns that contain the prediction."""
    return [ANSWER] if len(header.outputs) == 1 else [f"{ANSWER}_{output}" for output in header.outputs]


def to_table(segment: Segment) -> pa.Table:
    """Convert a segment to a table. Equal segments give equal tables."""
    header, blocks = segment.header, segment.blocks
    requests = [block.requests[i] for block in blocks for i in block.request]
    answers = np.frombuffer(b"".join(block.answers for block in blocks), "<f4").reshape(-1, len(header.outputs))
    common = {
        "time": [round(at * 1e6) for _, at, _ in requests],
        "request_id": [request_id for request_id, _, _ in requests],
        "row": list(chain.from_iterable(block.row for block in blocks)),
        "key": list(chain.from_iterable(_keys(header, block) for block in blocks)),
        "seconds": [seconds for _, _, seconds in requests],
    }
    columns = {field.name: pa.array(common[field.name], field.type) for field in COMMON_TYPES}
    for i, column in enumerate(header.columns):
        values = list(chain.from_iterable(block.columns[i] for block in blocks))
        columns[RECORD + column.name] = pa.array(map(CONVERTED.get(column.type, _as_it_is), values), TYPES[column.type])
    for i, name in enumerate(answer_columns(header)):
        columns[name] = pa.array(answers[:, i], pa.float32())
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: msgspec.json.encode(header)})


def to_parquet(table: pa.Table) -> bytes:
    """Convert a table to the bytes of a Parquet file. Equal tables give equal bytes."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table(content: bytes) -> pa.Table:
    """Read a Parquet file of a prediction log."""
    return pq.read_table(io.BytesIO(content))


def _keys(header: Header, block: Block) -> list[str] | list[None]:
    if block.keys is not None:
        return block.keys
    if not header.key:
        return [None] * len(block.row)
    positions = {column.name: i for i, column in enumerate(header.columns)}
    types = [each.type for each in header.key]
    values: list[list[Any]] = [block.columns[positions[each.name]] for each in header.key]
    dates = [
        [_as_date(value) for value in column] if kind == "date" else column
        for kind, column in zip(types, values, strict=True)
    ]
    return key_hashes(types, dates)


def _as_number(value: float | None) -> float | None:
    """Convert a value to a number. Requests can contain true and false instead of 1 and 0."""
    return None if value is None else float(value)


def _as_it_is(value: Any) -> Any:
    return value


def _as_date(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _as_bytes(text: str | None) -> bytes | None:
    return None if text is None else decode_base64(text)


CONVERTED: dict[str, Callable[[Any], Any]] = {"date": _as_date, "number": _as_number, "image": _as_bytes}
