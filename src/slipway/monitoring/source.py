"""Where deliveries arrive: any place that fsspec can read, seen as a list of CSV files."""

import filecmp
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from slipway.config import SAMPLE_SOURCE, Params
from slipway.errors import CheckFailed, InputError


def nothing_to_watch(params: Params, environ: Mapping[str, str]) -> str | None:
    """Why there is no source to look at, so that a repository which was just made is green; None where there is one.

    The sample's waits for a person, who runs the workflow by hand: who only has a copy of the template wants no pull
    request of houses each hour.
    """
    if not params.ingest.source:
        return "nothing to do: params.yaml does not say where deliveries arrive (ingest.source)"
    if params.ingest.source == SAMPLE_SOURCE and environ.get("GITHUB_EVENT_NAME") == "schedule":
        return f"nothing to do: {SAMPLE_SOURCE} is the template's sample, which no schedule takes in"
    return None


class Source:
    """A folder, a bucket, a site: `address` as fsspec has it, for example s3://deliveries/houses."""

    def __init__(self, address: str) -> None:
        self.address = address
        if not address:
            raise InputError("params.yaml: `ingest.source` is empty; name the folder where deliveries arrive.")
        with self._reached():
            self._files, self._root = fsspec.core.url_to_fs(address)

    def names(self) -> list[str]:
        """The files of all deliveries, the oldest first."""
        found: list[str] = [self._root]
        with self._reached(), suppress(FileNotFoundError, NotADirectoryError):
            found = self._files.ls(self._root, detail=False)
        if found == [self._root]:  # which a file is, too
            raise InputError(
                f"params.yaml: `ingest.source` is {self.address}, which is no folder; name the one with deliveries."
            )
        names = {str(path).rstrip("/").rpartition("/")[2] for path in found}
        return sorted(name for name in names if name.endswith(".csv") and not name.startswith("."))

    def where(self, name: str) -> str:
        """How a message names a file."""
        return f"{self.address.rstrip('/')}/{name}"

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A copy of a file, gone afterwards; raises CheckFailed where the file changed while it was copied."""
        with tempfile.TemporaryDirectory() as folder:
            copy, path = Path(folder) / name, f"{self._root.rstrip('/')}/{name}"
            with self._reached():
                before = self._files.info(path)
                self._files.get_file(path, str(copy))
                self._files.invalidate_cache()
                after = self._files.info(path)
            if copy.stat().st_size != after.get("size", before.get("size")) or _stamp(before) != _stamp(after):
                raise CheckFailed(f"{self.where(name)} is still being written; run this again when it is whole.")
            yield copy

    def has(self, name: str, taken: Path) -> bool:
        """Whether a file is as it was when it was taken in."""
        with self.fetched(name) as copy:
            return filecmp.cmp(copy, taken, shallow=False)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise InputError(f"params.yaml: `ingest.source` is {self.address}: {error}.") from None
        except Exception as error:  # each kind of storage raises what it likes
            words = f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(".")
            raise InputError(
                f"The source {self.address} cannot be read ({words}); check it and its credentials."
            ) from None


def _stamp(info: dict[str, Any]) -> tuple[object, ...]:
    """What changes when a file does, as far as its storage says."""
    return tuple(info.get(key) for key in ("size", "mtime", "ETag", "etag", "md5Hash", "LastModified", "updated"))
