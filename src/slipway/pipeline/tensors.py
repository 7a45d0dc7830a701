"""Convert validated rows to model inputs: the frame for `fit`, and the input tensors of the graph."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandera.dtypes import is_bool, is_int, is_string
from pandera.pandas import Check
from pandera.pandas import Column as SchemaColumn

from slipway.bundle import Column, Schema, UnknownFields
from slipway.config import Kind
from slipway.contract import ARRAYS, Model, kind_of, private_mark, shape_of
from slipway.errors import InputError
from slipway.images import decode_image
from slipway.pipeline.array_columns import objects
from slipway.pipeline.row_ids import row_id_scheme
from slipway.statistics.bins import array_numbers

BOUNDS = (
    "in_range",
    "greater_than",
    "greater_than_or_equal_to",
    "less_than",
    "less_than_or_equal_to",
)
"""Names of the pandera checks that the server also makes. The server additionally checks `isin` for categories and
numbers, and `str_length` for texts.
"""
EPOCH = pd.Timestamp("1970-01-01")


def describe(
    model: Model, kind: Kind, classes: tuple[str, ...] | None, unknown_fields: UnknownFields = "refuse"
) -> Schema:
    """Return the bundle's schema: the features with their types, ranges and values, which come from the pandera schema.

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
    """Convert validated rows to the feature columns that `Model.fit` receives.

    Numbers and dates are float32, vectors are arrays of float32, and images are arrays of uint8. Categories and texts
    are strings.
    """
    return pd.DataFrame({column.name: _values(rows[column.name], column) for column in schema.columns})


def tensors(frame: pd.DataFrame, schema: Schema) -> dict[str, NDArray[Any]]:
    """Convert the result of `features` to the input tensors of the graph."""
    inputs: dict[str, NDArray[Any]] = {}
    if schema.numbers:
        inputs["numbers"] = np.ascontiguousarray(frame[schema.numbers].to_numpy(dtype=np.float32))
    if schema.categories:
        inputs["categories"] = frame[schema.categories].to_numpy(dtype=object)
    for name, column in schema.arrays.items():
        inputs[name] = np.stack([*frame[name]]) if len(frame) else np.empty((0, *column.shape), column.dtype)
    return inputs


def unenforced_checks(model: Model) -> list[str]:
    """Return one sentence for each check that validation makes on a feature but the server cannot make."""
    return [
        f"{name}: the server does not check {check.error or check.name}"
        for name in model.FEATURES
        for check in model.SCHEMA.columns[name].checks
        if not _is_enforced(check, model.SCHEMA.columns[name])
    ]


def _is_enforced(check: Check, declared: SchemaColumn) -> bool:
    if kind_of(declared) in ARRAYS:
        return False
    if check.name in BOUNDS:
        return True
    if kind_of(declared) == "text":
        return bool(check.name == "str_length")
    return bool(check.name == "isin" and (is_string(declared.dtype) or _is_number(declared)))


def _is_number(declared: SchemaColumn) -> bool:
    return getattr(declared.dtype.type, "kind", "O") in "iuf"


def measured(values: "pd.Series[Any]") -> NDArray[np.float32]:
    """Return one number per value: a number itself, a text's length, a vector's norm, or an image's mean brightness.

    `values` is a column of the result of `features`. A missing value is NaN. Drift is computed from these numbers, not
    from the content of a text, a vector or an image.
    """
    if values.dtype.kind == "f":
        numbers: NDArray[np.float32] = values.to_numpy(np.float32)
        return numbers
    if values.dtype == object:
        return array_numbers(np.stack([*values])) if len(values) else np.empty(0, np.float32)
    lengths: NDArray[np.float32] = values.str.len().to_numpy(dtype=np.float32)
    return np.where(lengths > 0, lengths, np.float32("nan"))


def measured_rows(rows: "pd.Series[Any]", declared: SchemaColumn) -> "pd.Series[float]":
    """Return for each validated text, vector or image the number that `measured` returns."""
    column = _column(str(rows.name), declared)
    return pd.Series(measured(_values(rows, column)).astype("float64"), index=rows.index)


