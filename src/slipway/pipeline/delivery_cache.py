"""Keep the checked rows of each delivery, so that a new delivery costs only what it adds → build/deliveries/.

An entry is named after a hash of everything that its rows depend on: the content of the delivery, the package `model`,
the code of the pipeline, and the versions of the libraries. Any change of them gives another name, so an entry is never
out of date. The folder is not recorded by DVC, and can be deleted at any time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slipway.config import Validate
from slipway.contract import Model
from slipway.pipeline.columns import REASON, ROW
from slipway.pipeline.delivery import read_chunks
from slipway.pipeline.header import Columns
from slipway.pipeline.typed_rows import fault_table, reasons_by_row

LIBRARIES = ("numpy", "pandas", "pandera", "pyarrow")
ACCEPTED, INVALID = ".parquet", ".invalid.parquet"
HAS_INVALID, UNKNOWN, MISSING = b"slipway.invalid", b"slipway.unknown", b"slipway.missing"
UNREADABLE = (OSError, KeyError, ValueError, pa.ArrowException)
NO_FAULTS = fault_table(pd.Index([]), "")


@dataclass(frozen=True)
class Kept:
    """A part of a delivery that was checked before: its accepted rows, its rows as delivered, and its faults."""

    table: pa.Table
    raw: "KeptRows"
    faults: pd.DataFrame
    columns: Columns


class DeliveryCache:
    """The entries of a folder. Without a folder, or if the model is not a package, nothing is kept."""

    def __init__(self, model: Model, folder: Path | None, rules: Validate) -> None:
        file = getattr(model, "__file__", None)
        self._folder = folder if file else None
        self._used: set[str] = set()
        self._rules = _rules(Path(str(file)).parent, rules.unknown_columns) if self._folder else b""

    def entry(self, path: Path) -> "Entry":
        """Return the entry of a delivery, which may not exist yet."""
        if self._folder is None:
            return Entry(path, None)
        name = _hash_content(path, self._rules)
        self._used.add(name)
        return Entry(path, self._folder / name)

    def prune(self) -> None:
        """Remove the entries that were not used."""
        for file in self._folder.iterdir() if self._folder and self._folder.is_dir() else ():
            if file.name.partition(".")[0] not in self._used:
                file.unlink(missing_ok=True)


@dataclass
class Entry:
    """The checked rows of one delivery: the accepted ones, and the invalid ones as text with their reasons."""

    path: Path
    file: Path | None
    """The path of the entry, without a suffix. None if nothing is kept."""
    _parts: list[tuple[pa.Table, Any, pd.DataFrame, Columns]] = field(default_factory=list)

    def read(self) -> Iterator[Kept]:
        """Yield the parts of the delivery. Yield nothing if they are not kept, or if a file is damaged."""
        if self.file is None:
            return
        try:
            with pq.ParquetFile(self.file.with_suffix(ACCEPTED)) as file:
                invalid, metadata = None, file.schema_arrow.metadata
                columns = Columns(*(tuple(json.loads(metadata[key])) for key in (UNKNOWN, MISSING)))
                if metadata[HAS_INVALID] == b"yes":
                    invalid = pq.read_table(self.file.with_suffix(INVALID))
                tables = [file.read_row_group(number, use_threads=False) for number in range(file.num_row_groups)]
        except UNREADABLE:
            return
        raw = KeptRows(self.path, invalid)
        for number, table in enumerate(tables):
            yield Kept(table, raw, NO_FAULTS if number else raw.faults, columns)

    def add(self, accepted: pa.Table, raw: Any, faults: pd.DataFrame, columns: Columns, *, is_last: bool) -> None:
        """Keep a part. After the last one, the entry is written."""
        if self.file is None:
            return
        self._parts.append((accepted, raw, faults, columns))
        if is_last:
            self._write(self.file)
            self._parts.clear()

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        invalid = [_invalid_rows(raw, faults) for _, raw, faults, _ in self._parts if len(faults)]
        if invalid:
            _write_parquet(path.with_suffix(INVALID), [pa.concat_tables(invalid, promote_options="default")])
        unknown, missing = (
            json.dumps([*dict.fromkeys(name for *_, columns in self._parts for name in getattr(columns, kind))])
            for kind in ("unknown", "missing")
        )
        mark = {HAS_INVALID: b"yes" if invalid else b"no", UNKNOWN: unknown, MISSING: missing}
        tables = [accepted for accepted, *_ in self._parts]
        metadata = {**(tables[0].schema.metadata or {}), **mark}
        _write_parquet(path.with_suffix(ACCEPTED), [each.replace_schema_metadata(metadata) for each in tables])


@dataclass
class KeptRows:
    """The invalid rows of a delivery. Other rows are read from the delivery when they are needed."""

    path: Path
    invalid: pa.Table | None

    @cached_property
    def faults(self) -> pd.DataFrame:
        if self.invalid is None:
            return NO_FAULTS
        rows, reasons = self.invalid[ROW].to_numpy(), self.invalid[REASON]
        each = pc.list_parent_indices(reasons).to_numpy()
        return pd.DataFrame({ROW: rows[each], REASON: pc.list_flatten(reasons).to_pandas()})

    def as_text(self, rows: "pd.Index[int]") -> pd.DataFrame:
        """Return some rows as text."""
        known = self.invalid.drop_columns(REASON).to_pandas().set_index(ROW) if self.invalid else pd.DataFrame()
        if rows.isin(known.index).all():
            return known.loc[rows]
        return pd.concat([chunk.as_text(rows) for chunk in read_chunks(self.path)])


def _write_parquet(path: Path, tables: Sequence[pa.Table]) -> None:
    """Write tables as row groups of a file, completely or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with pq.ParquetWriter(unfinished, tables[0].schema, compression="lz4", write_statistics=False) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=max(len(table), 1))
    unfinished.replace(path)


def _invalid_rows(raw: Any, faults: pd.DataFrame) -> pa.Table:
    reasons = reasons_by_row(faults)
    rows = raw.as_text(pd.Index([*reasons], name=ROW))
    columns = {name: pa.array(rows[name], pa.string(), from_pandas=True) for name in rows if name not in (ROW, REASON)}
    lists = pa.array([*reasons.values()], pa.list_(pa.string()))
    return pa.table({ROW: pa.array([*reasons], pa.int64()), REASON: lists, **columns})


def _rules(model: Path, settings: str) -> bytes:
    """Hash what the checked rows depend on, besides the delivery."""
    code = sorted([*model.rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    parts = [settings, *(f"{name} {version(name)}" for name in LIBRARIES), *(path.read_text("utf-8") for path in code)]
    return hashlib.blake2b(json.dumps(parts).encode()).digest()


def _hash_content(path: Path, rules: bytes) -> str:
    found = hashlib.blake2b(rules, digest_size=16)
    files: Sequence[Path] = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "blake2b").digest()
        found.update(json.dumps(str(file.relative_to(path))).encode() + content)
    return found.hexdigest()
