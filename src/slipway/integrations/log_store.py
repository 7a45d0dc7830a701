"""The storage of shipped prediction logs: a folder, or a bucket that fsspec supports."""

import os
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Any

import fsspec

from slipway.errors import InputError
from slipway.integrations.storage import refuse_empty, storage_errors, without_secrets

DAY = "day="
"""Prefix of the top-level folders, one for each day, such as `day=2026-11-26`."""
RECORD, ANSWER = "record_", "answer"
"""Prefixes of the columns with the record and with the prediction. A single prediction is in the column `ANSWER`."""
TRUTH, KNOWN_AT = "truth", "known_at"
"""Columns of joined rows: the truth, and the day on which it became known."""
PARTIAL = ".partial"
CLOCK = "_clock"
"""Name of the empty file that `LogStore.now` writes. Parquet readers ignore it, because of the underscore."""


class LogStore:
    """The files of a log below one fsspec address, such as s3://logs/houses. A file is either complete or absent.

    Names are relative to the address. Every method raises InputError if the storage cannot be used. `address` is for
    messages, and has no password.
    """

    def __init__(self, address: str, **options: Any) -> None:
        refuse_empty(address)
        self.address = without_secrets(address.rstrip("/"))
        with self._errors():
            self._files, root = fsspec.core.url_to_fs(address.rstrip("/"), use_listings_cache=False, **options)
        self._root = str(root).rstrip("/")
        kinds = self._files.protocol
        self._is_local = "file" in ((kinds,) if isinstance(kinds, str) else kinds)

    def overlaps(self, other: "LogStore") -> bool:
        """Return whether the addresses are equal, or one is a subfolder of the other."""
        mine, others = (f"{each._files.unstrip_protocol(each._root)}/" for each in (self, other))
        return mine.startswith(others) or others.startswith(mine)

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        with self._errors():
            try:
                return int(self._files.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def now(self) -> datetime:
        """Write an empty file, and return its time, by the clock of the storage.

        Return the time of this machine if the storage does not state when a file was written.
        """
        self.write(CLOCK, b"")
        with self._errors(), suppress(NotImplementedError):
            found: datetime = self._files.modified(self._path(CLOCK))
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        return datetime.now(UTC)

    def write(self, name: str, content: bytes) -> None:
        """Write a file completely or not at all, and check its size afterwards.

        A local file is renamed when it is complete. A bucket itself writes each object completely or not at all.
        """
        path = self._path(name)
        with self._errors():
            if self._is_local:
                folder, _, file = path.rpartition("/")
                self._files.makedirs(folder, exist_ok=True)
                # The temporary name is random, because another process can write the same file at the same time. The
                # name starts with a dot, so that readers of Parquet folders ignore the file if this process is killed.
                partial = f"{folder}/.{file}.{os.urandom(4).hex()}{PARTIAL}"
                try:
                    self._files.pipe_file(partial, content)
                    self._files.mv(partial, path)
                except Exception:
                    with suppress(FileNotFoundError):  # a full disk must not be filled further by each attempt
                        self._files.rm_file(partial)
                    raise
            else:
                self._files.pipe_file(path, content)
            self._files.invalidate_cache()
        if self.size(name) != len(content):
            raise InputError(f"{self.address}/{name} was not written completely; check the storage.")

    def read(self, name: str) -> bytes:
        with self._errors():
            return bytes(self._files.cat_file(self._path(name)))

    def files(self) -> list[str]:
        """Return the names of all Parquet files, sorted. Raises InputError for a path with the part `..`."""
        names = [name for name in self._names() if name.endswith(".parquet")]
        for name in names:
            if {"", ".", ".."} & {*name.split("/")}:
                raise InputError(f"{self.address} has a file with the name {name!r}; remove it.")
        return names

    def remove_unfinished(self) -> None:
        """Remove the unfinished files of killed processes. Buckets have no unfinished files.

        If `slipway ship-log` is still writing a removed file, it gets an error and then retries.
        """
        if self._is_local:
            with self._errors():
                for name in self._names():
                    if name.endswith(PARTIAL):
                        self._files.rm_file(self._path(name))

    def names_in(self, folder: str) -> list[str]:
        """Return the names of all files in a folder, sorted."""
        return self._names(folder)

    def delete(self, name: str) -> None:
        with self._errors():
            try:
                self._files.rm_file(self._path(name))
            except FileNotFoundError:
                return  # another process deleted it

    def _names(self, folder: str = "") -> list[str]:
        with self._errors():
            found = self._files.find(self._path(folder) if folder else self._root)
        return sorted(str(path).removeprefix(self._root).removeprefix("/") for path in found)

    def folders(self) -> list[str]:
        """Return the names of the top-level folders, sorted."""
        with self._errors():
            try:
                found = self._files.ls(self._root, detail=True)
            except FileNotFoundError:
                return []
        return sorted(str(each["name"]).rstrip("/").rpartition("/")[2] for each in found if each["type"] == "directory")

    def delete_folder(self, name: str) -> None:
        with self._errors():
            try:
                self._files.rm(self._path(name), recursive=True)
            except FileNotFoundError:
                return  # another process deleted it

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _errors(self) -> AbstractContextManager[None]:
        return storage_errors(f"The storage {self.address}")
