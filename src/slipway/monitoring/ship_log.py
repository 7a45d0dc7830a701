"""ship-log: copy each segment of a prediction log to storage exactly once, and delete days that are too old.

The file name is computed from the segment, and storage writes a file completely or not at all. Each run skips files
that exist, and deletes a segment only after its file exists. A run can therefore continue the work of a run that was
killed at any moment.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
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
    for path in segments(folder):
        try:
            segment = read_segment(path)
            name = file_name(segment.header)
            content = _parquet(segment, path) if store.size(name) is None else None
        except FileNotFoundError:
            continue  # another shipper deleted it
        except CorruptSegment as error:
            with suppress(FileNotFoundError):  # another shipper renamed it
                path.rename(path.with_suffix(SUFFIX + CORRUPT))
            say(f"{error} It was renamed to {path.name}{CORRUPT}.")
            continue
        if content is not None:
            store.write(name, content)
        path.unlink(missing_ok=True)
        count, rows = count + 1, rows + segment.header.rows
    return Shipped(count, rows)


def _parquet(segment: Segment, path: Path) -> bytes:
    """Convert a segment to a Parquet file. Raises CorruptSegment if its values do not have the types of its header."""
    try:
        return to_parquet(to_table(segment))
    except Exception as error:  # one segment must not stop the others
        raise CorruptSegment(f"{path} cannot be converted ({type(error).__name__}); delete it.") from None


def delete_expired(store: LogStore, keep_days: int, today: date) -> list[str]:
    """Delete the days that are older than `keep_days`, and return their folders."""
    expired = expired_folders(store.folders(), keep_days, today)
    for folder in expired:
        store.delete_folder(folder)
    return expired
