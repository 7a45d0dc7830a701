"""Read and write ZIP archives of images, so that a delivery with many small images has few files.

Each file takes time to create, to hash, to copy to DVC's cache and to delete, which together take longer than all other
steps of an ingestion. `pack_images` therefore writes images to archives. The archives are not compressed, and the
images keep their bytes and paths.

Nothing is extracted to a file. The name of an image in an archive is only looked up in the list of the archive.
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
"""Maximum size of the images in an archive that `pack_images` writes, in bytes. A larger image has its own archive."""
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)
"""Errors of damaged archives, and of archives with a password or an unknown compression."""


def is_image(name: str) -> bool:
    """Return whether the name of a file ends as the name of an image."""
    return name.lower().endswith(SUFFIXES)


def is_archive(name: str) -> bool:
    """Return whether a file is named as an archive of images, and not as a compressed CSV or Parquet file."""
    return name.lower().endswith(".zip") and not name.startswith(HIDDEN) and delivery_name(name) is None


class ImageArchive:
    """The images in a ZIP archive. `where` is the address of the archive, for messages.

    Raises InputError if the archive is damaged, has other files than images, or has two images with the same path.
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
        """Return an image. Never reads more bytes than `sizes` has for it."""
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
    """Return whether `pack_images` takes a file, which is not hidden. `path` is its path below the folder."""
    return is_image(path) and not any(part.startswith(HIDDEN) for part in path.split("/"))


def pack_images(images: Iterable[tuple[str, bytes]], folder: Path) -> None:
    """Write images to new archives in a folder. Each image is given by its path below the folder and its content.

    Equal images in equal order give equal bytes. Raises InputError if a path is not valid Unicode.
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
    entry = zipfile.ZipInfo(path)  # with a constant date
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix
    return entry


def digests_of(path: Path) -> dict[str, bytes]:
    """Return a hash of each file of a delivery, by its path below the folder. If the delivery is a file, use `""`.

    An image in an archive counts as a file. A folder therefore has the same hashes before and after `pack_images`.
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
