"""Write the invalid rows of all deliveries, with their reasons → build/quarantine.csv."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from pandera.dtypes import is_bool, is_datetime, is_float, is_int

from slipway import artifacts, atomic
from slipway.contract import Model, hides_values, is_private
from slipway.pipeline.columns import DELIVERY, REASON, ROW
from slipway.pipeline.csv_records import BOOLEANS, NUMBER
from slipway.pipeline.deliveries import Delivery
from slipway.pipeline.typed_rows import reasons_by_row

BATCH_ROWS = 32 * 1024
"""Number of invalid rows that are written together."""


class Quarantine:
    """The file build/quarantine.csv with all invalid rows.

    The file is replaced at the end of the `with` block. Inside the block, the rows are in a temporary file, because the
    columns are known only after the last delivery.
    """

    def __init__(self, model: Model) -> None:
        self._replacing = atomic.replacing(artifacts.QUARANTINE)
        self._model = model
        self._schemas: list[pa.Schema] = []
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def __enter__(self) -> Self:
        self._file = self._replacing.__enter__()
        self._rows = pa.OSFile(str(self._file.with_name("rows")), "wb")
        return self

    def add(self, part: Delivery) -> None:
        """Add the invalid rows of a part."""
        if len(part.faults):
            self._waiting.append(quarantined_rows(part))
            self._waiting_rows += len(self._waiting[-1])
        if self._waiting_rows >= BATCH_ROWS:
            self._write_waiting()

    def __exit__(self, *raised: Any) -> None:
        with self._rows:
            if raised[0] is None and self._waiting:
                self._write_waiting()
        if raised[0] is None:
            for number, rows in enumerate(self._read()):
                shown = without_unpublished(rows, self._model)
                shown.to_csv(self._file, index=False, mode="a", header=number == 0)
        self._replacing.__exit__(*raised)

    def _write_waiting(self) -> None:
        """Append the waiting rows to the temporary file, as an Arrow stream. Each stream can have different columns."""
        rows = pa.concat_tables(self._waiting, promote_options="default").combine_chunks()
        self._waiting, self._waiting_rows = [], 0
        self._schemas.append(rows.schema)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._rows, rows.schema, options=options) as stream:
            stream.write_table(rows)

    def _read(self) -> Iterator[pd.DataFrame]:
        """Yield all rows, in one or more parts with the same columns."""
        if not self._schemas:
            yield pd.DataFrame(columns=[DELIVERY, ROW, REASON, *self._model.SCHEMA.columns])
            return
        columns = pa.unify_schemas(self._schemas).empty_table()
        with pa.OSFile(str(self._file.with_name("rows"))) as file:
            for _ in self._schemas:
                with pa.ipc.open_stream(file) as stream:
                    rows = stream.read_all()
                yield pa.concat_tables([columns, rows], promote_options="default").to_pandas()


def quarantined_rows(part: Delivery) -> pa.Table:
    """Return the invalid rows as they were delivered, with the name of the delivery, the row number and the reasons."""
    reasons = reasons_by_row(part.faults)
    invalid = part.raw.as_text(np.array([*reasons], dtype=np.int64))
    added = {
        DELIVERY: [part.name] * len(reasons),
        ROW: [*reasons],
        REASON: ["; ".join(each) for each in reasons.values()],
    }
    return pa.table({**added, **dict(zip(invalid.column_names, invalid.columns, strict=True))})


def without_unpublished(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Replace delivered values by their lengths if the model has columns that are not published.

    Texts, vectors, images, and columns that are marked as private must not be published, but the quarantine is recorded
    in MLflow. The values of a row can be in the wrong columns. Therefore only numbers, dates and listed values are
    kept. In a private column, no value is kept.
    """
    if not hides_values(model):
        return rows
    shown = {
        name: rows[name].where(_is_shown(rows[name], model), rows[name].map(_as_length, na_action="ignore"))
        for name in rows.columns
        if name not in (DELIVERY, ROW, REASON)
    }
    return rows.assign(**shown)


def _is_shown(values: "pd.Series[str]", model: Model) -> "pd.Series[bool]":
    column = model.SCHEMA.columns.get(str(values.name))
    if column is None or is_private(model, str(values.name)):  # the model does not read it, or it is secret
        return pd.Series(False, index=values.index)
    if is_float(column.dtype) or is_int(column.dtype):
        return values.str.fullmatch(NUMBER, na=False)
    if is_bool(column.dtype):
        return values.str.lower().isin([*BOOLEANS])
    if is_datetime(column.dtype):
        return values.str.fullmatch(r"[0-9./: TZ+-]{1,35}", na=False)
    listed = [value for check in column.checks for value in (check.statistics or {}).get("allowed_values", ())]
    return values.isin(listed)


def _as_length(text: str) -> str:
    return f"({len(text):,} characters)"
