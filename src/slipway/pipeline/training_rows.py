"""Read the rows for `train` into memory, or from disk if `fit` of the model reads a dataset."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from slipway import artifacts
from slipway.bundle import Column, Schema
from slipway.contract import Model, reads_dataset
from slipway.pipeline.array_columns import objects
from slipway.pipeline.parquet import PART_ROWS, read_parts, read_table, row_count
from slipway.pipeline.tensors import features

PART_BYTES = 128 * 1024 * 1024
"""Maximum size in bytes of the features that are in memory at a time. With large images, a part has fewer rows."""
CATEGORY_BYTES = 64
"""Estimated size of a category or a text in bytes."""

Mask = NDArray[np.bool_]
Positions = NDArray[np.int64]


class Rows(Protocol):
    """The rows in a file that an earlier stage wrote. The features have the types that `Model.fit` expects."""

    @property
    def arguments(self) -> tuple[Any, Any]:
        """The first two arguments of `Model.fit`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """Yield the features, in parts that fit into memory."""

    def parts(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield the features in `names`, and possibly other features, in parts that fit into memory."""

    def column(self, name: str) -> "pd.Series[Any]":
        """Return one column of the file, with the values that validation wrote."""

    def at(self, positions: Positions, names: Sequence[str]) -> pd.DataFrame:
        """Return the columns `names`, as validation wrote them, for the rows at `positions` in this order."""

    def only(self, chosen: Mask) -> "Rows":
        """Return the rows that the mask `chosen` selects."""


class InMemory:
    """Rows that are all in memory, in one frame.

    Each caller gets a shallow copy of the frame. pandas copies a column before a change, so a change in `fit` or
    `predict` of the model does not reach the later checks.
    """

    def __init__(self, rows: pd.DataFrame, frame: pd.DataFrame, target: str) -> None:
        self._rows, self._frame, self._target = rows, frame, target

    @property
    def arguments(self) -> tuple[pd.DataFrame, "pd.Series[Any]"]:
        return self._frame.copy(deep=False), self._rows[self._target]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        yield self._frame.copy(deep=False)

    def parts(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:  # noqa: ARG002 - all features are in memory
        yield self._frame.copy(deep=False)

    def column(self, name: str) -> "pd.Series[Any]":
        return self._rows[name]

    def at(self, positions: Positions, names: Sequence[str]) -> pd.DataFrame:
        return self._rows.iloc[positions][[*names]]

    def only(self, chosen: Mask) -> "InMemory":
        return InMemory(self._rows[chosen], self._frame[chosen], self._target)


class OnDisk:
    """Rows on disk. Only one part of the rows, or one column of numbers or categories, is in memory at a time.

    `path` is the file with the converted features and the target. `source` is the file that an earlier stage wrote.
    `chosen` is the mask of the rows in `source` that are also in `path`. `chosen` is None if `path` contains all rows.
    """

    def __init__(self, path: Path, source: Path, schema: Schema, chosen: Mask | None = None) -> None:
        self._path, self._source, self._schema, self._chosen = path, source, schema, chosen

    @classmethod
    def convert(cls, source: Path, path: Path, schema: Schema) -> "OnDisk":
        """Convert the features in the file `source`, and write them with the target to `path`."""
        names = [column.name for column in schema.columns]

        def tables() -> Iterator[pa.Table]:
            for part in read_parts(source, [*names, schema.target], _part_rows(schema)):
                frame = features(part.select(names).to_pandas(), schema)
                arrays = {each.name: _to_arrow(frame[each.name], each) for each in schema.columns}
                yield pa.table({**arrays, schema.target: part.column(schema.target)})

        _write(path, tables())
        return cls(path, source, schema)

    @property
    def arguments(self) -> tuple[ds.Dataset, str]:
        return ds.dataset(self._path), self._schema.target

    def __len__(self) -> int:
        return row_count(self._path)

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return self.parts([column.name for column in self._schema.columns])

    def parts(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        columns = [column for column in self._schema.columns if column.name in names]
        for part in read_parts(self._path, names, _part_rows(self._schema)):
            yield pd.DataFrame({each.name: _from_arrow(part.column(each.name), each) for each in columns})

    def column(self, name: str) -> "pd.Series[Any]":
        values = read_table(self._source, [name])[name]
        return values if self._chosen is None else values[self._chosen]

    def at(self, positions: Positions, names: Sequence[str]) -> pd.DataFrame:
        if self._chosen is not None:
            positions = np.flatnonzero(self._chosen)[positions]
        found, start = [], 0
        for part in read_parts(self._source, names, _part_rows(self._schema)):
            inside = np.unique(positions[(positions >= start) & (positions < start + len(part))])
            if len(inside):
                found.append(part.take(pa.array(inside - start)))
            start += len(part)
        rows = pa.concat_tables(found).to_pandas()
        return rows.iloc[np.searchsorted(np.unique(positions), positions)]

    def only(self, chosen: Mask) -> "OnDisk":
        path = self._path.with_name(f"{len([*self._path.parent.iterdir()])}.parquet")

        def tables() -> Iterator[pa.Table]:
            start = 0
            for part in read_parts(self._path, rows=_part_rows(self._schema)):
                yield part.filter(pa.array(chosen[start : start + len(part)]))
                start += len(part)

        _write(path, tables())
        if self._chosen is not None:
            inside = np.zeros(len(self._chosen), dtype=bool)
            inside[np.flatnonzero(self._chosen)[chosen]] = True
            chosen = inside
        return OnDisk(path, self._source, self._schema, chosen)


@contextmanager
def row_reader(model: Model) -> Iterator[Callable[[Path, Schema], Rows]]:
    """Yield a function that opens a file of rows in the form that `Model.fit` reads.

    At the end of the context, the temporary files are removed.
    """
    if not reads_dataset(model):

        def load(source: Path, schema: Schema) -> Rows:
            rows = read_table(source)
            return InMemory(rows, features(rows, schema), schema.target)

        yield load
        return
    build = artifacts.BUNDLE.parent
    with tempfile.TemporaryDirectory(prefix=".train.", suffix=".partial", dir=build) as folder:

        def convert(source: Path, schema: Schema) -> Rows:
            return OnDisk.convert(source, Path(folder) / source.name, schema)

        yield convert


def _part_rows(schema: Schema) -> int:
    arrays = sum(int(np.prod(each.shape)) * each.dtype.itemsize for each in schema.arrays.values())
    return max(1, min(PART_ROWS, PART_BYTES // (arrays + CATEGORY_BYTES * len(schema.columns))))


def _to_arrow(values: "pd.Series[Any]", column: Column) -> pa.Array:
    if column.shape is not None:
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([*values]))
    return pa.array(values.to_numpy(), pa.string() if column.type in ("category", "text") else pa.float32())


def _from_arrow(values: pa.ChunkedArray, column: Column) -> Any:
    if column.shape is not None:
        return pd.Series(objects(values.combine_chunks().to_numpy_ndarray()))
    return values.to_pandas()


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    """Write tables to one file, each as a row group."""
    first = next(tables)
    with pq.ParquetWriter(path, first.schema, compression="lz4") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
