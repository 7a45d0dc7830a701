"""Access the files of batch scoring: the input and the output folder, in any storage that fsspec supports."""

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from slipway import atomic
from slipway.delivery_names import HIDDEN
from slipway.errors import CheckFailed, InputError, disk_errors
from slipway.integrations.storage import refuse_empty, stamps_of, storage_errors, without_secrets

UNFINISHED = ".unfinished"
"""Subfolder of a local output folder, with the files that are not published yet."""
RESULTS = ("answers", "quarantine", "manifests", UNFINISHED)
"""Subfolders of an output folder."""

LONGEST_NAME = 255 - len(".parquet")
"""Maximum length in bytes of a name in the input. A file system accepts 255 bytes, and the results get a suffix."""


@dataclass(frozen=True)
class Part:
    """One file of the input. `name` is its path relative to the input folder. `stamp` changes when the file changes."""

    name: str
    path: str
    stamp: str


class _Storage:
    def __init__(self, address: str) -> None:
        refuse_empty(address)
        self.address = without_secrets(address.rstrip("/"))  # used in messages
        with self._errors():
            self._files, root = fsspec.core.url_to_fs(address.rstrip("/"))
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._files, LocalFileSystem)

    def _errors(self) -> AbstractContextManager[None]:
        return storage_errors(f"The storage {self.address}")


class BatchInput(_Storage):
    """A file, or a folder with files at any depth.

    Files and folders whose names start with a dot or an underscore are left out.

    Every method raises InputError if the storage cannot be read.
    """

    def parts(self) -> list[Part]:
        """Return the parts, sorted by name. Raise InputError if the input has no file."""
        with self._errors():
            self._files.invalidate_cache()
            found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        parts = [
            Part(path.removeprefix(self._root).lstrip("/") or path.rpartition("/")[2], path, _stamp(info))
            for path, info in found.items()
        ]
        parts = [part for part in parts if not any(step.startswith(HIDDEN) for step in part.name.split("/"))]
        for part in parts:
            if not _is_utf8(part.name):
                raise InputError(f"{self.address} has a file whose name is not UTF-8, {part.name!r}; rename it.")
            if any(len(step.encode()) > LONGEST_NAME for step in part.name.split("/")):
                raise InputError(
                    f"{self.address} has a file or folder whose name is longer than {LONGEST_NAME} bytes, "
                    f"{part.name[:40]!r}…; rename it, so that its results can be named after it."
                )
        if not parts:
            raise InputError(f"{self.address} does not exist or has no files; name a file, or a folder of files.")
        return sorted(parts, key=lambda part: part.name)

    def overlaps(self, output: "BatchOutput") -> bool:
        """Return whether results would be read as input: the output is in this input, or this input in the results.

        Links are followed.
        """
        if type(self._files) is not type(output._files):
            return False
        roots = (self._root, output._root)
        mine, other = (Path(root).resolve() if self._is_local else PurePosixPath(root) for root in roots)
        return other.is_relative_to(mine) or any(mine.is_relative_to(other / name) for name in RESULTS)

    @contextmanager
    def fetched(self, part: Part) -> Iterator[Path]:
        """Yield a local file with the content of a part. Raises CheckFailed if the part changes while it is used."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(part.path)
            if not self._is_local:
                local = Path(folder) / part.name.rpartition("/")[2]
                with self._errors():
                    self._files.get_file(part.path, str(local))
            yield local
            with self._errors():
                self._files.invalidate_cache()
                after = _stamp(self._files.info(part.path))
        if after != part.stamp:
            raise CheckFailed(f"{self.address}/{part.name} is still being written; run this again when it is complete.")


class BatchOutput(_Storage):
    """The output folder of batch scoring. Each file is replaced completely or not at all.

    `locked` prevents two runs at the same time.

    A file is first written to the local path that `staged` returns. Each `BatchOutput` object uses a different path.
    Then `publish` moves the file to its place.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._scratch = tempfile.TemporaryDirectory()
        self._unfinished = Path(self._root, UNFINISHED)
        own = self._unfinished / uuid.uuid4().hex
        self._staged = own if self._is_local else Path(self._scratch.name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock a local output folder, and remove unpublished files before and after the `with` block.

        Raises InputError if another run writes to the folder. A bucket is not locked.
        """
        if not self._is_local:
            yield
            return
        with self._errors():
            self._files.makedirs(self._root, exist_ok=True)
        with atomic.locked(Path(self._root)) as is_free:
            if not is_free:
                raise InputError(f"Another run writes to {self.address}; wait for its end, or name another output.")
            self._remove_unfinished()
            yield
            self._remove_unfinished()

    def writing(self) -> AbstractContextManager[None]:
        """Convert errors of the disk to InputError. Only a local output folder is on the same disk as staged files."""
        return disk_errors(self.address if self._is_local else self._scratch.name)

    def staged(self, name: str) -> Path:
        """Return the local path to which the file `name` is written before it is published."""
        path = self._staged / name
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, name: str) -> None:
        """Move the file at the path `staged(name)` to the output folder. Replace an existing file there."""
        with self._errors():
            self._files.makedirs(f"{self._root}/{name}".rpartition("/")[0], exist_ok=True)
            if self._is_local:
                self.staged(name).replace(f"{self._root}/{name}")
                return
            self._files.put_file(str(self.staged(name)), f"{self._root}/{name}")
            self.staged(name).unlink()

    def _remove_unfinished(self) -> None:
        """Remove all files that were staged in a local output folder but not published."""
        if self._unfinished.exists():
            with self._errors():
                shutil.rmtree(self._unfinished)

    def write(self, name: str, content: str) -> None:
        """Write a text to the output folder as UTF-8. Replace an existing file."""
        with self.writing():
            self.staged(name).write_text(content, encoding="utf-8", newline="\n")
        self.publish(name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""
        with self._errors(), suppress(FileNotFoundError):
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content
        return None

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        with self._errors(), suppress(FileNotFoundError):
            self._files.invalidate_cache()
            return int(self._files.info(f"{self._root}/{name}")["size"])
        return None

    def remove(self, name: str) -> None:
        """Remove a file from the output folder, and its unpublished version at the path `staged(name)`."""
        self.staged(name).unlink(missing_ok=True)
        with self._errors(), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stamp(info: dict[str, Any]) -> str:
    """Return a text that changes when a file changes.

    For a local file, the text includes the time of the inode's last change. Programs such as `rsync --times` can set
    the time of modification, but not this time. For a link, the text describes the file that the link leads to.
    """
    stamps = stamps_of(info)
    if "ino" in info:
        with suppress(OSError):  # a link to nothing
            status = Path(info["name"]).stat()
            stamps |= {"size": status.st_size, "mtime": status.st_mtime, "changed": status.st_ctime}
    return json.dumps({key: str(value) for key, value in stamps.items() if value is not None})
