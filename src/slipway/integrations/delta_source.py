"""Read deliveries from a Delta Lake table. The rows that one version of the table adds are one delivery.

A version never changes, so its delivery can be made again until the files of the version are vacuumed.
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from slipway.config import Ingest
from slipway.delivery_names import Listing
from slipway.errors import InputError
from slipway.integrations.storage import without_secrets

if TYPE_CHECKING:
    from deltalake import DeltaTable

SETTING = "params.yaml: `ingest.format`"
DIGITS = 20
"""Number of digits of the version number in the name of a delivery. Delta Lake's log files also have 20 digits."""
APPENDS = ("WRITE", "STREAMING UPDATE", "COPY INTO", "CREATE TABLE AS SELECT")
CHANGES = ("DELETE", "UPDATE", "MERGE", "TRUNCATE", "RESTORE")
"""Operations that change or remove rows that were delivered before. Their files do not show it: a deletion vector
removes rows from a file that stays.
"""
REWRITES = ("OPTIMIZE", "REORG", "VACUUM START", "VACUUM END")
"""Operations that rewrite or remove files, but change no rows. The files of all other operations show what they do."""
FILES_ADDED = ("num_added_files", "numFiles", "numAddedFiles")


class DeltaSource:
    """The versions of a table that add rows. `taken` maps the name of each delivery in data/ to its file.

    Every method raises InputError if the table cannot be read.
    """

    def __init__(self, settings: Ingest, taken: Mapping[str, str]) -> None:
        self.address = settings.source
        self._prefix, self._taken = settings.prefix, taken

    def listing(self) -> Listing:
        """Return the deliveries in data/ and the deliveries in newer table versions.

        Also return the versions that are not deliveries.
        """
        with delta_errors(self.address, SETTING):
            history = {int(each["version"]): each for each in _open(self.address).history()}
        known = {name: file for name, file in self._taken.items() if self._version(file) is not None}
        newest = max((self._version(file) or 0 for file in known.values()), default=-1)
        if history and min(history) > newest + 1:
            raise self._gone(newest + 1, min(history))
        deliveries, not_taken = dict(known), {}
        for version in sorted(version for version in history if version > newest):
            entry = history[version]
            effect = self._effect(entry)
            if effect == "changes":
                not_taken[f"version {version} of {self.address}"] = (
                    f"{entry['operation']} changes or removes rows that were delivered before"
                )
            elif effect == "adds":
                name = f"{self._prefix}{version:0{DIGITS}}"
                deliveries[name] = f"{name}.parquet"
        return Listing(deliveries, not_taken)

    def where(self, name: str) -> str:
        """Return the address of the table with the version of a delivery, for messages."""
        return f"{self.address}, version {self._version(name)}"

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Yield a Parquet file with the rows that a version adds."""
        version = self._version(name)
        if version is None:
            raise InputError(f"{name} is not the name of a version of {self.address}.")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / name
            try:
                self._write(version, file)
            except FileNotFoundError:
                raise self._gone(version, version) from None
            yield file

    def has(self, name: str, ingested: Path) -> bool:  # noqa: ARG002
        """Return True, because a version never changes."""
        return True

    def _write(self, version: int, file: Path) -> None:
        with delta_errors(self.address, SETTING):
            before = set(_open(self.address, version - 1).file_uris()) if version else set()
            table = _open(self.address, version)
            rows = table.to_pyarrow_dataset()
            added = {_file_name(path) for path in {*table.file_uris()} - before}
            fragments = {_file_name(each.path): each for each in rows.get_fragments()}
            with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
                for path in sorted(added):
                    for batch in fragments[path].to_batches(schema=rows.schema):
                        writer.write_batch(batch)

    def _version(self, name: str) -> int | None:
        found = re.fullmatch(rf"{re.escape(self._prefix)}(\d{{{DIGITS}}})(\.parquet)?", name)
        return int(found[1]) if found else None

    def _effect(self, entry: Mapping[str, Any]) -> Literal["adds", "changes", "none"]:
        """Return whether a table version only adds rows, changes or removes rows, or does neither."""
        operation, version = str(entry.get("operation")), int(entry["version"])
        if operation in CHANGES or (version and _replaces_rows(entry)):
            return "changes"
        if operation in REWRITES:
            return "none"
        metrics = entry.get("operationMetrics") or {}
        counts = [int(metrics[name]) for name in FILES_ADDED if name in metrics]
        if operation in APPENDS and counts:
            return "adds" if max(counts) else "none"
        before, after = self._files(version - 1) if version else set(), self._files(version)
        if before - after:
            return "changes"
        return "adds" if after - before else "none"

    def _files(self, version: int) -> set[str]:
        with delta_errors(self.address, SETTING):
            return {*_open(self.address, version).file_uris()}

    def _gone(self, version: int, until: int) -> InputError:
        """Return the error for a version without files. All versions up to `until` have no files."""
        name = f"{self._prefix}{until:0{DIGITS}}.parquet"
        return InputError(
            f"Version {version} of {self.address} was vacuumed, so the rows that it added cannot be read; write the "
            f"rows that are missing in data/ to data/{name}, and record them with `dvc add data`."
        )


def write_table(address: str, columns: Collection[str], file: Path) -> int:
    """Write the rows of a table's newest version to a Parquet file, and return their number.

    Only the columns in `columns` are written. All columns are written if the table has none of these columns. Raises
    exceptions of deltalake and of the storage. `delta_errors` converts them to InputError.
    """
    rows = _open(address).to_pyarrow_dataset()
    names = [name for name in rows.schema.names if name in columns] or rows.schema.names
    count = 0
    with pq.ParquetWriter(file, pa.schema([rows.schema.field(name) for name in names]), compression="zstd") as writer:
        for batch in rows.to_batches(columns=names):
            writer.write_batch(batch)
            count += len(batch)
    return count


@contextmanager
def delta_errors(address: str, setting: str) -> Iterator[None]:
    """Raise InputError for each exception of deltalake or of a storage.

    `setting` is the name of the setting for the format, for messages. FileNotFoundError is raised unchanged, because it
    means that the files of a version were vacuumed.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except ImportError as error:
        raise InputError(
            f"{setting} is delta, which needs the package {error.name}; add it to requirements/model.in, and run "
            "`make lock` and `make setup`."
        ) from None
    except Exception as error:  # deltalake and the storage have their own exceptions
        words = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))[:200].rstrip(". ")
        raise InputError(f"The table {address} cannot be read ({words}); check it and its credentials.") from None


def _open(address: str, version: int | None = None) -> "DeltaTable":
    from deltalake import DeltaTable

    return DeltaTable(address, version=version)


def _replaces_rows(entry: Mapping[str, Any]) -> bool:
    """Return whether a version that writes rows also removes the rows that the table had before."""
    parameters = entry.get("operationParameters") or {}
    return "Overwrite" in parameters.get("mode", "") or parameters.get("outputMode") == "Complete"


def _file_name(path: str) -> str:
    """Return the name of a data file in the table. The name is unique, because it contains a random id."""
    return path.rpartition("/")[2]
