"""Read real records from the newest deliveries, and encode them for each protocol."""

import csv
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

from benchmarks.scratch import REPOSITORY
from benchmarks.serving.processes import BUNDLE
from slipway.bundle import SCHEMA, Column, Schema
from slipway.errors import SlipwayError

Record = dict[str, Any]
EPOCH = date(1970, 1, 1)


def read_schema() -> Schema:
    """Read the champion's input schema."""
    try:
        return Schema.model_validate_json((BUNDLE / SCHEMA).read_bytes())
    except FileNotFoundError:
        raise SlipwayError(f"{BUNDLE.name}/ is missing; run `dvc pull`.") from None


def read_records(count: int) -> list[Record]:
    """Read records that the champion's schema accepts. Start with the newest delivery."""
    schema, found = read_schema(), []
    for file in sorted((REPOSITORY / "data").glob("*.csv"), reverse=True):
        with file.open(encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                record = {column.name: _value(row[column.name], column) for column in schema.columns}
                if all(_accepted(record[column.name], column) for column in schema.columns):
                    found.append(record)
                if len(found) == count:
                    return found
    raise SlipwayError(f"data/ has only {len(found)} records that the champion accepts; run `dvc pull`.")


def one_each(records: list[Record]) -> dict[str, list[bytes]]:
    """Return the request bodies for each format, with one record in each body."""
    schema = read_schema()
    return {
        "predict": [encode(record) for record in records],
        "records": [encode({"dataframe_records": [record]}) for record in records],
        "split": [encode({"dataframe_split": split(record)}) for record in records],
        "infer": [encode({"inputs": list(tensors(record, schema))}) for record in records],
    }


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def split(record: Record) -> dict[str, Any]:
    """Return a record as a data frame with one row, in the JSON form that pandas writes with `orient="split"`."""
    return {"columns": list(record), "data": [list(record.values())]}


def tensors(record: Record, schema: Schema) -> Iterator[dict[str, Any]]:
    """Yield one tensor for each column, as in the Open Inference Protocol."""
    for column in schema.columns:
        datatype = "FP32" if column.type == "number" else "BYTES"
        yield {"name": column.name, "shape": [1, 1], "datatype": datatype, "data": [record[column.name]]}


def with_days(record: Record, schema: Schema) -> Record:
    """Replace the dates in a record by the numbers of days that the model reads, for servers without our code."""
    dates = [column.name for column in schema.columns if column.type == "date"]
    days = {name: float((date.fromisoformat(record[name]) - EPOCH).days) for name in dates if record[name] is not None}
    return record | days


def _value(text: str, column: Column) -> float | str | None:
    if text == "":
        return None
    return float(text) if column.type == "number" else text


def _accepted(value: Any, column: Column) -> bool:
    if value is None:
        return not column.required
    if column.values is not None and value not in column.values:
        return False
    low, high = column.minimum, column.maximum
    return (low is None or value >= low) and (high is None or value <= high)
