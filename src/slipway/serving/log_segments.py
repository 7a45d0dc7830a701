"""Segments of the prediction log: files with the rows that a server received and the predictions that it returned.

A segment file is either complete or absent. A segment starts with `MAGIC`, followed by frames. A frame is the length of
a MessagePack document in bytes (uint32, little-endian), followed by the document. The first frame is a `Header`. Each
other frame is a `Block` with the rows of one request, or a `SingleRows` with rows of many requests.
"""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from slipway.errors import InputError

MAGIC = b"slipway prediction log 1\n"
SUFFIX = ".segment"
PARTIAL = ".partial"
METADATA_KEY = b"slipway.header"
"""Metadata key of a shipped Parquet file for the header of its segment, as JSON."""
PIECE = 65_536
"""Number of bytes that are written without a pause."""

HASH = re.compile(r"[0-9a-f]{8,64}")
"""Matches the hash of a bundle, and the name of a server process.

The hash and the name become parts of paths in the bucket.
"""


def _as_missing(value: object) -> None:
    """Encode a value that a record lacks as a missing value."""
    if value is not UNSET:
        raise NotImplementedError


encode = msgspec.msgpack.Encoder(enc_hook=_as_missing).encode


class LoggedColumn(Struct, frozen=True):
    """A column of the logged records. `type` is the type in the schema, or `hash` if only a hash is stored.

    A date is stored as an ISO date, an image as base64, and a hash as hex digits.
    """

    name: str
    type: str


class Account(Struct, frozen=True):
    """The number of rows with each outcome since the server started. `answered` is the sum of the other fields."""

    answered: int = 0
    logged: int = 0
    sampled_out: int = 0
    dropped: int = 0
    waiting: int = 0

    @property
    def balances(self) -> bool:
        return self.answered == self.logged + self.sampled_out + self.dropped + self.waiting


class Header(Struct, frozen=True, omit_defaults=True):
    """The properties that all rows of a segment share. `day` is the day of the responses (UTC, as an ISO date)."""

    bundle: str
    model: str
    day: str
    instance: str
    """A random name of the server process."""
    number: int
    """The number of the segment, counted from 0 for each server process."""
    rows: int
    columns: tuple[LoggedColumn, ...]
    outputs: tuple[str, ...]
    key: tuple[LoggedColumn, ...]
    """The key columns with their types before hashing, or () if requests lack a key column."""
    keyed: bool
    """True if keys are hashed with the secret. If False, hashes of keys are row ids (`slipway.pipeline.row_ids`)."""
    account: Account
    """The server's row counts at the moment when this segment was written, including the rows of the segment."""
    decision: dict[str, Any] | None = None
    """The fields of the bundle's `slipway.bundle.Decision`, or None if the bundle has no decision rule."""


def header_in(metadata: Mapping[bytes, bytes] | None) -> Header:
    """Return the header in the metadata of a shipped file. Raises ValueError if the file is not part of a log."""
    try:
        return msgspec.json.decode((metadata or {})[METADATA_KEY], type=Header)
    except (KeyError, msgspec.DecodeError):
        raise ValueError("it has no header of a prediction log") from None


class Block(Struct, frozen=True, array_like=True, tag="block"):
    """The logged rows of one or more requests, by column."""

    requests: list[tuple[str, float, float]]
    """For each request: its id, the time of the response (seconds since 1970), and the duration in seconds."""
    request: list[int]
    """For each row, the position of its request in `requests`."""
    row: list[int]
    """For each row, its position in its request, from 0."""
    keys: list[str] | None
    """Hash of each row's key as hex digits.

    None if the log has no key, or if the hash can be computed from the logged columns.
    """
    columns: list[list[Any]]
    """The values of each column as the client sent them, with None for a missing value."""
    answers: bytes
    """Predictions of shape [rows, outputs], as float32, little-endian."""


Row = tuple[str, float, float, str | None, Sequence[Any], bytes]
"""A request with one row: id, time of the response, duration, key, values of the columns, and predictions."""


