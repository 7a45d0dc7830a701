"""Cache the checked rows of each delivery in build/deliveries/, so that only new deliveries are checked.

The key of an entry is a hash of the content of the delivery, the package `model`, the code of the pipeline, and the
versions of the libraries. Any change to these inputs gives a different key, so an entry is never out of date. Small
deliveries are stored together in one file, because each file has a fixed cost. DVC does not track the folder, and you
can delete it at any time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slipway import delivery_names, image_archives, images
from slipway.config import Validate
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import DELIVERY, REASON, ROW
from slipway.pipeline.delivery import Chunk, RowNumbers, read_chunks
from slipway.pipeline.header import Columns
from slipway.pipeline.typed_rows import fault_table

LIBRARIES = ("numpy", "pandas", "pandera", "pyarrow")
ACCEPTED, INVALID = ".parquet", ".invalid.parquet"
PARTS = b"slipway.parts"
UNREADABLE = (OSError, KeyError, TypeError, ValueError, pa.ArrowException)
NO_FAULTS = fault_table(pd.Index([]), "")
FILE_ROWS = 100_000
"""Small deliveries are written to one cache file once they have this number of rows in total. A cache file with fewer
rows is small.
"""
MOST_SMALL_FILES = 8
"""If there are at least this many small files, they are joined."""


@dataclass(frozen=True)
class InvalidRows:
    """The invalid rows of a part as text, with their row numbers.

    `chunks` reads the delivery again if the text of a valid row is needed.
    """

    rows: RowNumbers
    table: pa.Table
    chunks: Callable[[], Iterable[Chunk]]

    def as_text(self, rows: RowNumbers) -> pa.Table:
        """Return the rows with the row numbers `rows` as text, ordered by row number."""
        if np.array_equal(rows, self.rows):
            return self.table
        known = np.isin(self.rows, rows)
        if np.count_nonzero(known) == len(rows):
            return self.table.filter(pa.array(known))
        read = [chunk.as_text(rows) for chunk in self.chunks()]
        return without_added(pa.concat_tables(read, promote_options="default"))


@dataclass(frozen=True)
class CheckedPart:
    """A checked part of a delivery: its accepted rows, its invalid rows as text, and its faults."""

    accepted: pa.Table
    invalid: InvalidRows
    faults: pd.DataFrame
    columns: Columns


@dataclass(frozen=True)
class _Part:
    """A cache file's metadata about one part of a delivery: the key, the columns and the row counts of the part."""

    key: str
    rows: int
    invalid: int
    names: Sequence[str]
    """The names of the columns of the invalid rows."""
    unknown: Sequence[str]
    missing: Sequence[str]


