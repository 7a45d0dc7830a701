"""The owner of each file: the framework, the template or the fork. `manifest.yaml` contains the list."""

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
    """The owner of each entry. An entry is the path of a file, or the path of a folder with a final `/`."""

    entries: Mapping[str, Owner]

    def owner(self, path: str) -> Owner | None:
        """Return the owner of a file, or None if no entry contains it.

        If several entries contain the file, the longest entry decides.
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
    """Return the manifest of the framework that is running."""
    return read_manifest(Path(__file__).with_name(MANIFEST.name).read_bytes())
