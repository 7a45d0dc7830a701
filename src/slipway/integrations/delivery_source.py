"""Read deliveries from a folder in any storage that fsspec supports. A delivery is a file, or a folder with parts."""

import errno
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from slipway.delivery_names import Listing, list_deliveries
from slipway.errors import CheckFailed, InputError
from slipway.image_archives import ImageArchive, can_be_packed, digests_of, pack_images
from slipway.integrations.storage import describe_error, stamps_of

GROUP_BYTES, GROUP_FILES = 64_000_000, 1_000
"""Maximum total size in bytes, and maximum number, of images that are read at the same time."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk."""


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
        if [each["name"] for each in found] == [self._root]:  # a list of only this path means that it is a file
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
        """Copy a file or folder to a temporary folder. The images of a folder are packed into archives.

        Raises CheckFailed if the file or folder changes while it is copied, and InputError if a folder contains a link.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy, path = Path(folder) / name, f"{self._root.rstrip('/')}/{name}"
            with self._errors():
                before = self._files.find(path, detail=True)
            for each, info in before.items():
                if info.get("islink") and each != path:  # a link could lead to any file of this machine
                    raise InputError(f"{self.where(name)} has the symbolic link {each}; deliver the file itself.")
            with self._errors():
                if self._files.isdir(path):
                    self._get_folder(path, before, copy)
                else:
                    self._files.get_file(path, str(copy))
                self._files.invalidate_cache()
                after = _stamps(self._files.find(path, detail=True))
            if _stamps(before) != after or sorted(_sizes(copy, len(path), before)) != sorted(
                size for size, *_ in after
            ):
                raise CheckFailed(f"{self.where(name)} is still being written; run this again when it is complete.")
            yield copy

    def _get_folder(self, path: str, files: Mapping[str, dict[str, Any]], copy: Path) -> None:
        """Copy a folder, and pack its images into archives. `files` has the properties of all its files."""
        start = f"{path.rstrip('/')}/"
        packed = sorted(each.removeprefix(start) for each in files if can_be_packed(each.removeprefix(start)))
        if not packed or not all(each.startswith(start) for each in files):
            self._files.get(path, str(copy), recursive=True)
            return
        copy.mkdir()
        for each in sorted({each.removeprefix(start) for each in files} - {*packed}):
            (copy / each).parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(start + each, str(copy / each))
        pack_images(self._contents(start, packed, files), copy)

    def _contents(
        self, start: str, names: Sequence[str], files: Mapping[str, dict[str, Any]]
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of files. Several files of a remote storage are read at the same time."""
        for group in _groups(names, [int(files[start + name]["size"]) for name in names]):
            contents = self._files.cat([start + name for name in group])
            yield from ((name, contents[start + name]) for name in group)

    def has(self, name: str, ingested: Path) -> bool:
        """Return whether a file or folder in the source still has the same content as its ingested copy."""
        with self.fetched(name) as copy:
            return ingested.is_dir() == copy.is_dir() and digests_of(copy) == digests_of(ingested)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except ImportError as error:
            raise InputError(f"params.yaml: `ingest.source` is {self.address}: {error}.") from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:  # the disk of the copy, not the source
                raise
            raise InputError(
                f"The source {self.address} cannot be read ({describe_error(error)}); check it and its credentials."
            ) from None


def _sizes(copy: Path, start: int, files: Collection[str]) -> Iterator[int]:
    """Yield the sizes of the copied files. For an archive that is not in `files`, yield the sizes of its images.

    `files` are the delivered files. The first `start` characters of each path are the path of the delivery.
    """
    names = {each[start:].lstrip("/") for each in files}
    for each in [copy] if copy.is_file() else copy.rglob("*"):
        name = "" if each == copy else each.relative_to(copy).as_posix()
        if name in names:
            yield each.stat().st_size
        elif each.is_file():
            yield from ImageArchive(each, each.name).sizes.values()


def _groups(names: Sequence[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Divide files into groups that fit into memory."""
    group: list[str] = []
    total = 0
    for name, size in zip(names, sizes, strict=True):
        if group and (total + size > GROUP_BYTES or len(group) == GROUP_FILES):
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    yield group


def _stamps(files: Mapping[str, dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return, for each file, the properties that change when the file changes. The size is first."""
    return [tuple(stamps_of(info).values()) for _, info in sorted(files.items())]
