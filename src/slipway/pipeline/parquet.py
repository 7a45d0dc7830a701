"""Read and write the Parquet files that stages exchange."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slipway import atomic
from slipway.errors import InputError

GROUP_ROWS = 1024 * 1024
"""The number of rows in a row group, which is the default of pandas."""
PART_ROWS = 128 * 1024
"""The number of rows that are in memory at a time."""
UNREADABLE = (OSError, ValueError)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet file that an earlier stage wrote. Raises InputError if the file is missing or invalid."""
    with _explained(path):
        return pd.read_parquet(path, columns=columns)


def column_names(path: Path) -> list[str]:
    """Return the names of the columns of a Parquet file. Raises InputError if the file is missing or invalid."""
    with _explained(path):
        return list(pq.read_schema(path).names)


def row_count(path: Path) -> int:
    """Return the number of rows of a Parquet file. Raises InputError if the file is missing or invalid."""
    with _explained(path):
        return int(pq.read_metadata(path).num_rows)


def read_parts(path: Path, columns: Sequence[str] | None = None, rows: int = PART_ROWS) -> Iterator[pa.Table]:
    """Yield a Parquet file in parts of at most `rows` rows. Raises InputError if the file is missing or invalid."""
    with _explained(path), pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(rows, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch], file.schema_arrow if columns is None else None)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro` to run the earlier stages.") from None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error}); run `dvc repro --force`.") from None


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write rows atomically. Equal rows give equal bytes."""
    with atomic.replacing(path) as fresh:
        rows.to_parquet(fresh, index=False, compression="zstd")


class TableWriter:
    """Writer of a Parquet file in row groups. The file appears only when it is complete.

    The file has the same bytes as if `write_table` wrote all rows at once.
    """

    def __init__(self, path: Path) -> None:
        self._replacing = atomic.replacing(path)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> Self:
        self._fresh = self._replacing.__enter__()
        return self

    def add(self, table: pa.Table) -> None:
        """Add rows to the file. All added tables must have the same schema."""
        self._waiting.append(table)
        self._rows += len(table)
        while self._rows >= GROUP_ROWS:
            self._write(GROUP_ROWS)

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None and (self._rows or self._writer is None):
            self._write(self._rows)
        if self._writer:
            self._writer.close()
        self._replacing.__exit__(*raised)  # type: ignore[arg-type]

    def _write(self, rows: int) -> None:
        whole = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._rows = [whole.slice(rows)], len(whole) - rows
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._fresh, whole.schema, compression="zstd")
        self._writer.write_table(whole.slice(0, rows), row_group_size=GROUP_ROWS)
