"""Sort the accepted rows of all deliveries, which may be more than fit into memory.

The rows are kept in a file. Only their ids and times are in memory, which define the place of each row in the result.
The rows are then divided into files by their places, and each of these files is sorted in memory.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from slipway.contract import Model
from slipway.pipeline.columns import DELIVERY, ROW, ROW_ID
from slipway.pipeline.deliveries import Delivery
from slipway.pipeline.parquet import TableWriter
from slipway.pipeline.row_ids import Ids

PLACE = pa.field("place", pa.int64())
Places = NDArray[np.int64]
BATCH_ROWS = 32 * 1024
"""Small parts are written together until they have this number of rows."""
FILE_ROWS = 256 * 1024
"""The number of rows that are sorted in memory at a time."""


def named_rows(part: Delivery) -> pa.Table:
    """Return the accepted rows of a part, with the name of its delivery."""
    rows = part.table.drop_columns(ROW)
    return rows.add_column(rows.column_names.index(ROW_ID), DELIVERY, pa.repeat(part.name, len(rows)))


def changed_rows(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of rows of each delivery that have other values than the row that they replace."""
    rows = rows[rows[ROW_ID].duplicated(keep=False)].sort_values(ROW_ID, kind="stable", ignore_index=True)
    values = rows.drop(columns=[DELIVERY, ROW_ID])
    for name in [name for name in values if str(values[name].dtype) == "object"]:  # pandas cannot compare arrays
        values[name] = values[name].map(lambda value: value.tobytes() if isinstance(value, np.ndarray) else value)
    before = values.shift()
    differs = ((values != before) & ~(values.isna() & before.isna())).any(axis=1)
    return dict(Counter(rows[DELIVERY][differs & rows[ROW_ID].duplicated()]))


class SortedRows:
    """The accepted rows of all parts, sorted by time and id. They are in files of `folder`.

    Of rows with the same id, the one of the newest delivery stays.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self._time = model.TIME
        self._folder = folder
        self._files = ExitStack()
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._ids: list[Ids] = []
        self._times: list[NDArray[np.datetime64]] = []
        self._is_replaced = False

    def add(self, part: Delivery) -> None:
        """Add the accepted rows of a part, after those of earlier deliveries."""
        rows = named_rows(part)
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= BATCH_ROWS:
            self._write_waiting()
        self._ids.append(rows.column(ROW_ID).to_numpy())
        if self._time:
            self._times.append(rows.column(self._time).to_numpy())
        self._is_replaced |= part.replaced > 0

    def write(self, path: Path) -> tuple[int, dict[str, int]]:
        """Write the rows to a Parquet file. Return their number.

        Also return the number of rows of each delivery that have other values than the row that they replace.
        """
        self._write_waiting()
        self._files.close()
        ids = np.concatenate(self._ids)
        self._ids = []
        repeated = pd.Index(ids).duplicated(keep=False) if self._is_replaced else np.zeros(len(ids), dtype=np.bool_)
        places = self._places(ids, repeated)
        del ids
        number = int(places.max(initial=-1)) + 1
        files = max(1, -(-number // FILE_ROWS))
        changed = changed_rows(self._divide(places, repeated, files))
        with TableWriter(path) as writer:
            for file in range(files):
                writer.add(_sorted(self._folder / str(file)))
        return number, changed

    def _write_waiting(self) -> None:
        """Write the rows of small parts as one batch, because each batch has a fixed cost."""
        if not self._waiting:
            return
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        if self._writer is None:
            self._schema = rows.schema
            self._writer = self._files.enter_context(_writer(self._folder / "rows", rows.schema))
        self._writer.write_table(rows)

    def _places(self, ids: Ids, repeated: NDArray[np.bool_]) -> Places:
        """Return the place of each row in the result, or -1 for a row that was replaced."""
        keys = (ids, np.concatenate(self._times)) if self._time else (ids,)
        self._times = []
        order = np.lexsort(keys)
        if repeated.any():
            kept = np.ones(len(ids), dtype=np.bool_)
            kept[repeated] = ~pd.Index(ids[repeated]).duplicated(keep="last")
            order = order[kept[order]]
        places = np.full(len(ids), -1, dtype=np.int64)
        places[order] = np.arange(len(order))
        return places

    def _divide(self, places: Places, repeated: NDArray[np.bool_], number: int) -> pd.DataFrame:
        """Write the rows to `number` files by their places. Return the rows whose id is repeated."""
        found: list[pa.Table] = []
        with ExitStack() as files:
            paths = (self._folder / str(file) for file in range(number))
            writers = [files.enter_context(_writer(path, self._schema.append(PLACE))) for path in paths]
            for start, rows in _batches(self._folder / "rows"):
                part = slice(start, start + len(rows))
                if repeated[part].any() or not found:
                    found.append(rows.filter(pa.array(repeated[part])))
                rows = rows.append_column(PLACE, pa.array(places[part]))
                file_numbers = places[part] // FILE_ROWS
                for file_number in np.unique(file_numbers[file_numbers >= 0]):
                    writers[file_number].write_table(rows.filter(pa.array(file_numbers == file_number)))
        (self._folder / "rows").unlink()
        return pa.concat_tables(found).to_pandas()


def _writer(path: Path, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
    return pa.ipc.new_file(path, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


def _batches(path: Path) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows in parts, with the number of rows before each."""
    start = 0
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        if not reader.num_record_batches:  # no row was accepted
            yield start, reader.schema.empty_table()
        for number in range(reader.num_record_batches):
            rows = pa.Table.from_batches([reader.get_batch(number)])
            yield start, rows
            start += len(rows)


def _sorted(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        rows = reader.read_all()
    path.unlink()
    places = rows.num_columns - 1  # by number, because the schema may also have a column of this name
    order = np.argsort(rows.column(places).to_numpy())
    rows = rows.remove_column(places)
    table = pa.Table.from_pandas(rows.take(pa.array(order)).to_pandas(), preserve_index=False)
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):  # all vectors or images of this file are missing
            table = table.set_column(place, field.name, pa.nulls(len(table), rows.schema.field(field.name).type))
    return table
