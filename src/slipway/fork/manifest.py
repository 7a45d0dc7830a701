"""Read `manifest.yaml`, which sets the owner of each file: the framework, the template or the fork."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway.errors import InputError

Owner = Literal["framework", "locks", "template", "fork"]
MANIFEST = Path("src/slipway/fork/manifest.yaml")


@dataclass(frozen=True)
class Manifest:
    """The owner of each path. A path that ends in `/` is a folder. Any other path is a file."""

    entries: Mapping[str, Owner]

    def owner(self, path: str) -> Owner | None:
        """Return the owner of a file. Return None if neither the file nor its folder is in the manifest.

        If several paths in the manifest match the file, the longest path sets the owner.
        """
        found = [entry for entry in self.entries if path == entry or (entry.endswith("/") and path.startswith(entry))]
        return self.entries[max(found, key=len)] if found else None

    def is_framework(self, path: str) -> bool:
        """Return whether `slipway update` replaces the file."""
        return self.owner(path) in ("framework", "locks")


def read_manifest(content: bytes) -> Manifest:
    """Parse a manifest. Raises InputError if the content is not a manifest."""
    try:
        lists = YAML(typ="safe").load(content.decode())
        return Manifest({str(entry): owner for owner in get_args(Owner) for entry in lists[owner]})
    except (UnicodeDecodeError, YAMLError, KeyError, TypeError):
        raise InputError(f"{MANIFEST} is not a manifest; restore it with `git checkout {MANIFEST}`.") from None


def this_manifest() -> Manifest:
    """Return the manifest of the installed framework."""
    return read_manifest(Path(__file__).with_name(MANIFEST.name).read_bytes())