class _File:
    """A file in the cache, with the parts of one or more deliveries, one after the other.

    Each part of a large delivery is a separate row group. The parts of small deliveries share one row group.
    """

    def __init__(self, path: Path, parts: Sequence[_Part]) -> None:
        self.path, self.parts = path, parts
        self._starts = [*accumulate((part.rows for part in parts), initial=0)]
        self._invalid_starts = [*accumulate((part.invalid for part in parts), initial=0)]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the metadata of a file. Return None if it is damaged."""
        try:
            metadata = pq.read_schema(path).metadata
            return cls(path, [_Part(**part) for part in json.loads(metadata[PARTS])])
        except UNREADABLE:
            return None

    @property
    def rows(self) -> int:
        return self._starts[-1]

    @property
    def invalid_path(self) -> Path:
        return self.path.with_suffix(INVALID)

    def is_readable(self) -> bool:
        """Open the file and read its invalid rows. Return False if it is damaged."""
        try:
            _ = self._accepted.num_row_groups, self._invalid
        except UNREADABLE:
            return False
        return True

    def close(self) -> None:
        """Free the memory of the rows that were read from this file."""
        for name in ("_accepted", "_shared", "_invalid", "_faults"):
            self.__dict__.pop(name, None)

    def remove(self) -> None:
        for path in (self.path, self.invalid_path):
            path.unlink(missing_ok=True)

    def checked_part(self, number: int, path: Path) -> CheckedPart:
        """Return the part at the index `number` in the file.

        `path` is the path of the delivery. Raises InputError if the file is damaged.
        """
        part = self.parts[number]
        try:
            if self._accepted.num_row_groups == len(self.parts):
                accepted = self._accepted.read_row_group(number, use_threads=False)
            else:
                accepted = self._shared.slice(self._starts[number], part.rows)
            start, end = self._invalid_starts[number : number + 2]
            rows = self._invalid.slice(start, end - start)
        except UNREADABLE as error:
            raise InputError(f"{self.path} is damaged ({error}); delete the folder {self.path.parent}.") from None
        invalid = InvalidRows(rows.column(ROW).to_numpy(), rows.select(part.names), partial(read_chunks, path))
        faults = NO_FAULTS
        if part.invalid:
            each, first = self._faults
            faults = each.iloc[first[start] : first[end]]
        return CheckedPart(accepted, invalid, faults, Columns(tuple(part.unknown), tuple(part.missing)))

    @cached_property
    def _accepted(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path)

    @cached_property
    def _shared(self) -> pa.Table:
        return self._accepted.read(use_threads=False)

    @cached_property
    def _invalid(self) -> pa.Table:
        if not self._invalid_starts[-1]:
            return pa.table({ROW: pa.array([], pa.int64())})
        return pq.read_table(self.invalid_path, use_threads=False).combine_chunks()

    @cached_property
    def _faults(self) -> tuple[pd.DataFrame, Any]:
        """Return the faults of all parts, and for each invalid row the position of its first fault."""
        reasons = self._invalid.column(REASON).combine_chunks()
        first = reasons.offsets.to_numpy()
        rows = np.repeat(self._invalid.column(ROW).to_numpy(), np.diff(first))
        return pd.DataFrame({ROW: rows, REASON: reasons.values.to_pandas()}), first


class DeliveryCache:
    """A cache of checked deliveries. Nothing is stored if `folder` is None or if `model` has no source file."""

    def __init__(self, model: Model, folder: Path | None, rules: Validate) -> None:
        file = getattr(model, "__file__", None)
        self._folder = folder if file else None
        self._rules = _rules(Path(str(file)).parent, rules.unknown_columns) if self._folder else b""
        self._keys: dict[Path, str] = {}
        self._open: _File | None = None
        self._unfinished: list[tuple[str, CheckedPart]] = []
        self._waiting: list[tuple[str, CheckedPart]] = []
        self._waiting_rows = 0
        self._written: set[Path] = set()
        self._added: set[str] = set()

    @cached_property
    def _places(self) -> dict[str, tuple[_File, list[int]]]:
        """Return the file of each delivery, by the key of the delivery, and the indices of its parts in the file."""
        found: dict[str, tuple[_File, list[int]]] = {}
        for path in sorted(self._folder.glob(f"*{ACCEPTED}")) if self._folder else ():
            file = None if path.name.endswith(INVALID) else _File.read(path)
            places: dict[str, tuple[_File, list[int]]] = {}
            for number, part in enumerate(file.parts if file else ()):
                places.setdefault(part.key, (file, []))[1].append(number)  # type: ignore[arg-type]
            found |= places
        return found

    def key(self, path: Path) -> str:
        """Return the cache key of a delivery. The delivery does not have to be in the cache."""
        if self._folder is None:
            return ""
        if path not in self._keys:
            self._keys[path] = _hash_content(path, self._rules)
        return self._keys[path]

    def missing(self, paths: Mapping[str, Path]) -> dict[str, Path]:
        """Return the deliveries that are not in the cache.

        If other processes then add these deliveries to the cache, `read` finds them too.
        """
        if self._folder is None:
            return {}
        found = {name: path for name, path in paths.items() if self.key(path) not in self._places}
        del self._places
        return found

    def read(self, key: str, path: Path) -> Iterator[CheckedPart]:
        """Yield the parts of a delivery. Yield nothing if it is not in the cache, or if its file is damaged."""
        file, numbers = self._places.get(key, (None, []))
        if file is not None and file is not self._open:
            if self._open:
                self._open.close()
            self._open = file
        if file is None or not file.is_readable():
            return
        for number in numbers:
            yield file.checked_part(number, path)

    def add(self, key: str, part: CheckedPart, *, is_last: bool) -> None:
        """Add a part of a delivery to the cache.

        Small deliveries are written together once they have `FILE_ROWS` rows in total.
        """
        if self._folder is None:
            return
        self._unfinished.append((key, part))
        if not is_last:
            return
        if key in self._added:  # a delivery with this content is stored already
            self._unfinished = []
            return
        self._added.add(key)
        if _rows(self._unfinished) >= FILE_ROWS:
            self._write(self._unfinished)
        else:
            self._waiting += self._unfinished
            self._waiting_rows += _rows(self._unfinished)
        self._unfinished = []
        if self._waiting_rows >= FILE_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the complete deliveries that are still in memory."""
        if self._waiting:
            self._write(self._waiting)
        self._waiting, self._waiting_rows = [], 0

    def prune(self) -> None:
        """Remove unused deliveries, join small files, and write the deliveries that are still in memory."""
        if self._folder is None or not self._folder.is_dir():
            return
        files = list(dict.fromkeys(file for file, _ in self._places.values()))
        small = [file for file in files if file.rows < FILE_ROWS]
        kept: set[Path] = set()
        keys_used = {*self._keys.values()}
        for file in files:
            used = [number for number, part in enumerate(file.parts) if part.key in keys_used]
            if not used or not file.is_readable():
                continue
            if len(used) == len(file.parts) and (len(small) < MOST_SMALL_FILES or file not in small):
                kept |= {file.path, file.invalid_path}
                continue
            keys = [file.parts[number].key for number in used]
            for number, key, following in zip(used, keys, [*keys[1:], None], strict=True):
                self.add(key, file.checked_part(number, file.path), is_last=key != following)
            file.close()
        self.flush()
        for path in self._folder.iterdir():
            if path not in kept | self._written:
                path.unlink(missing_ok=True)

    def _write(self, parts: Sequence[tuple[str, CheckedPart]]) -> None:
        """Write a cache file atomically. If it has a single delivery, each part of the delivery becomes a row group."""
        assert self._folder  # noqa: S101 - narrows the type
        self._folder.mkdir(parents=True, exist_ok=True)
        keys = [key for key, _ in parts]
        path = self._folder / f"{_hash_texts(keys)}{ACCEPTED}"
        invalid = [_invalid_table(part) for _, part in parts if len(part.invalid.rows)]
        if invalid:
            joined = pa.concat_tables(invalid, promote_options="default").combine_chunks()
            _write_parquet(path.with_suffix(INVALID), [joined])
            self._written.add(path.with_suffix(INVALID))
        tables = [part.accepted for _, part in parts]
        described = json.dumps([asdict(_description(key, part)) for key, part in parts])
        metadata = {**(tables[0].schema.metadata or {}), PARTS: described}
        if len(set(keys)) > 1:
            tables = [pa.concat_tables(tables).combine_chunks()]
        _write_parquet(path, [each.replace_schema_metadata(metadata) for each in tables])
        self._written.add(path)


