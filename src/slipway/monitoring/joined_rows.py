"""Copy the joined rows of a log to storage, where a report can replay them, and write them as deliveries.

When all days of a period are mature, its rows become one delivery. The delivery is written once to the source of
deliveries, where the usual rules for ingesting apply.
"""

import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from slipway.contract import Model
from slipway.errors import InputError
from slipway.integrations.log_store import DAY, RECORD, TRUTH, LogStore
from slipway.serving.log_segments import header_in


def check_place(store: LogStore, log: LogStore) -> None:
    """Raise InputError if the addresses of the joined rows and of the log are equal, or if one contains the other."""
    if store.overlaps(log):
        raise InputError(
            f"The address {store.address} of the joined rows is that of the log {log.address}, or one is below the "
            "other; name another address, so that rows are not joined twice."
        )


def publish(joined: Path, names: list[str], store: LogStore) -> None:
    """Copy the joined files to `store`, and delete the days that the log no longer contains.

    Rows that were erased from the log, or that have expired, are therefore removed from `store` too.
    """
    days = {name.partition("/")[0] for name in names}
    for folder in store.folders():
        if folder.startswith(DAY) and folder not in days:
            store.delete_folder(folder)
    for name in names:
        store.write(name, (joined / name).read_bytes())


def deliver_periods(
    joined: Path, names: list[str], newest: tuple[date, date], since: date, model: Model, prefix: str, source: LogStore
) -> tuple[str, ...]:
    """Write one delivery for each period that follows the last delivered period, and return the names of the new files.

    `newest` has the first and the last day of the newest period. All periods have the same length. Periods that end
    before `since` are left out. Raises InputError if the log lacks a column of the schema.
    """
    days = newest[1] - newest[0] + timedelta(days=1)
    periods, period = [], newest
    while period[1] >= since and source.size(_file(prefix, period)) is None:
        periods.append(period)
        period = period[0] - days, period[1] - days
    found = [deliver(joined, names, each, model, prefix, source) for each in reversed(periods)]
    return tuple(name for name in found if name)


def _file(prefix: str, period: tuple[date, date]) -> str:
    return f"{prefix}{period[1]}.parquet"


def deliver(
    joined: Path, names: list[str], period: tuple[date, date], model: Model, prefix: str, source: LogStore
) -> str | None:
    """Write the rows of a period to the source as a delivery, and return the name of the new file.

    Return None if the source has this delivery already, or if there are no rows. Only rows with a known truth are
    delivered. If several requests have the same key, only the newest request is delivered. Raises InputError if the log
    lacks a column of the schema.
    """
    first, last = map(str, period)
    file = _file(prefix, period)
    if source.size(file) is not None:
        return None
    days: dict[str, list[str]] = {}
    for name in names:
        if first <= (day := name.removeprefix(DAY)[:10]) <= last:
            days.setdefault(day, []).append(name)
    keys, rows, writer = pd.Series(dtype=object), 0, None
    with tempfile.TemporaryDirectory() as folder:
        for day in sorted(days, reverse=True):
            part, found = _rows_of_day(joined, days[day], model, keys)
            keys, rows = pd.concat([keys, found], ignore_index=True), rows + len(part)
            writer = writer or pq.ParquetWriter(Path(folder) / file, part.schema, compression="zstd")
            writer.write_table(part)
        if writer is None:
            return None
        writer.close()
        if not rows:
            return None
        source.write(file, (Path(folder) / file).read_bytes())
    return file


def _rows_of_day(
    joined: Path, names: list[str], model: Model, keys: "pd.Series[Any]"
) -> tuple[pa.Table, "pd.Series[Any]"]:
    """Return the day's newest row for each key that is not in `keys`, and the keys of these rows.

    All rows without a key are returned. Rows without a truth are left out.
    """
    tables = [pq.read_table(joined / name) for name in names]
    known = [table.filter(table[TRUTH].is_valid()) for table in tables]
    parts = pa.concat_tables([_delivered(rows, name, model) for rows, name in zip(known, names, strict=True)])
    rows = pa.concat_tables([each.select(["key", "time"]) for each in known]).to_pandas()
    rows = rows.sort_values("time", ascending=False, kind="stable")
    new = rows[rows["key"].isna() | ~(rows["key"].duplicated() | rows["key"].isin(keys))]
    return parts.take(pa.array(new.index)), new["key"].dropna()


def _delivered(rows: pa.Table, name: str, model: Model) -> pa.Table:
    """Convert joined rows to the columns of the schema. Raises InputError if a column is private or missing."""
    hashed = {each.name for each in header_in(rows.schema.metadata).columns if each.type == "hash"}
    columns = {}
    for column in model.SCHEMA.columns:
        source = TRUTH if column == model.TARGET else RECORD + column
        if source not in rows.column_names or column in hashed:
            reason = "is private" if column in hashed else "is not in the log"
            raise InputError(
                f"The requests in {name} cannot be delivered, because {column} {reason}; remove `live.deliver` from "
                "params.yaml."
            )
        columns[column] = rows[source]
    return pa.table(columns)
