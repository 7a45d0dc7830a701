"""ship-log: copy each segment of a prediction log to storage exactly once, and delete days that are too old.

The file name is computed from the segment, and storage writes a file completely or not at all. If a shipper is killed
at any moment, the next run can therefore continue: it skips files that exist, and deletes a segment only after the
segment's file exists.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from slipway.errors import InputError
from slipway.integrations.log_store import LogStore
from slipway.monitoring.log_tables import expired_folders, file_name, to_parquet, to_table
from slipway.serving.log_segments import SUFFIX, read_segment, segments

CORRUPT = ".corrupt"


@dataclass(frozen=True)
class Shipped:
    segments: int
    rows: int


def ship(folder: Path, store: LogStore, say: Callable[[str], None]) -> Shipped:
    """Ship all complete segments of a folder, the oldest first.

    A corrupt segment is renamed and reported, and the other segments are still shipped. Raises InputError if the
    storage cannot be used. Segments that were not shipped then stay in the folder.
    """
    count = rows = 0
    for path in segments(folder):
        try:
            segment = read_segment(path)
        except FileNotFoundError:
            continue  # another shipper deleted it
        except InputError as error:
            path.rename(path.with_suffix(SUFFIX + CORRUPT))
            say(f"{error} It was renamed to {path.name}{CORRUPT}.")
            continue
        name = file_name(segment.header)
        if store.size(name) is None:
            store.write(name, to_parquet(to_table(segment)))
        path.unlink(missing_ok=True)
        count, rows = count + 1, rows + segment.header.rows
    return Shipped(count, rows)


def delete_expired(store: LogStore, keep_days: int, today: date) -> list[str]:
    """Delete the days that are older than `keep_days`, and return their folders."""
    expired = expired_folders(store.folders(), keep_days, today)
    for folder in expired:
        store.delete_folder(folder)
    return expired
