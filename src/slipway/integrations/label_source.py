"""Read labels that arrive later than their requests, from the same kinds of sources as deliveries.

A source is a folder of CSV or Parquet files in any storage that fsspec supports, a SQL query, or a Delta Lake table.
All labels are read each time, so no state is stored. The labels of a query or of a table are a snapshot of one moment.
"""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem

from slipway.delivery_names import delivery_name
from slipway.errors import InputError
from slipway.integrations.database import Database, QueryWords, RowFile
from slipway.integrations.delta_source import delta_errors, write_table
from slipway.integrations.storage import storage_errors, without_secrets

USER, PASSWORD = "SLIPWAY_LABELS_USER", "SLIPWAY_LABELS_PASSWORD"
"""Environment variables with the credentials of the database."""
WORDS = QueryWords("Labels: ", "the address", "the query")


@dataclass(frozen=True)
class LabelSource:
    """The location of labels. With `query`, `address` is the SQLAlchemy URL of a database.

    `environ` contains the credentials of the database.
    """

    address: str
    query: str | None = None
    format: Literal["files", "delta"] = "files"
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The address of the labels, without secrets."""
        return without_secrets(self.address)


@contextmanager
def fetched_labels(source: LabelSource, columns: Collection[str]) -> Iterator[dict[str, Path]]:
    """Yield a map from the address of each label file to its local path.

    Remote files, query results and table rows are copied to a temporary folder, which is deleted after the `with`
    block. Only `columns` of a query or a table are copied. Raises InputError if the source cannot be read or has no
    labels.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        if source.query or source.format == "delta":
            file = Path(folder) / "labels.parquet"
            rows = _copy_query(source, columns, file) if source.query else _copy_table(source, columns, file)
            if not rows:
                raise InputError(
                    f"The source of labels {source.shown} has no rows; correct it, or give its user access to the rows."
                )
            yield {source.shown: file}
        else:
            yield _fetched_files(source, Path(folder))


def _fetched_files(source: LabelSource, folder: Path) -> dict[str, Path]:
    with storage_errors(f"The source of labels {source.shown}"):
        files, root = fsspec.core.url_to_fs(source.address)
        names = sorted(name for name in files.find(root) if delivery_name(name.rpartition("/")[2]))
        if isinstance(files, LocalFileSystem):
            paths = {name: Path(name) for name in names}
        else:
            paths = {name: folder / f"{i:08}-{name.rpartition('/')[2]}" for i, name in enumerate(names)}
            for name, path in paths.items():
                files.get_file(name, str(path))
    if not paths:
        raise InputError(f"The source of labels {source.shown} has no .csv or .parquet file; correct it.")
    return paths


def _copy_query(source: LabelSource, columns: Collection[str], file: Path) -> int:
    """Write the result of the query to a file, and return the number of rows."""
    database = Database(source.address, source.query or "", WORDS, USER, PASSWORD, source.environ)
    with database.connected() as connection:
        wanted = [name for name in database.columns(connection) if name in columns]
        rows = RowFile(file.parent, WORDS)
        for table in database.tables(connection, columns=wanted):
            rows.add(table)
        return rows.write(file, source.shown)


def _copy_table(source: LabelSource, columns: Collection[str], file: Path) -> int:
    """Write the rows of the newest version of a Delta Lake table to a file, and return the number of rows."""
    try:
        with delta_errors(source.shown, "Labels: the format"):
            return write_table(source.address, columns, file)
    except FileNotFoundError:
        raise InputError(f"The table {source.shown} lacks files of its newest version; rewrite the table.") from None
