"""Records of erased keys, so that `slipway ship-log` leaves out rows with these keys that it has not shipped yet.

A record is a file in the storage of the log. It contains hashes of the erased key, and is deleted after `KEEP_DAYS`
days. A process that writes a file of the log reads the records before the write and again after it. An erasure reads
the files after it has written its record. One of these two processes therefore removes a key that is erased during the
write.
"""

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import pyarrow as pa
from pydantic import AwareDatetime, ValidationError

from slipway.artifacts import Artifact
from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.log_tables import UNREADABLE, read_table, to_parquet

FOLDER = "_erased"
"""The folder with the erasure records. Parquet readers ignore it, because its name starts with an underscore."""
KEEP_DAYS = 30
CLOCKS = timedelta(minutes=10)
"""Difference between the clocks of a server and of the storage that is allowed without a correction."""
PERSON = b"slipway erased"


class Erasure(Artifact):
    """The record of one erasure: its time by the clock of the storage, and a hash of each form of the key in a log."""

    at: AwareDatetime
    keys: tuple[str, ...]


class Erasures:
    """The erasure records of a log that were read so far.

    `on_server` is True in `slipway ship-log`, which runs on the machine of the server whose rows it ships, so both have
    the same clock. If this clock is fast, the difference to the clock of the storage is added to the time of each
    erasure.
    """

    def __init__(self, store: LogStore, *, on_server: bool = False) -> None:
        self._store = store
        self._on_server = on_server
        self._known: set[str] = set()
        self._erased: dict[str, datetime] = {}
        self._ahead: timedelta | None = None

    def refresh(self) -> bool:
        """Read the new records, and return whether there were any. Raises InputError if one of them is damaged."""
        new = [name for name in self._store.names_in(FOLDER) if name not in self._known]
        for name in new:
            if (record := _read(self._store, name)) is not None:
                self._erased |= {key: max(record.at, self._erased.get(key, record.at)) for key in record.keys}
        self._known.update(new)
        return bool(new)

    def apply(self, table: pa.Table) -> pa.Table:
        """Remove the rows of erased keys whose requests were answered before the erasure.

        Rows of erased keys that are dated after the present are removed, too, because their true time is unknown.
        """
        if not self._erased:
            return table
        now, ahead = self._clock()
        erased = {key: self._erased.get(_hash(key)) for key in table["key"].unique().to_pylist() if key is not None}

        def is_kept(key: str | None, answered: datetime) -> bool:
            at = erased.get(key)
            return at is None or at + ahead + CLOCKS < answered <= now + CLOCKS

        kept = [*map(is_kept, table["key"].to_pylist(), table["time"].to_pylist())]
        return table if all(kept) else table.filter(pa.array(kept))

    def _clock(self) -> tuple[datetime, timedelta]:
        """Return the time of this machine, and how fast the clock of the server is."""
        now = datetime.fromtimestamp(time.time(), UTC)
        if self._ahead is None:
            self._ahead = max(now - self._store.now(), timedelta(0)) if self._on_server else timedelta(0)
        return now, self._ahead

    def clean(self, name: str) -> bool:
        """Remove the rows of erased keys from a file of the log. The caller has just written or found the file.

        Returns False if the file is damaged.
        """
        self.refresh()
        while self._store.size(name) is not None:  # its day may have expired
            content = self._store.read(name)
            try:
                table = read_table(content)
                kept = self.apply(table)
            except UNREADABLE:
                return False
            if len(kept) < len(table):
                self._store.write(name, to_parquet(kept))
            if not self.refresh():
                break
        return True


def record_erasure(store: LogStore, keys: Iterable[str]) -> None:
    """Record that keys are erased now. `keys` contains the hash of the key in each form that a log can contain."""
    record = Erasure(at=store.now(), keys=tuple(sorted(map(_hash, keys))))
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
