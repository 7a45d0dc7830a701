"""What a record is, for the two readers: a type for msgspec, which is fast, and one for pydantic, which explains."""

from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from slipway.bundle import Column

LARGEST = float(np.finfo(np.float32).max)


def record_struct(columns: Sequence[Column]) -> type[Struct]:
    """One record; its fields are in the order of `columns`, and UNSET where an optional one is not sent."""
    return _struct("Record", [(column, _checked(column)) for column in columns])


def columns_struct(columns: Sequence[Column], most: int) -> type[Struct]:
    """Many records as a list for each column."""
    length = Meta(min_length=1, max_length=most)
    return _struct("Columns", [(column, Annotated[list[_checked(column)], length]) for column in columns])  # type: ignore[misc]


def _checked(column: Column) -> Any:
    kind: Any
    match column.type:
        case "number":
            low, high = _bounds(column)
            kind = Annotated[float, Meta(ge=low, le=high)]
        case "date":
            kind = date
        case "category":
            kind = Literal[column.values] if column.values else Annotated[str, Meta(min_length=1)]
    return kind if column.required else kind | None


def _struct(name: str, fields: list[tuple[Column, Any]]) -> type[Struct]:
    return msgspec.defstruct(
        name,
        [
            (f"field{i}", kind) if column.required else (f"field{i}", kind | UnsetType, UNSET)
            for i, (column, kind) in enumerate(fields)
        ],
        rename={f"field{i}": column.name for i, (column, _) in enumerate(fields)},  # a column's name is any text
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def record_model(columns: Sequence[Column]) -> type[BaseModel]:
    """One record for pydantic, its fields in the order of `columns`; the OpenAPI document shows it."""
    fields: dict[str, Any] = {}
    for i, column in enumerate(columns):
        match column.type:
            case "number":
                low, high = _bounds(column)
                kind: Any = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=low, le=high)]
            case "date":
                first, last = first_and_last(column)
                kind = Annotated[
                    str,
                    Field(strict=True, pattern=_years(first, last), json_schema_extra={"format": "date"}),
                    AfterValidator(partial(_a_date, first=first, last=last)),
                ]
            case "category":
                kind = Literal[column.values] if column.values else Annotated[str, Field(strict=True, min_length=1)]
        default = Field(alias=column.name) if column.required else Field(None, alias=column.name)
        fields[f"field{i}"] = (kind if column.required else kind | None, default)
    return create_model("Record", __config__=ConfigDict(extra="forbid", title="Record"), **fields)


def _bounds(column: Column) -> tuple[float, float]:
    """The range of a number; beyond single precision the graph would see infinity."""
    low, high = (float(bound) if bound is not None else None for bound in (column.minimum, column.maximum))
    return max(low, -LARGEST) if low is not None else -LARGEST, min(high, LARGEST) if high is not None else LARGEST


def first_and_last(column: Column) -> tuple[date, date]:
    """The range of a date. msgspec has no bounds for dates, so that whoever uses its type has to check."""
    first, last = column.minimum, column.maximum
    return date.fromisoformat(str(first)) if first else date.min, date.fromisoformat(str(last)) if last else date.max


def _a_date(text: str, first: date, last: date) -> str:
    if not first <= date.fromisoformat(text) <= last:
        raise ValueError(f"should be a date from {first} to {last}")
    return text


def _years(first: date, last: date) -> str:
    """A regular expression for ISO dates in the years from `first` to `last`. The days are `_a_date`'s to check."""
    years = _digits(f"{first.year:04}", f"{last.year:04}")
    return rf"^({years})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"


def _digits(low: str, high: str) -> str:
    """A regular expression for the numbers from `low` to `high`, of as many digits."""
    if low == high or not low:
        return low
    rest = len(low) - 1
    if low[0] == high[0]:
        return f"{low[0]}({_digits(low[1:], high[1:])})"
    parts = [f"{low[0]}({_digits(low[1:], '9' * rest)})" if rest else low[0]]
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}]" + "[0-9]" * rest)
    parts.append(f"{high[0]}({_digits('0' * rest, high[1:])})" if rest else high[0])
    return "|".join(parts)
