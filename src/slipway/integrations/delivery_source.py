"""The source of deliveries: CSV files in any storage that fsspec supports."""

import filecmp
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from slipway.errors import CheckFailed, InputError


class DeliverySource:
    """A folder of deliveries. `address` is a path or a URL of fsspec, such as s3://deliveries/houses.

    Every method raises InputError if the storage cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        if not address:
            raise InputError("params.yaml: `ingest.source` is empty; name the folder of the deliveries.")
        with self._errors():
            self._files, self._root = fsspec.core.url_to_fs(address)

    def names(self) -> list[str]:
        """Return the names of all CSV files, the oldest first."""
        found: list[str] = [self._root]
        with self._errors(), suppress(FileNotFoundError, NotADirectoryError):
            found = self._files.ls(self._root, detail=False)
        if found == [self._root]:  # the list of a file contains only the file itself
            raise InputError(
                f"params.yaml: `ingest.source` is {self.address}, but that is not a folder; name the folder of the "
                "deliveries."
            )
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted(name for name in names if name.endswith(".csv") and not name.startswith("."))

    def where(self, name: str) -> str:
        """Return the address of a file, for messages."""
        return f"{self.address.rstrip('/')}/{name}"

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Copy a file to a temporary folder. Raises CheckFailed if the file changes while it is copied."""
        with tempfile.TemporaryDirectory() as folder:
            copy, path = Path(folder) / name, f"{self._root.rstrip('/')}/{name}"
            with self._errors():
                before = self._files.info(path)
                self._files.get_file(path, str(copy))
                self._files.invalidate_cache()
                after = self._files.info(path)
            if copy.stat().st_size != after.get("size", before.get("size")) or _stamp(before) != _stamp(after):
                raise CheckFailed(f"{self.where(name)} is still being written; run this again when it is complete.")
            yield copy

    def has(self, name: str, ingested: Path) -> bool:
        """Return whether the source still has the content of a file that was ingested."""
        with self.fetched(name) as copy:
            return filecmp.cmp(copy, ingested, shallow=False)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise InputError(f"params.yaml: `ingest.source` is {self.address}: {error}.") from None
        except Exception as error:  # each kind of storage has its own exceptions
            words = f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(".")
            raise InputError(
                f"The source {self.address} cannot be read ({words}); check it and its credentials."
            ) from None


def _stamp(info: dict[str, Any]) -> tuple[object, ...]:
    """Return the properties that change when the file changes. Each kind of storage has some of them."""
    return tuple(info.get(key) for key in ("size", "mtime", "ETag", "etag", "md5Hash", "LastModified", "updated"))
