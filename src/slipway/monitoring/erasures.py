"""Records of erased keys, so that `slipway ship-log` leaves out rows with these keys that it has not shipped yet.

A record is a file in the storage of the log. It contains hashes of the erased key, and is deleted after `KEEP_DAYS`
days. A process that writes a file of the log reads the records before the write and again after it. An erasure reads
the files after it has written its record. One of these two processes therefore removes a key that is erased during the
write.
"""

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import pyarrow as pa
from pydantic import AwareDatetime, Field, ValidationError

from slipway.artifacts import Artifact
from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.log_tables import read_table, to_parquet

FOLDER = "_erased"
"""The folder with the erasure records. Parquet readers ignore it, because its name starts with an underscore."""
KEEP_DAYS = 30
CLOCKS = timedelta(minutes=10)
"""Difference between the clocks of a server and of the machine that erases for which no evidence is needed."""
PERSON = b"slipway erased"


class Erasure(Artifact):
    """The record of one erasure: its time, and a hash of each form in which a log can contain the key."""

    at: AwareDatetime
    keys: tuple[str, ...]
    until: AwareDatetime | None = Field(default=None, exclude_if=lambda time: time is None)
    """The time of the erasure according to the fastest clock of a server, or None if no clock is fast."""


class Erasures:
    """The erasure records of a log that were read so far."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._known: set[str] = set()
        self._until: dict[str, datetime] = {}

    def refresh(self) -> bool:
        """Read the new records, and return whether there were any. Raises InputError if one of them is damaged."""
        new = [name for name in self._store.names_in(FOLDER) if name not in self._known]
        for name in new:
            if (record := _read(self._store, name)) is not None:
                until = record.until or record.at
                self._until |= {key: max(until, self._until.get(key, until)) for key in record.keys}
        self._known.update(new)
        return bool(new)

    def apply(self, table: pa.Table) -> pa.Table:
        """Remove the rows of erased keys whose requests were answered before the erasure."""
        if not self._until:
            return table
        limits = {key: self._until.get(_hash(key)) for key in table["key"].unique().to_pylist() if key is not None}
        rows = zip(table["key"].to_pylist(), table["time"].to_pylist(), strict=True)
        kept = [(limit := limits.get(key)) is None or time > limit + CLOCKS for key, time in rows]
        return table if all(kept) else table.filter(pa.array(kept))

    def clean(self, name: str) -> None:
        """Remove the rows of erased keys from a file of the log. The caller has just written or found the file."""
        self.refresh()
        while self._store.size(name) is not None:  # its day may have expired
            table = read_table(self._store.read(name))
            if len(kept := self.apply(table)) < len(table):
                self._store.write(name, to_parquet(kept))
            if not self.refresh():
                return


def record_erasure(store: LogStore, keys: Iterable[str], ahead: timedelta = timedelta(0)) -> None:
    """Record that keys are erased now. `keys` contains the hash of the key in each form that a log can contain.

    `ahead` states how fast the clock of a server is.
    """
    now = datetime.now(UTC)
    record = Erasure(at=now, keys=tuple(sorted(map(_hash, keys))), until=now + ahead if ahead else None)
    store.write(f"{FOLDER}/{os.urandom(8).hex()}.json", record.model_dump_json().encode())


def delete_old_records(store: LogStore, now: datetime) -> None:
    """Delete the records that are older than `KEEP_DAYS` days."""
    for name in store.names_in(FOLDER):
        record = _read(store, name)
        if record is not None and record.at < now - timedelta(days=KEEP_DAYS):
            store.delete(name)


def _hash(key: str) -> str:
    return blake2b(key.encode(), digest_size=16, person=PERSON).hexdigest()


def _read(store: LogStore, name: str) -> Erasure | None:
    """Read a record. Return None if it was deleted meanwhile, or is not finished yet."""
    if store.size(name) is None or not name.endswith(".json"):
        return None
    try:
        return Erasure.model_validate_json(store.read(name))
    except ValidationError:
        raise InputError(f"{store.address}/{name} is not a record of an erasure; remove it, and erase again.") from None
