"""ship-log: copy each segment of a prediction log to storage exactly once, and delete days that are too old.

The file name is computed from the segment, and storage writes a file completely or not at all. If ship-log is killed at
any moment, the next run can therefore continue: it skips files that exist. A segment is deleted only after its file
exists. A process of ship-log locks its segment. Otherwise, another process could write the same file again after a key
was erased from it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.erasures import Erasures
from slipway.monitoring.log_tables import expired_folders, file_name, to_parquet, to_table
from slipway.serving.log_segments import SUFFIX, CorruptSegment, Segment, read_segment, segments

CORRUPT = ".corrupt"


@dataclass(frozen=True)
class Shipped:
    segments: int
    rows: int


def ship(folder: Path, store: LogStore, say: Callable[[str], None]) -> Shipped:
    """Ship all complete segments of a folder, the oldest first.

    A corrupt segment is renamed and reported, and the other segments are still shipped. Raises InputError if the
    storage or the folder cannot be used. Segments that were not shipped then stay in the folder.
    """
    try:
        return _ship(folder, store, say)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be used ({error.strerror}); check its volume.") from None


def _ship(folder: Path, store: LogStore, say: Callable[[str], None]) -> Shipped:
    count = rows = 0
    erasures = Erasures(store, on_server=True)
    for path in segments(folder):
        with _locked(path) as is_locked:
            if not is_locked:
                continue  # another process ships it, or has shipped it
            try:
                segment = read_segment(path)
                name = file_name(segment.header)
                # If the file exists, ship-log may have been killed before it read the erasures.
                if store.size(name) is None or not erasures.clean(name):
                    erasures.refresh()
                    store.write(name, _parquet(segment, path, erasures))
                    if erasures.refresh():
                        erasures.clean(name)
            except FileNotFoundError:
                continue  # another program deleted the segment
            except CorruptSegment as error:
                with suppress(FileNotFoundError):  # another program renamed it
                    path.rename(path.with_suffix(SUFFIX + CORRUPT))
                say(f"{error} It was renamed to {path.name}{CORRUPT}.")
                continue
            path.unlink(missing_ok=True)
            count, rows = count + 1, rows + segment.header.rows
    return Shipped(count, rows)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a segment. Yield False if another process has the lock, or has deleted the segment.

    The lock of a killed process ends with the process.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_same = os.fstat(file.fileno()).st_ino == path.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            is_same = False
        yield is_same


def _parquet(segment: Segment, path: Path, erasures: Erasures) -> bytes:
    """Convert a segment to a Parquet file without the rows of erased keys.

    Raises CorruptSegment if its values do not have the types of its header.
    """
    try:
        return to_parquet(erasures.apply(to_table(segment)))
    except Exception as error:  # one segment must not stop the others
        raise CorruptSegment(f"{path} cannot be converted ({type(error).__name__}); delete it.") from None


def delete_expired(store: LogStore, keep_days: int, today: date) -> list[str]:
    """Delete the days that are older than `keep_days`, and return their folders."""
    expired = expired_folders(store.folders(), keep_days, today)
    for folder in expired:
        store.delete_folder(folder)
    return expired
