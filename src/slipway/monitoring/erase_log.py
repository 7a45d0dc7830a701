"""erase-log: remove all rows of one key from a shipped prediction log."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from slipway.errors import CheckFailed, InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.erasures import Erasures, record_erasure
from slipway.monitoring.log_tables import COMMON_TYPES, UNREADABLE, one_of_each_bundle, read_table, to_parquet
from slipway.serving.log_segments import Header, header_in
from slipway.serving.logged_columns import key_hashes, secret_of_keys

TIME = COMMON_TYPES.field("time").type


@dataclass(frozen=True)
class Erased:
    rows: int
    files: int
    searched: int


def erase(store: LogStore, key: Mapping[str, str], secret: str | None) -> Erased:
    """Remove all rows with one key. `key` maps each key column to its value as text.

    The key is recorded first, so that `slipway ship-log` leaves out rows with this key that it has not shipped yet. A
    file that becomes empty is kept, so that its segment is not shipped again. Files that another program deletes during
    the search are skipped. Raises InputError if the log has no file. Raises CheckFailed, after all files were searched,
    if a file is not part of a log, or if its KEY columns differ from those of `key`.
    """
    search = _Search(store, key, secret, Erasures(store))
    store.remove_unfinished()
    if not (names := store.files()):
        raise InputError(f"{store.address} has no file of a prediction log; correct the address, or ship a log first.")
    if forms := _forms(store, names, key, secret):
        record_erasure(store, forms)
    search.erasures.refresh()
    for name in store.files():
        search.file(name)
    search.raise_for_skipped()
    return Erased(search.rows, search.changed, search.searched)


@dataclass
class _Search:
    """The search for one key, and what it has found so far."""

    store: LogStore
    key: Mapping[str, str]
    secret: str | None
    erasures: Erasures
    rows: int = 0
    changed: int = 0
    searched: int = 0
    others: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def file(self, name: str) -> None:
        """Remove the rows with the key from one file."""
        if self.store.size(name) is None:
            return  # deleted meanwhile, because its day has expired
        content = self.store.read(name)
        try:
            table = read_table(content)
            header = header_in(table.schema.metadata)
            keys = table["key"].cast(pa.string())
            table["time"].cast(TIME)  # raises an error unless `Erasures.apply` can compare the times
        except UNREADABLE:
            self.foreign.append(name)
            return
        if {each.name for each in header.key} != {*self.key}:
            self.others.append(name)
            return
        self.searched += 1
        is_other = pc.not_equal(keys, pa.scalar(_hash(header, self.key, self.secret)))
        kept = table.filter(pc.fill_null(is_other, True))
        if len(kept) < len(table):
            self.store.write(name, to_parquet(self.erasures.apply(kept)))
            if self.erasures.refresh():  # another key was erased, or is being erased
                self.erasures.clean(name)
            self.rows, self.changed = self.rows + len(table) - len(kept), self.changed + 1

    def raise_for_skipped(self) -> None:
        """Raise CheckFailed if files could not be searched."""
        if self.foreign:
            raise CheckFailed(
                f"{self.rows:,} rows were removed, but {len(self.foreign):,} files are not files of a prediction log, "
                f"such as {self.store.address}/{self.foreign[0]}; search and remove them yourself, or name the address "
                "of a log."
            )
        if self.others:
            raise CheckFailed(
                f"{self.rows:,} rows were removed, but {len(self.others):,} files identify rows by other columns than "
                f"{', '.join(self.key)}, such as {self.others[0]}; repeat this with the KEY columns of those files."
            )


def _forms(store: LogStore, names: Sequence[str], key: Mapping[str, str], secret: str | None) -> set[str]:
    """Return all hashes that the key can have in this log.

    One log file of each bundle is read. With a secret, the hashes also include those of a bundle whose first file is
    not shipped yet.
    """
    forms = set()
    for name in one_of_each_bundle(names):
        if store.size(name) is None:
            continue  # its day has expired
        try:
            header = header_in(read_table(store.read(name)).schema.metadata)
        except UNREADABLE:
            continue  # `erase` reports it
        if {each.name for each in header.key} == {*key}:
            keyed = {header.keyed, False, bool(secret)}
            forms |= {_hash(replace(header, keyed=each), key, secret) for each in keyed}
    return forms


def _hash(header: Header, key: Mapping[str, str], secret: str | None) -> str:
    values = [[_value(each.name, each.type, key[each.name])] for each in header.key]
    (found,) = key_hashes([each.type for each in header.key], values, secret_of_keys(header.keyed, secret))
    return found


def _value(name: str, kind: str, text: str) -> Any:
    try:
        text.encode()  # an argument may contain bytes that are not UTF-8
        if kind == "number":
            return _number(text)
        return date.fromisoformat(text) if kind == "date" else text
    except ValueError:
        raise InputError(f"The value {text!r} of {name} is not a {kind}; correct it.") from None


def _number(text: str) -> float:
    """Convert a text to a finite number. In the log, true and false are numbers. Raises ValueError."""
    number = {"true": 1.0, "false": 0.0}.get(text.lower())
    number = float(text) if number is None else number
    if not math.isfinite(number):
        raise ValueError
    return number
