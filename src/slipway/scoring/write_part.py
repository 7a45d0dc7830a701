"""Write the answers and the quarantine of one part."""

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from slipway.bundle import Schema
from slipway.scoring.read_part import Block
from slipway.scoring.score_rows import Scored
from slipway.serving.served_model import ServedModel

ROW, REASON, PREDICTION, BUNDLE = "row", "reason", "prediction", "bundle"
Write = Callable[[Block, Scored], None]


def answer_names(schema: Schema) -> set[str]:
    """Return the names of the columns that the answers always have. Columns copied from the input are not included."""
    return {ROW, REASON, BUNDLE, *(field.name for field in _fields(schema))}


@contextmanager
def answer_writer(path: Path, model: ServedModel, kept: pa.Schema) -> Iterator[Write]:
    """Open the answers file, and yield the function that writes the valid rows of a block.

    The columns are the row number, the columns copied from the input, the prediction, and the bundle's hash.
    """
    fields = _fields(model.schema)
    schema = pa.schema([pa.field(ROW, pa.int64()), *kept, *fields, pa.field(BUNDLE, pa.string())])

    def write(block: Block, scored: Scored) -> None:
        if not len(scored.valid):
            return
        outputs: list[Any] = [*scored.predictions.T]
        if model.schema.classes is not None:
            outputs.insert(0, np.array(model.schema.classes, object)[model.schema.chosen(scored.predictions)])
        rows = block.rows[scored.valid]
        arrays = [
            pa.array(rows, pa.int64()),
            *block.kept.take(pa.array(scored.valid)).columns,
            *(pa.array(values, field.type) for values, field in zip(outputs, fields, strict=True)),
            pa.repeat(pa.scalar(model.hash), len(rows)),
        ]
        file.write_table(pa.table(arrays, schema=schema))

    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        yield write


@contextmanager
def quarantine_writer(path: Path, kept: pa.Schema) -> Iterator[Write]:
    """Open the quarantine file, and yield the function that writes the invalid rows of a block.

    The columns are the row number, the reason, and the columns copied from the input.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([ROW, REASON, *kept.names])

        def write(block: Block, scored: Scored) -> None:
            lines: dict[int, list[Any]] = {row: [reason] for row, reason in block.malformed.items()}
            for index, reason in scored.invalid.items():
                lines[int(block.rows[index])] = [reason, *block.kept_values(index)]
            for row, values in sorted(lines.items()):
                table.writerow([row, *values])

        yield write


def write_fault(path: Path, fault: str) -> None:
    """Write the quarantine file of a part that could not be scored at all. The file contains only the reason."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([[ROW, REASON], ["", fault]])


def _fields(schema: Schema) -> list[pa.Field]:
    """Return the fields of the prediction: one value for a regression, or the class and all probabilities."""
    if schema.classes is None:
        return [pa.field(PREDICTION, pa.float32())]
    probabilities = (pa.field(f"probability_{name}", pa.float32()) for name in schema.classes)
    return [pa.field(PREDICTION, pa.string()), *probabilities]