def _rows(parts: Sequence[tuple[str, CheckedPart]]) -> int:
    return sum(len(part.accepted) for _, part in parts)


def _description(key: str, part: CheckedPart) -> _Part:
    names = part.invalid.table.column_names if len(part.invalid.rows) else []
    columns = part.columns
    return _Part(key, len(part.accepted), len(part.invalid.rows), names, columns.unknown, columns.missing)


def _write_parquet(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write one file atomically, with each table as a row group."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with pq.ParquetWriter(unfinished, tables[0].schema, compression="lz4", write_statistics=False) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(len(table), 1))
    unfinished.replace(path)


def without_added(table: pa.Table) -> pa.Table:
    """Remove delivered columns that have the same name as a column that the quarantine file adds."""
    return table.drop_columns([name for name in (DELIVERY, ROW, REASON) if name in table.column_names])


def _invalid_table(part: CheckedPart) -> pa.Table:
    """Return the invalid rows of a part, each with its number and its reasons."""
    faults = part.faults.sort_values(ROW, kind="stable")
    reasons = pa.array(faults[REASON].to_numpy(object), pa.string())
    first = np.searchsorted(faults[ROW].to_numpy(), part.invalid.rows)
    lists = pa.ListArray.from_arrays(pa.array([*first, len(faults)], pa.int32()), reasons)
    return part.invalid.table.append_column(ROW, pa.array(part.invalid.rows)).append_column(REASON, lists)


def _rules(model: Path, settings: str) -> bytes:
    """Hash what the checked rows depend on, apart from the delivery: the settings, the libraries and the code."""
    modules = [Path(str(each.__file__)) for each in (delivery_names, image_archives, images)]
    # The package of the model may read files of other types, such as a list of the values of a category.
    files = [path for path in model.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    code = sorted([*files, *Path(__file__).parent.glob("*.py"), *modules])
    parts = [settings, *(f"{name} {version(name)}" for name in LIBRARIES)]
    parts += [f"{path.name} {_digest(path).hex()}" for path in code]
    return hashlib.blake2b(json.dumps(parts).encode()).digest()


def _hash_texts(texts: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()


def _hash_content(path: Path, rules: bytes) -> str:
    found = hashlib.blake2b(rules, digest_size=16)
    files: Sequence[Path] = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for file in files:
        found.update(json.dumps(str(file.relative_to(path))).encode() + _digest(file))
    return found.hexdigest()


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()
