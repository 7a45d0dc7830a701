"""Sort the accepted rows of all deliveries, even if they do not fit into memory.

The rows are first written to one file. They are then divided into several files, at bounds that come from a sample of
times and ids. All rows of a file sort before all rows of the next file, so each file is sorted in memory on its own. No
step has all rows or all ids in memory.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from slipway.contract import Model
from slipway.pipeline.columns import DELIVERY, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery
from slipway.pipeline.parquet import TableWriter
from slipway.pipeline.row_ids import NO_IDS, Ids
from slipway.pipeline.row_versions import NewestVersions, Versions

BATCH_ROWS = 32 * 1024
"""Small parts are written together until they have this number of rows."""
FILE_ROWS = 256 * 1024
"""The number of rows that are sorted in memory at a time."""
MOST_FILES = 256
"""Maximum number of files, because all files are open at the same time. With more rows, each file is larger."""
SAMPLE_STEP = 128
"""The sample contains one of every `SAMPLE_STEP` rows."""


def named_rows(part: Delivery) -> pa.Table:
    """Return the accepted rows of a part, with the name of its delivery."""
    rows = part.table.drop_columns(ROW)
    return rows.add_column(rows.column_names.index(ROW_ID), DELIVERY, pa.repeat(part.name, len(rows)))


def changed_rows(rows: pd.DataFrame, replaced: Mapping[str, Sequence[Ids]]) -> dict[str, int]:
    """Return for each delivery the number of rows whose values differ from the row that they replace.

    `replaced` has the ids of these rows for each delivery. A row that follows a deleted row replaces nothing.
    """
    rows = rows[rows[ROW_ID].duplicated(keep=False)].sort_values(ROW_ID, kind="stable", ignore_index=True)
    values = rows.drop(columns=[DELIVERY, ROW_ID])
    for name in [name for name in values if str(values[name].dtype) == "object"]:  # pandas cannot compare arrays
        values[name] = values[name].map(lambda value: value.tobytes() if isinstance(value, np.ndarray) else value)
    before = values.shift()
    differs = ((values != before) & ~(values.isna() & before.isna())).any(axis=1)
    changed = rows[differs & rows[ROW_ID].duplicated()].groupby(DELIVERY)[ROW_ID]
    counts = {str(name): np.isin(ids, np.concatenate(replaced.get(str(name), [NO_IDS]))).sum() for name, ids in changed}
    return {name: int(number) for name, number in counts.items() if number}


@dataclass(frozen=True)
class _Order:
    """The ids and times of rows. Rows are sorted by time, and then by id."""

    ids: Ids
    times: NDArray[np.datetime64] | None

    @classmethod
    def of(cls, rows: pa.Table, time: str | None) -> "_Order":
        return cls(rows.column(ROW_ID).to_numpy(), rows.column(time).to_numpy() if time else None)

    @classmethod
    def joined(cls, parts: Sequence["_Order"]) -> "_Order":
        times = [part.times for part in parts if part.times is not None]
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate(times) if times else None)

    def take(self, places: NDArray[np.int64]) -> "_Order":
        return _Order(self.ids[places], None if self.times is None else self.times[places])

    def sort(self) -> NDArray[np.int64]:
        """Return the positions of the rows in sorted order. Versions of the same row keep their order."""
        return np.argsort(self.ids, kind="stable") if self.times is None else np.lexsort((self.ids, self.times))

    def cuts(self, bounds: "_Order") -> list[int]:
        """Return for each bound the number of rows before it. The rows and the bounds are sorted."""
        if self.times is None or bounds.times is None:
            return [*np.searchsorted(self.ids, bounds.ids).tolist()]
        first, last = (np.searchsorted(self.times, bounds.times, side) for side in ("left", "right"))
        cuts = first.copy()
        for number in np.flatnonzero(first < last):  # some rows have the same time as the bound
            same = self.ids[first[number] : last[number]]
            cuts[number] += np.searchsorted(same, bounds.ids[number])
        return [*cuts.tolist()]


class SortedRows:
    """The accepted rows of all parts, sorted by time and id. The rows are stored in files in `folder`.

    If several rows have the same id, only the row from the newest delivery is kept. If a later list of keys contains
    this id, no row is kept.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._time = model.TIME
        self._folder = folder
        self._open_files = ExitStack()
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._rows = 0
        self._sample: list[_Order] = []
        self._versions = Versions()
        self._replaced: dict[str, list[Ids]] = {}

    def add(self, part: Delivery) -> None:
        """Add the accepted rows of a part. A list of keys deletes rows of earlier deliveries instead.

        Deliveries must be added from the oldest to the newest.
        """
        if part.is_key_list:
            self._versions.add(part.deleted, self._rows)
            return
        rows = named_rows(part)
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= BATCH_ROWS:
            self._write_waiting()
        self._sample.append(
            _Order.of(rows, self._time).take(np.arange(-self._rows % SAMPLE_STEP, len(rows), SAMPLE_STEP))
        )
        self._versions.add(part.replaced, self._rows)
        if len(part.replaced):
            self._replaced.setdefault(part.name, []).append(part.replaced)
        self._rows += len(rows)

    def write(self, path: Path) -> tuple[int, dict[str, int]]:
        """Write the rows to a Parquet file. Return the number of rows.

        Also return for each delivery the number of rows whose values differ from the row that they replace.
        """
        self._write_waiting()
        self._open_files.close()
        versions = self._versions.newest()
        sorted_files = _Files(self._folder, "sorted", self._bounds(), self._schema)
        repeated_files = _Files(self._folder, "repeated", _even_bounds(2 * len(versions.ids)), self._schema)
        with sorted_files, repeated_files:
            self._divide(versions, sorted_files, repeated_files)
        changed: Counter[str] = Counter()
        for rows in repeated_files.read():
            changed.update(changed_rows(rows.to_pandas(), self._replaced))
        number = 0
        with TableWriter(path) as writer:
            for rows in sorted_files.read():
                number += len(rows)
                writer.add(self._sorted(rows))
        return number, dict(changed)

    def _write_waiting(self) -> None:
        """Write the rows of small parts as one batch, because each batch has a fixed cost."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        if self._writer is None:
            self._schema = rows.schema
            self._writer = self._open_files.enter_context(_writer(self._folder / "rows", rows.schema))
        self._writer.write_table(rows)

    def _bounds(self) -> _Order:
        """Return the lower bound of each file except the first, in ascending order."""
        sample = _Order.joined(self._sample)
        self._sample = []
        files = _number_of_files(self._rows)
        places = np.arange(1, files) * len(sample.ids) // files
        return sample.take(sample.sort()[places])

    def _divide(self, versions: NewestVersions, sorted_files: "_Files", repeated_files: "_Files") -> None:
        """Write the newest version of each row to `sorted_files`.

        Write all versions of each repeated row to `repeated_files`, which are divided by id.
        """
        for start, rows in _batches(self._folder / "rows"):
            order = _Order.of(rows, self._time)
            is_newest, is_repeated = versions.find(order.ids, start)
            places = order.sort()
            sorted_files.write(rows, order, places[is_newest[places]])
            if is_repeated.any():
                order = _Order(order.ids, None)
                places = order.sort()
                repeated_files.write(rows, order, places[is_repeated[places]])
        (self._folder / "rows").unlink()

    def _sorted(self, rows: pa.Table) -> pa.Table:
        order = _Order.of(rows, self._time).sort()
        table = pa.Table.from_pandas(rows.take(pa.array(order)).to_pandas(), preserve_index=False)
        for place, field in enumerate(table.schema):
            if pa.types.is_null(field.type):  # all vectors or images of this file are missing
                table = table.set_column(place, field.name, pa.nulls(len(table), rows.schema.field(field.name).type))
        return table


class _Files:
    """Temporary files that divide sorted rows at bounds.

    Each file contains the rows from the previous file's bound up to the row before its own bound.
    """

    def __init__(self, folder: Path, name: str, bounds: _Order, schema: pa.Schema) -> None:
        self._bounds, self._schema = bounds, schema
        self._paths = [folder / f"{name} {number}" for number in range(len(bounds.ids) + 1)]
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        self._writers = [self._open_files.enter_context(_writer(path, self._schema)) for path in self._paths]
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()

    def write(self, rows: pa.Table, order: _Order, places: NDArray[np.int64]) -> None:
        """Write the rows in sorted order. `places` are the positions of the rows in this order, as from `argsort`."""
        rows = rows.take(pa.array(places))
        cuts = [0, *order.take(places).cuts(self._bounds), len(rows)]
        for writer, first, last in zip(self._writers, cuts[:-1], cuts[1:], strict=True):
            if first < last:
                writer.write_table(rows.slice(first, last - first))

    def read(self) -> Iterator[pa.Table]:
        """Yield the rows of each file that has rows, and remove all files.

        Yield one empty table if no file has rows.
        """
        is_empty = True
        for path in self._paths:
            with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
                rows = reader.read_all()
            path.unlink()
            if len(rows):
                is_empty = False
                yield rows
        if is_empty:
            yield self._schema.empty_table()


def _even_bounds(rows: int) -> _Order:
    """Return bounds that divide ids into files of equal size. Ids are hashes, so they are spread evenly."""
    files = _number_of_files(rows)
    return _Order(np.array([number * 2**64 // files for number in range(1, files)], dtype=np.uint64), None)


def _number_of_files(rows: int) -> int:
    return min(max(1, -(-rows // FILE_ROWS)), MOST_FILES)


def _writer(path: Path, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
    return pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


def _batches(path: Path) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows in parts, each with the number of rows before it."""
    start = 0
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        if not reader.num_record_batches:  # no row was accepted
            yield start, reader.schema.empty_table()
        for number in range(reader.num_record_batches):
            rows = pa.Table.from_batches([reader.get_batch(number)])
            yield start, rows
            start += len(rows)
