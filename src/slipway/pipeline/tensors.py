"""Convert validated rows to model inputs: a frame for `fit`, and the input tensors of the graph."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.dtypes import is_string
from pandera.pandas import Column as SchemaColumn

from slipway.bundle import Column, Schema, UnknownFields
from slipway.config import Kind
from slipway.contract import Model, kind_of, private_mark
from slipway.errors import InputError
from slipway.pipeline.row_ids import row_id_scheme

EPOCH = pd.Timestamp("1970-01-01")


def describe(
    model: Model, kind: Kind, classes: tuple[str, ...] | None, unknown_fields: UnknownFields = "refuse"
) -> Schema:
    """Return the schema of the bundle: the features, with their types, ranges and values from the pandera schema.

    Raises InputError if the type of the target does not fit `task.kind`.
    """
    is_text = is_string(model.SCHEMA.columns[model.TARGET].dtype)
    if is_text != (kind == "classification"):
        raise InputError(
            f"src/model/schema.py: the target {model.TARGET!r} of a {kind} must be of type "
            f"{'str, its classes' if kind == 'classification' else 'float'}; correct it or `task.kind` in params.yaml."
        )
    columns = tuple(
        _column(name, model.SCHEMA.columns[name]).model_copy(update={"private": private_mark(model, name)})
        for name in model.FEATURES
    )
    return Schema(
        kind=kind,
        key=tuple(model.KEY),
        row_ids=row_id_scheme(model),
        target=model.TARGET,
        classes=classes,
        columns=columns,
        unknown_fields=unknown_fields,
    )


def features(rows: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """Return the feature columns as `Model.fit` takes them: numbers and dates as float32, all others as str."""
    return pd.DataFrame({column.name: _values(rows[column.name], column) for column in schema.columns})


def tensors(frame: pd.DataFrame, schema: Schema) -> dict[str, NDArray[Any]]:
    """Convert the result of `features` to the input tensors of the graph."""
    inputs: dict[str, NDArray[Any]] = {}
    if schema.numbers:
        inputs["numbers"] = np.ascontiguousarray(frame[schema.numbers].to_numpy(dtype=np.float32))
    if schema.categories:
        inputs["categories"] = frame[schema.categories].to_numpy(dtype=object)
    return inputs


def measured(values: "pd.Series[Any]") -> NDArray[np.float32]:
    """Return numbers unchanged, and the lengths of texts in characters. A missing text is NaN.

    `values` is a column of the result of `features`. Only the length of a text is counted, never its content.
    """
    if values.dtype.kind == "f":
        numbers: NDArray[np.float32] = values.to_numpy(np.float32)
        return numbers
    lengths: NDArray[np.float32] = values.str.len().to_numpy(dtype=np.float32)
    return np.where(lengths > 0, lengths, np.float32("nan"))


def _column(name: str, declared: SchemaColumn) -> Column:
    kind = getattr(declared.dtype.type, "kind", "O")
    bounds = {key: value for check in declared.checks for key, value in (check.statistics or {}).items()}
    if kind == "M":
        low, high = (
            None if bounds.get(key) is None else pd.Timestamp(bounds[key]).date().isoformat()
            for key in ("min_value", "max_value")
        )
        return Column(name=name, type="date", required=not declared.nullable, minimum=low, maximum=high)
    if kind in "biuf":
        low, high = bounds.get("min_value"), bounds.get("max_value")
        return Column(name=name, type="number", required=not declared.nullable, minimum=low, maximum=high)
    if kind_of(declared) == "text":
        low, high = bounds.get("min_value"), bounds.get("max_value")
        return Column(name=name, type="text", required=not declared.nullable, minimum=low, maximum=high)
    values = bounds.get("allowed_values")
    return Column(
        name=name,
        type="category",
        required=not declared.nullable,
        values=None if values is None else tuple(map(str, values)),
    )


def _values(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    match column.type:
        case "number":
            return values.astype("float32")
        case "date":
            return ((values - EPOCH) / pd.Timedelta(days=1)).astype("float32")
        case "category" | "text":
            return values.astype("str").fillna("")
