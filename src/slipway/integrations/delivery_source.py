"""Read deliveries from a folder in any storage that fsspec supports. A delivery is a file, or a folder with parts."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from slipway.delivery_names import Listing, list_deliveries
from slipway.errors import CheckFailed, InputError
from slipway.image_archives import digests_of
from slipway.integrations.storage import describe_error, stamps_of


class DeliverySource:
    """A folder of deliveries. `address` is a local path or an fsspec URL, such as s3://deliveries/houses.

    Every method raises InputError if the storage cannot be read.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        if not address:
            raise InputError("params.yaml: `ingest.source` is empty; name the folder of the deliveries.")
        with self._errors():
            self._files, self._root = fsspec.core.url_to_fs(address)

    def listing(self) -> Listing:
        """Return the deliveries, and the files that are not taken as deliveries."""
        found: list[dict[str, Any]] = [{"name": self._root, "type": "other"}]
        with self._errors(), suppress(FileNotFoundError, NotADirectoryError):
            found = self._files.ls(self._root, detail=True)
        if [each["name"] for each in found] == [self._root]:  # for a file, the list contains only the file itself
            raise InputError(
                f"params.yaml: `ingest.source` is {self.address}, but that is not a folder; name the folder of the "
                "deliveries."
            )
        names = {str(each["name"]).rstrip("/").rpartition("/")[2]: each["type"] == "directory" for each in found}
        return list_deliveries(names.items(), self.where)

    def where(self, name: str) -> str:
        """Return the address of a file or folder, for messages."""
        return f"{self.address.rstrip('/')}/{name}"

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """Copy a file or folder to a temporary folder.

        Raises CheckFailed if it changes while it is copied, and InputError if a folder contains a link.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy, path = Path(folder) / name, f"{self._root.rstrip('/')}/{name}"
            with self._errors():
                before = self._files.find(path, detail=True)
            for each, info in before.items():
                if info.get("islink") and each != path:  # it could lead to any file of this machine
                    raise InputError(f"{self.where(name)} has the symbolic link {each}; deliver the file itself.")
            with self._errors():
                if self._files.isdir(path):
                    self._files.get(path, str(copy), recursive=True)
                else:
                    self._files.get_file(path, str(copy))
                self._files.invalidate_cache()
                after = _stamps(self._files.find(path, detail=True))
            copied = [copy] if copy.is_file() else [each for each in copy.rglob("*") if each.is_file()]
            if _stamps(before) != after or sorted(each.stat().st_size for each in copied) != sorted(
                size for size, *_ in after
            ):
                raise CheckFailed(f"{self.where(name)} is still being written; run this again when it is complete.")
            yield copy

    def has(self, name: str, ingested: Path) -> bool:
        """Return whether a file or folder in the source still has the same content as its ingested copy."""
        with self.fetched(name) as copy:
            return ingested.is_dir() == copy.is_dir() and digests_of(copy) == digests_of(ingested)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise InputError(f"params.yaml: `ingest.source` is {self.address}: {error}.") from None
        except Exception as error:
            raise InputError(
                f"The source {self.address} cannot be read ({describe_error(error)}); check it and its credentials."
            ) from None


def _stamps(files: Mapping[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return, for each file, the properties that change when the file changes. The size is first."""
    return [tuple(stamps_of(info).values()) for _, info in sorted(files.items())]
