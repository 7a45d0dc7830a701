"""Find the deliveries among the files and folders in data/ or in a source, by their names.

A delivery is named after its file or folder, without the suffix. Deliveries are ordered by name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from slipway.errors import InputError

FORMATS = (".csv", ".parquet")
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
HIDDEN = (".", "_")
"""Files whose names start with these characters are not deliveries. Examples are Spark's `_SUCCESS` and `.part.crc`.
"""
KEY_LIST = ".deleted"
"""The name of a list of keys ends in this suffix. An example is the file `2013-06.deleted.csv`."""
NOT_TAKEN = "its name ends neither in .csv nor in .parquet, also compressed"

DESKTOP_FILES = ("Thumbs.db", "desktop.ini")
"""Files that Windows creates in folders. `slipway.bundle` has its own list, because the stage `validate` must not
depend on the code of `slipway.bundle`.
"""
UNPRINTABLE = "its name has a character that cannot be printed"
"""The reason to refuse the name of a delivery. Commit messages, branches and logs contain the names of deliveries."""


@dataclass(frozen=True)
class Listing:
    """The deliveries in a folder, ordered by name, and the files that are not deliveries.

    `deliveries` maps the name of each delivery to its file or folder. `not_taken` maps the address of each ignored file
    to the reason. `errors` has an error for each file that must be renamed, because the file can contain rows.
    """

    deliveries: Mapping[str, str]
    not_taken: Mapping[str, str]
    errors: tuple[InputError, ...] = ()


def delivery_name(file: str, *, is_folder: bool = False) -> str | None:
    """Return the name of the delivery in a file or folder. Return None if the file or folder is not a delivery."""
    if file.startswith(HIDDEN):
        return None
    stem = next((file[: -len(end)] for end in COMPRESSIONS if file.lower().endswith(end)), file)
    for suffix in FORMATS:
        if stem.lower().endswith(suffix):
            return stem[: -len(suffix)] or None
    return file if is_folder else None


def is_key_list(name: str) -> bool:
    """Return whether the delivery `name` is a list of keys of rows to delete.

    A list of keys is accepted only if `validate.deletions` is `accept`. In a listing, `2013-06.deleted` comes directly
    after the delivery `2013-06`.
    """
    return name.lower().endswith(KEY_LIST)


def reason_not_taken(file: str) -> str | None:
    """Return the reason why a file is not a delivery.

    Return None for files that are ignored without a message: files that Windows creates, and hidden files without the
    suffix of a delivery.
    """
    if file in DESKTOP_FILES:
        return None
    if not file.startswith(HIDDEN):
        return NOT_TAKEN
    return f"its name starts with {file[0]}" if delivery_name(file.lstrip("._")) else None


def list_deliveries(entries: Iterable[tuple[str, bool]], where: Callable[[str], str]) -> Listing:
    """List the deliveries among the entries of a folder. Each entry is a pair: its name, and whether it is a folder.

    `where` returns the address of an entry, for messages. If several entries have the same name without their suffix,
    none of them is a delivery.
    """
    named: dict[str, list[str]] = {}
    not_taken: dict[str, str] = {}
    errors: list[InputError] = []
    for entry, is_folder in sorted(entries):
        name = delivery_name(entry, is_folder=is_folder)
        reason = reason_not_taken(entry) if name is None else None if name.isprintable() else UNPRINTABLE
        if reason in (NOT_TAKEN, UNPRINTABLE):
            address = where(entry if entry.isprintable() else entry.encode("unicode_escape").decode())
            fix = "deliver it as CSV or Parquet, or remove it" if reason == NOT_TAKEN else "rename it, or remove it"
            errors.append(InputError(f"{address} is not taken, because {reason}; {fix} from there."))
        elif reason:
            not_taken[where(entry)] = reason
        elif name is not None:
            named.setdefault(name, []).append(entry)
    for name, (entry, *others) in named.items():
        if others:
            errors.append(
                InputError(
                    f"{where(entry)} and {where(others[0])} are both named {name}; rename or remove one of them."
                )
            )
    deliveries = {name: found[0] for name, found in sorted(named.items()) if len(found) == 1}
    return Listing(deliveries, not_taken, tuple(errors))
