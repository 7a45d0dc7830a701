"""Read the PNG or JPEG files of a delivery that is a folder of images.

An index in the folder names the file of each row. The files can also be in ZIP archives in the folder. A name is only
looked up in the list of the folder's files, so it cannot refer to a file outside of the folder.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.delivery_names import HIDDEN
from slipway.errors import InputError
from slipway.image_archives import ImageArchive, is_archive, is_image
from slipway.images import NotAnImage


@dataclass(frozen=True)
class ImageFolder:
    """The image files in a folder, its subfolders and its archives.

    `sizes` maps the path of an image below the folder to its size in bytes. `archives` maps the path of an image to the
    archive that contains it. The path of an image in an archive is its path inside the archive.
    """

    path: Path
    sizes: Mapping[str, int]
    archives: Mapping[str, ImageArchive]

    @property
    def mean_size(self) -> int:
        return sum(self.sizes.values()) // len(self.sizes)

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of the image file `name`.

        Raises NotAnImage if the file does not exist or has more than `limit` bytes. The message does not quote the
        name, because the reasons for rejected rows are published.
        """
        size = self.sizes.get(name)
        if size is None:
            raise NotAnImage("names a file that is not in the folder")
        if size > limit:
            raise NotAnImage(f"has more than {limit:,} bytes")
        archive = self.archives.get(name)
        return archive.read(name) if archive else (self.path / name).read_bytes()


def find_images(folder: Path, where: str) -> ImageFolder | None:
    """Return the images in a folder, or None if the folder has no images. Hidden files and folders are left out.

    `where` is the address of the folder, for messages. Raises InputError if an archive is damaged, or if two images
    have the same path.
    """
    sizes: dict[str, int] = {}
    archives: dict[str, ImageArchive] = {}
    for parent, folders, names in os.walk(folder):  # does not follow symbolic links to folders
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        for name in names:
            if is_image(name) and not name.startswith(HIDDEN):
                path = Path(parent, name)
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    for file in sorted(each for each in folder.iterdir() if each.is_file() and is_archive(each.name)):
        archive = ImageArchive(file, f"{where}/{file.name}")
        if twice := sorted(archive.sizes.keys() & sizes.keys()):
            raise InputError(f"{where} has the image {twice[0]!r} twice; remove one of them.")
        sizes |= archive.sizes
        archives |= dict.fromkeys(archive.sizes, archive)
    return ImageFolder(folder, sizes, archives) if sizes else None


def has_only_images(folder: Path) -> bool:
    """Return whether a folder contains images, and no other files or links to folders. Hidden files are ignored."""
    found = [path for path in folder.rglob("*") if not path.name.startswith(HIDDEN)]
    others = [path for path in found if path.is_symlink() and path.is_dir()]
    others += [path for path in found if path.is_file() and not is_image(path.name)]
    return not others and any(path.is_file() for path in found)


def check_named(images: ImageFolder, named: Iterable[str], malformed: Iterable[str], where: str) -> None:
    """Raise InputError if the folder has an image that no row names.

    `malformed` contains the lines that cannot be split into columns. An image whose name is in such a line is accepted.
    """
    unnamed = sorted(images.sizes.keys() - {*named})
    if unnamed:
        lines = "\n".join(malformed)
        unnamed = [name for name in unnamed if name not in lines]
    if unnamed:
        more = f" and {len(unnamed) - 1:,} more" if len(unnamed) > 1 else ""
        raise InputError(
            f"{where}: no row of the index names {unnamed[0]}{more}; add a row for each image, or remove the files "
            "without a row."
        )
