"""Read and write ZIP archives of images, so that a delivery with many small images has few files.

With many small files, most of the time of an ingestion is spent on creating, hashing, caching and deleting files.
`pack_images` therefore writes images to archives. The archives are not compressed, and the images keep their bytes and
paths.

Images are read from an archive without extracting files, so a path in an archive is never used as a path on disk.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property
from itertools import count
from pathlib import Path

from slipway.delivery_names import HIDDEN, delivery_name
from slipway.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg")
ARCHIVE_BYTES = 512 * 1024 * 1024
"""Maximum size of the images in an archive from `pack_images`, in bytes. A larger image gets a separate archive."""
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""Exceptions for archives that are damaged, have a password, or use an unknown compression."""


def is_image(name: str) -> bool:
    """Return whether a file name has the suffix of an image."""
    return name.lower().endswith(SUFFIXES)


def is_archive(name: str) -> bool:
    """Return whether a file name is the name of a ZIP archive of images, not of a compressed CSV or Parquet file."""
    return name.lower().endswith(".zip") and not name.startswith(HIDDEN) and delivery_name(name) is None


class ImageArchive:
    """The images in a ZIP archive. `where` is the address of the archive, for messages.

    Raises InputError if the archive is damaged, contains a file that is not an image, or contains a path twice.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._where = path, where
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            entries = self._file.infolist()
        except UNREADABLE as error:
            raise self._damaged(error) from None
        for entry in entries:
            if entry.is_dir() or any(part.startswith(HIDDEN) for part in entry.filename.split("/")):
                continue
            if not is_image(entry.filename):
                raise InputError(f"{where} has a file that is not named .png, .jpg or .jpeg; remove it.")
            if entry.filename in self._entries:
                raise InputError(f"{where} has the image {entry.filename!r} twice; remove one of them.")
            self._entries[entry.filename] = entry

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each image in bytes, by its path in the archive."""
        return {name: entry.file_size for name, entry in self._entries.items()}

    def read(self, name: str) -> bytes:
        """Return the content of an image. Read at most the number of bytes that `sizes` contains for this image."""
        try:
            return self._file.read(self._entries[name])
        except UNREADABLE as error:
            raise self._damaged(error) from None

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self._path)

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"{self._where} is a damaged or protected archive ({type(error).__name__}); deliver it again."
        )


def can_be_packed(path: str) -> bool:
    """Return whether `pack_images` packs a file: an image that is not hidden. `path` is relative to the delivery."""
    return is_image(path) and not any(part.startswith(HIDDEN) for part in path.split("/"))


def pack_images(images: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write images to new archives in a folder. Each image is a pair of its path below the folder and its content.

    The same images in the same order give the same bytes. Raises InputError if a path is not valid Unicode.
    """
    numbered = (folder / f"images-{number:05}.zip" for number in count())
    free = (file for file in numbered if not file.exists())
    archive: zipfile.ZipFile | None = None
    total = 0
    try:
        for path, content in images:
            if archive is None or total + len(content) > ARCHIVE_BYTES:
                if archive:
                    archive.close()
                archive, total = zipfile.ZipFile(next(free), "x"), 0
            archive.writestr(_entry(path), content)
            total += len(content)
    finally:
        if archive:
            archive.close()


def _entry(path: str) -> zipfile.ZipInfo:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InputError(f"The delivery has an image whose name is not UTF-8 ({path!a}); rename it.") from None
    entry = zipfile.ZipInfo(path)  # has a constant date
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # as for files from Unix
    return entry


def digests_of(path: Path) -> dict[str, bytes]:
    """Return a hash of each file of a delivery, by its path below the folder. The path of a single file is `""`.

    Each image in an archive has a separate hash. A folder therefore has the same hashes before and after `pack_images`.
    """
    found: dict[str, bytes] = {}
    for each in [path] if path.is_file() else path.rglob("*"):
        name = "" if each == path else each.relative_to(path).as_posix()
        if each.parent == path and each.is_file() and is_archive(name):
            archive = ImageArchive(each, str(each))
            found |= {image: hashlib.blake2b(archive.read(image)).digest() for image in archive.sizes}
        elif each.is_file():
            with each.open("rb") as file:
                found[name] = hashlib.file_digest(file, "blake2b").digest()
    return found
