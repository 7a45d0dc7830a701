"""erase-log: remove all rows of one key from a shipped prediction log."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from slipway.errors import CheckFailed, InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.erasures import Erasures, record_erasure
from slipway.monitoring.log_tables import read_header, read_table, to_parquet
from slipway.serving.log_segments import Header
from slipway.serving.logged_columns import key_hashes, secret_of_keys


@dataclass(frozen=True)
class Erased:
    rows: int
    files: int
    searched: int


def erase(store: LogStore, key: Mapping[str, str], secret: str | None) -> Erased:
    """Remove all rows with one key. `key` maps each key column to its value as text.

    The key is recorded first, so that `slipway ship-log` leaves out rows with this key that it has not shipped yet. A
    file that becomes empty is kept, so that its segment is not shipped again. Files that another program deletes during
    the search are skipped. Raises CheckFailed, after all files were searched, if a file is not part of a log, or if its
    KEY columns differ from those of `key`.
    """
    rows = changed = searched = 0
    others: list[str] = []
    foreign: list[str] = []
    store.remove_unfinished()
    if forms := _forms(store, key, secret):
        record_erasure(store, forms)
    erasures = Erasures(store)
    erasures.refresh()
    for name in store.files():
        if store.size(name) is None:
            continue  # deleted meanwhile, because its day has expired
        content = store.read(name)
        try:
            table = read_table(content)
            header = read_header(table.schema)
            keys = table["key"].cast(pa.string())
        except (OSError, ValueError, KeyError, pa.ArrowException):
            foreign.append(name)
            continue
        if {each.name for each in header.key} != {*key}:
            others.append(name)
            continue
        searched += 1
        is_other = pc.not_equal(keys, pa.scalar(_hash(header, key, secret)))
        kept = table.filter(pc.fill_null(is_other, True))
        if len(kept) < len(table):
            store.write(name, to_parquet(erasures.apply(kept)))
            if erasures.refresh():  # another key was erased, or is being erased
                erasures.clean(name)
            rows, changed = rows + len(table) - len(kept), changed + 1
    if foreign:
        raise CheckFailed(
            f"{rows:,} rows were removed, but {len(foreign):,} files are not files of a prediction log, such as "
            f"{store.address}/{foreign[0]}; search and remove them yourself, or name the address of a log."
        )
    if others:
        raise CheckFailed(
            f"{rows:,} rows were removed, but {len(others):,} files identify rows by other columns than "
            f"{', '.join(key)}, such as {others[0]}; repeat this with the KEY columns of those files."
        )
    return Erased(rows, changed, searched)


def _forms(store: LogStore, key: Mapping[str, str], secret: str | None) -> set[str]:
    """Return all hashes that the key can have in this log. One file of each bundle shows how keys were hashed."""
    forms = set()
    one_of_each = {name.rpartition("/")[0].rpartition("/")[2]: name for name in store.files()}
    for name in one_of_each.values():
        if store.size(name) is None:
            continue  # its day has expired
        try:
            header = read_header(read_table(store.read(name)).schema)
        except (OSError, ValueError, pa.ArrowException):
            continue  # `erase` reports it
        if {each.name for each in header.key} == {*key}:
            forms |= {_hash(header, key, secret), _hash(replace(header, keyed=False), key, None)}
    return forms


def _hash(header: Header, key: Mapping[str, str], secret: str | None) -> str:
    values = [[_value(each.name, each.type, key[each.name])] for each in header.key]
    (found,) = key_hashes([each.type for each in header.key], values, secret_of_keys(header.keyed, secret))
    return found


def _value(name: str, kind: str, text: str) -> Any:
    try:
        text.encode()  # an argument may contain bytes that are not UTF-8
        return float(text) if kind == "number" else date.fromisoformat(text) if kind == "date" else text
    except ValueError:
        raise InputError(f"The value {text!r} of {name} is not a {kind}; correct it.") from None