class SingleRows(Struct, frozen=True, array_like=True, tag="rows"):
    """The logged rows of requests with a single row."""

    rows: list[Row]

    def as_block(self) -> Block:
        """Return the same rows by column. Raises ValueError if there is no row, or if the shapes of rows differ."""
        ids, times, seconds, keys, values, answers = zip(*self.rows, strict=True)
        if len({len(each) for each in answers}) != 1:
            raise ValueError("The rows have different numbers of predictions.")
        return Block(
            requests=[*zip(ids, times, seconds, strict=True)],
            request=[*range(len(ids))],
            row=[0] * len(ids),
            keys=None if None in keys else [*keys],
            columns=[[*each] for each in zip(*values, strict=True)],
            answers=b"".join(answers),
        )


class CorruptSegment(InputError):
    """Error for a segment file that cannot be read."""


@dataclass(frozen=True)
class Segment:
    """The header and the blocks that a segment file contains."""

    header: Header
    blocks: tuple[Block, ...]


def segment_name(header: Header) -> str:
    """Return the file name of a segment. Sorting by name sorts by day, then server process, then number."""
    return f"{header.day}-{header.instance}-{header.number:08}{SUFFIX}"


def write_segment(folder: Path, header: Header, blocks: Sequence[bytes], pause: float = 0.0) -> Path:
    """Write a segment from its header and its other frames, with a pause in seconds after each `PIECE`.

    Even if the process is killed while it writes, the segment is either complete or absent. Raises OSError if the
    segment cannot be written.
    """
    path = folder / segment_name(header)
    partial = path.with_suffix(PARTIAL)
    try:
        with partial.open("xb") as file:  # an existing link is never followed
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(MAGIC)
            unpaused = 0
            for frame in (encode(header), *blocks):
                file.write(len(frame).to_bytes(4, "little"))
                file.write(frame)
                unpaused += len(frame)
                if unpaused >= PIECE:
                    time.sleep(pause)
                    unpaused = 0
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(folder)
    except BaseException:
        partial.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that a file that was renamed in it survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished segments of killed processes.

    A process locks the segment that it is writing. Locked segments are not removed. Raises OSError if the folder cannot
    be written.
    """
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_symlink():
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def segments(folder: Path) -> list[Path]:
    """Return the paths of the complete segments in a folder, sorted by name. Links and folders are left out."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file() and not path.is_symlink())


def read_segment(path: Path) -> Segment:
    """Read a segment. Raises CorruptSegment if the file is corrupt, or if its name does not match its header."""
    frames = _frames(path.read_bytes())
    try:
        header = msgspec.msgpack.decode(next(frames), type=Header)
        blocks = tuple(_block(frame) for frame in frames)
        sizes = [len(block.row) for block in blocks]
        widths = {len(block.columns) for block in blocks}
        lengths = {len(column) - size for block, size in zip(blocks, sizes, strict=True) for column in block.columns}
        answers = [len(block.answers) for block in blocks]
        whole = (
            path.name == segment_name(header)
            and date.fromisoformat(header.day).isoformat() == header.day
            and bool(HASH.fullmatch(header.bundle) and HASH.fullmatch(header.instance))
            and sum(sizes) == header.rows
            and widths <= {len(header.columns)}
            and lengths <= {0}
            and answers == [4 * size * len(header.outputs) for size in sizes]
        )
    except (StopIteration, ValueError, msgspec.MsgspecError):
        whole = False
    if not whole:
        raise CorruptSegment(f"{path} is not a complete segment of a prediction log; delete it.")
    return Segment(header, blocks)


def _block(frame: bytes) -> Block:
    found = msgspec.msgpack.decode(frame, type=Block | SingleRows)
    return found if isinstance(found, Block) else found.as_block()


def _frames(content: bytes) -> Iterator[bytes]:
    if not content.startswith(MAGIC):
        raise ValueError
    position = len(MAGIC)
    while position < len(content):
        start = position + 4
        position = start + int.from_bytes(content[position:start], "little")
        if position > len(content) or start > len(content):
            raise ValueError
        yield content[start:position]
