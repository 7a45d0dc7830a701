"""Read the images of a delivery that is a folder of PNG or JPEG files, with an index that names the file of each row.

A name is looked up in the list of the folder's files, and never joined to a path. So no name leads out of the folder.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway.delivery_names import HIDDEN
from slipway.errors import InputError
from slipway.images import NotAnImage

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class ImageFolder:
    """The image files in a folder and its subfolders. `sizes` maps the path below the folder to the size in bytes."""

    path: Path
    sizes: Mapping[str, int]

    @property
    def mean_size(self) -> int:
        return sum(self.sizes.values()) // len(self.sizes)

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of the file that a row names. Raises NotAnImage without reading more than `limit` bytes.

        The message does not quote the name, because reasons are published.
        """
        size = self.sizes.get(name)
        if size is None:
            raise NotAnImage("names a file that is not in the folder")
        if size > limit:
            raise NotAnImage(f"has more than {limit:,} bytes")
        return (self.path / name).read_bytes()


def find_images(folder: Path) -> ImageFolder | None:
    """Return the images in a folder. Return None if it has none. Hidden files and folders are left out."""
    sizes: dict[str, int] = {}
    for parent, folders, names in os.walk(folder):  # does not follow symbolic links to folders
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        for name in names:
            if is_image(name) and not name.startswith(HIDDEN):
                path = Path(parent, name)
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return ImageFolder(folder, sizes) if sizes else None


def is_image(name: str) -> bool:
    """Return whether the name of a file ends as the name of an image."""
    return name.lower().endswith(SUFFIXES)


def has_only_images(folder: Path) -> bool:
    """Return whether a folder has images, and neither other files nor links to folders. Hidden files do not count."""
    found = [path for path in folder.rglob("*") if not path.name.startswith(HIDDEN)]
    others = [path for path in found if path.is_symlink() and path.is_dir()]
    others += [path for path in found if path.is_file() and not is_image(path.name)]
    return not others and any(path.is_file() for path in found)


def check_named(images: ImageFolder, named: Iterable[str], malformed: Iterable[str], where: str) -> None:
    """Raise InputError if no row names an image in the folder. `malformed` contains the lines that cannot be split."""
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