def _column(name: str, declared: SchemaColumn) -> Column:
    kind = getattr(declared.dtype.type, "kind", "O")
    if kind_of(declared) in ARRAYS:
        array: Literal["vector", "image"] = "image" if kind_of(declared) == "image" else "vector"
        return Column(name=name, type=array, shape=shape_of(declared), required=not declared.nullable)
    if is_bool(declared.dtype):
        return Column(name=name, type="number", boolean=True, required=not declared.nullable, minimum=0, maximum=1)
    if kind in "Mbiuf":
        numbers = _allowed_numbers(declared.checks) if _is_number(declared) else None
        return Column(
            name=name,
            type="date" if kind == "M" else "number",
            whole=is_int(declared.dtype) and numbers is None,
            required=not declared.nullable,
            **(_days(declared.checks) if kind == "M" else _range(declared.checks)),
            numbers=numbers,
        )
    if kind_of(declared) == "text":
        low, high = _lengths(declared.checks)
        return Column(name=name, type="text", required=not declared.nullable, minimum=low, maximum=high)
    return Column(name=name, type="category", required=not declared.nullable, values=_allowed(declared.checks))


def _allowed(checks: Sequence[Check]) -> tuple[str, ...] | None:
    """Return the values that all `isin` checks allow, or None if there is no such check.

    Sets are sorted, because the order of a set varies.
    """
    lists = [check.statistics["allowed_values"] for check in checks if check.name == "isin"]
    if not lists:
        return None
    first = sorted(map(str, lists[0])) if isinstance(lists[0], set | frozenset) else map(str, lists[0])
    others = [{*map(str, each)} for each in lists[1:]]
    return tuple(value for value in first if all(value in each for each in others))


def _allowed_numbers(checks: Sequence[Check]) -> tuple[float, ...] | None:
    """Return the numbers that all checks allow, in ascending order, or None if no check lists numbers."""
    lists = [{*map(float, check.statistics["allowed_values"])} for check in checks if check.name == "isin"]
    return tuple(sorted(set.intersection(*lists))) if lists else None


def _lengths(checks: Sequence[Check]) -> tuple[Any, Any]:
    """Return the smallest and the largest length of a text that all checks allow."""
    bounds = {key: value for check in checks for key, value in (check.statistics or {}).items()}
    return bounds.get("min_value"), bounds.get("max_value")


def _range(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the bounds of the numbers that all checks allow, as fields of `Column`."""
    (low, no_low), (high, no_high) = bounds_of(checks)
    return {"minimum": low, "maximum": high, "exclusive_minimum": no_low, "exclusive_maximum": no_high}


def _days(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the first and the last day that all checks allow, as fields of `Column`."""
    (low, no_low), (high, no_high) = bounds_of([check for check in checks if check.name != "isin"])
    first, last = (
        None if bound is None else (pd.Timestamp(bound) + pd.Timedelta(days=step)).date().isoformat()
        for bound, step in ((low, int(no_low)), (high, -int(no_high)))
    )
    return {"minimum": first, "maximum": last}


def bounds_of(checks: Sequence[Check]) -> tuple[tuple[Any, bool], tuple[Any, bool]]:
    """Return the strictest lower and upper bound.

    Each element is a pair: the bound, and True if the bound itself is excluded. Without a bound, the first element of
    the pair is None.
    """
    lows, highs = [], []
    for check in checks:
        known = check.statistics or {}
        low, high = known.get("min_value"), known.get("max_value")
        if check.name == "isin" and known["allowed_values"]:
            low, high = min(known["allowed_values"]), max(known["allowed_values"])
        elif check.name not in BOUNDS:
            continue
        if low is not None:
            lows.append((low, check.name == "greater_than" or not known.get("include_min", True)))
        if high is not None:
            highs.append((high, check.name == "less_than" or not known.get("include_max", True)))
    return max(lows, default=(None, False)), min(highs, key=lambda each: (each[0], not each[1]), default=(None, False))


def _values(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    match column.type:
        case "number":
            numbers = values.to_numpy(dtype="float32", na_value=np.nan) if values.hasnans else values
            return pd.Series(numbers, index=values.index).astype("float32")
        case "date":
            return ((values - EPOCH) / pd.Timedelta(days=1)).astype("float32")
        case "category" | "text":
            return values.astype("str").fillna("")
        case "vector":
            missing = np.full(column.shape or (), np.nan, np.float32)
            arrays = [missing if value is None else np.asarray(value, np.float32).view() for value in values]
            for array in arrays:  # a change in `fit` would reach the later checks
                array.flags.writeable = False
            return pd.Series(objects(arrays), index=values.index)
        case "image":
            images = [decode_image(content, column.shape or ()) for content in values]
            return pd.Series(objects(images), index=values.index)
