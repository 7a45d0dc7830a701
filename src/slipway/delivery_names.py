"""Decide by their names which files and folders in data/ or in a source are deliveries.

A delivery is named after its file or folder, without the suffix. Deliveries are ordered by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from slipway.errors import InputError

FORMATS = (".csv", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
HIDDEN = (".", "_")
"""Files whose names start with these characters are not data. Examples are Spark's `_SUCCESS`, `.crc` files and
unfinished copies.
"""
NOT_TAKEN = "its name ends neither in .csv nor in .parquet, also compressed"


@dataclass(frozen=True)
class Listing:
    """The deliveries in a folder, ordered by name, and the files that are not deliveries.

    `deliveries` maps the name of each delivery to its file or folder. `not_taken` maps the address of each other file
    to the reason why it is not a delivery.
    """

    deliveries: Mapping[str, str]
    not_taken: Mapping[str, str]


def delivery_name(file: str, *, is_folder: bool = False) -> str | None:
    """Return the name of the delivery in a file or folder. Return None if it is not a delivery."""
    if file.startswith(HIDDEN):
        return None
    stem = next((file[: -len(end)] for end in COMPRESSIONS if file.lower().endswith(end)), file)
    for suffix in FORMATS:
        if stem.lower().endswith(suffix):
            return stem[: -len(suffix)] or None
    return file if is_folder else None


def reason_not_taken(file: str) -> str | None:
    """Return why a file is not taken as a delivery.

    Return None if the file needs no explanation: it is hidden, and has no suffix of a delivery.
    """
    if not file.startswith(HIDDEN):
        return NOT_TAKEN
    return f"its name starts with {file[0]}" if delivery_name(file.lstrip("._")) else None


def list_deliveries(entries: Iterable[tuple[str, bool]], where: Callable[[str], str]) -> Listing:
    """List the deliveries among the entries of a folder. Each entry is a pair: its name, and whether it is a folder.

    `where` returns the address of an entry, for messages. Raises InputError if two deliveries have the same name.
    """
    deliveries: dict[str, str] = {}
    not_taken: dict[str, str] = {}
    for entry, is_folder in sorted(entries):
        name = delivery_name(entry, is_folder=is_folder)
        if name is None:
            if reason := reason_not_taken(entry):
                not_taken[where(entry)] = reason
        elif name in deliveries:
            raise InputError(
                f"{where(deliveries[name])} and {where(entry)} are both named {name}; rename or remove one of them."
            )
        else:
            deliveries[name] = entry
    return Listing(dict(sorted(deliveries.items())), not_taken)
