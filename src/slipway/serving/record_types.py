"""The types of a record: one type for msgspec, which is fast, and one for pydantic, which lists all faults."""

import re
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from slipway.bundle import Column, UnknownFields
from slipway.images import NotAnImage, decode_base64, decode_image, max_bytes
from slipway.serving.problems import listed

ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
BOOLEAN = {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]}
LARGEST = float(np.finfo(np.float32).max)  # the largest number in single precision


def record_struct(columns: Sequence[Column], unknown: UnknownFields) -> type[Struct]:
    """Return the msgspec type of one record, with fields in the order of `columns`. An absent field is UNSET."""
    return _struct("Record", columns, [_checked(column) for column in columns], unknown)


def columns_struct(columns: Sequence[Column], most: int, unknown: UnknownFields) -> type[Struct]:
    """Return the msgspec type of a batch of records in which each column is a list."""
    length = Meta(min_length=1, max_length=most)
    return _struct("Columns", columns, [Annotated[list[_checked(column)], length] for column in columns], unknown)  # type: ignore[misc]


def tensor_structs(columns: Sequence[Column], most: int) -> list[type[Struct]]:
    """Return a msgspec type for each column's tensor in the Open Inference Protocol.

    The type's tag is the column's name. The data of a vector column is one list with the numbers of all rows.
    """
    length = Meta(min_length=1, max_length=most)
    return [
        msgspec.defstruct(
            f"Tensor{i}",
            [
                ("shape", tuple[int, Literal[width(column)]]),  # type: ignore[misc]
                ("datatype", Literal[datatype(column)]),
                ("data", Annotated[list[_checked(column)], length] if column.type != "vector" else list[float]),  # type: ignore[misc]
                ("parameters", dict[str, Any] | UnsetType, UNSET),
            ],
            tag_field="name",
            tag=column.name,
            forbid_unknown_fields=True,
            gc=False,
        )
        for i, column in enumerate(columns)
    ]


def width(column: Column) -> int:
    """Return the size of the second dimension of a column's tensor in the Open Inference Protocol."""
    return _length(column) if column.type == "vector" else 1


def datatype(column: Column) -> str:
    """Return the datatype of a column in the Open Inference Protocol."""
    if column.type in ("number", "vector"):
        return "BOOL" if column.boolean else "FP32"
    return "BYTES"


def _checked(column: Column) -> Any:
    kind: Any
    match column.type:
        case "number" if column.boolean:
            kind = bool | Annotated[float, Meta(ge=0, le=1, multiple_of=1)]
        case "number":
            kind = Annotated[float, Meta(**_bounds(column), multiple_of=1 if column.whole else None)]
        case "date":
            kind = date
        case "category":
            kind = Literal[column.values] if column.values else Annotated[str, Meta(min_length=1)]
        case "text":
            shortest, longest = _lengths(column)
            kind = Annotated[str, Meta(min_length=shortest, max_length=longest)]
        case "vector":
            length = _length(column)
            kind = Annotated[list[float], Meta(min_length=length, max_length=length)]
        case "image":
            kind = Annotated[str, Meta(max_length=_most_base64(column))]
    return kind if column.required else kind | None


def _struct(name: str, columns: Sequence[Column], kinds: Sequence[Any], unknown: UnknownFields) -> type[Struct]:
    return msgspec.defstruct(
        name,
        [
            (f"field{i}", kind) if column.required else (f"field{i}", kind | UnsetType, UNSET)
            for i, (column, kind) in enumerate(zip(columns, kinds, strict=True))
        ],
        rename={f"field{i}": column.name for i, column in enumerate(columns)},  # a column's name may be any text
        forbid_unknown_fields=unknown == "refuse",
        kw_only=True,
        gc=False,
    )


def record_model(columns: Sequence[Column], unknown: UnknownFields) -> type[BaseModel]:
    """Return the pydantic model of one record, with fields in the order of `columns`.

    The OpenAPI document uses this model too.
    """
    fields: dict[str, Any] = {}
    for i, column in enumerate(columns):
        match column.type:
            case "number" if column.boolean:
                kind: Any = Annotated[Any, AfterValidator(_a_boolean), WithJsonSchema(BOOLEAN)]
            case "number":
                kind = Annotated[float, Field(strict=True, allow_inf_nan=False, **_bounds(column))]
                if column.whole:
                    kind = Annotated[kind, AfterValidator(_whole), Field(json_schema_extra={"multipleOf": 1})]
                kind = _one_of(kind, column.numbers) if column.numbers is not None else kind
            case "date":
                first, last = first_and_last(column)
                kind = Annotated[
                    str,
                    Field(strict=True, description=_range(column), json_schema_extra={"format": "date"}),
                    AfterValidator(partial(_a_date, first=first, last=last)),
                ]
            case "category":
                kind = Annotated[str, Field(strict=True, min_length=1)]
                kind = _one_of(Annotated[str, Field(strict=True)], column.values) if column.values else kind
            case "text":
                shortest, longest = _lengths(column)
                kind = Annotated[str, Field(strict=True, min_length=shortest, max_length=longest)]
            case "vector":
                kind = _vector(_length(column))
            case "image":
                kind = _image(column)
        default = Field(alias=column.name) if column.required else Field(None, alias=column.name)
        fields[f"field{i}"] = (kind if column.required else kind | None, default)
    extra: Literal["forbid", "ignore"] = "forbid" if unknown == "refuse" else "ignore"
    return create_model("Record", __config__=ConfigDict(extra=extra, title="Record"), **fields)


def _one_of(kind: Any, values: tuple[Any, ...]) -> Any:
    """Return a pydantic type that allows only some values. The error message of a Literal would list all values."""
    allowed = frozenset(values)

    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"Input should be one of {listed(values)}")
        return value

    return Annotated[kind, Field(json_schema_extra={"enum": [*values]}), AfterValidator(check)]


def _vector(length: int) -> Any:
    """Return the pydantic type of a vector. The type reports only one fault, because vectors can be very long."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != length:
            raise ValueError(f"Input should be an array of {length:,} numbers")
        for place, number in enumerate(value):
            if type(number) not in (int, float) or not -LARGEST <= number <= LARGEST:
                raise ValueError(f"Number {place} of the array should be a finite number in single precision")
        return value

    schema = {"type": "array", "items": {"type": "number"}, "minItems": length, "maxItems": length}
    return Annotated[Any, AfterValidator(check), WithJsonSchema(schema)]


def _image(column: Column) -> Any:
    """Return the pydantic type of an image that is sent as base64."""

    def check(value: Any) -> Any:
        try:
            decode_image(decode_base64(value), column.shape or ())
        except NotAnImage as error:
            raise ValueError(f"The image {error}") from None
        return value

    height, width, channels = column.shape or ()
    schema = {
        "type": "string",
        "contentEncoding": "base64",
        "contentMediaType": "image/png",
        "maxLength": _most_base64(column),
        "description": f"PNG or JPEG, {width} pixels wide and {height} high, {'gray' if channels == 1 else 'RGB'}",
    }
    return Annotated[Any, AfterValidator(check), WithJsonSchema(schema)]


def _most_base64(column: Column) -> int:
    return -(-max_bytes(column.shape or ()) // 3) * 4


def _length(column: Column) -> int:
    return (column.shape or (0,))[0]


def _bounds(column: Column) -> dict[str, Any]:
    """Return the range of a numeric column, cut to the range of float32. In float32, larger numbers become infinite."""
    low, high = (None if bound is None else float(bound) for bound in (column.minimum, column.maximum))
    lower, upper = "gt" if column.exclusive_minimum else "ge", "lt" if column.exclusive_maximum else "le"
    return {
        **({"ge": -LARGEST} if low is None or low < -LARGEST else {lower: low}),
        **({"le": LARGEST} if high is None or high > LARGEST else {upper: high}),
    }


def _lengths(column: Column) -> tuple[int, int | None]:
    """Return the minimum and maximum length of a text. An empty text is invalid. A missing text is sent as null."""
    return max(1, int(column.minimum or 1)), None if column.maximum is None else int(column.maximum)


def first_and_last(column: Column) -> tuple[date, date]:
    """Return the first and the last valid date of a column. `Records` checks this range, because msgspec cannot."""
    first, last = column.minimum, column.maximum
    return date.fromisoformat(str(first)) if first else date.min, date.fromisoformat(str(last)) if last else date.max


def _range(column: Column) -> str | None:
    """Describe the range of a date column in words, because JSON Schema has no keyword for it."""
    match column.minimum, column.maximum:
        case None, None:
            return None
        case first, None:
            return f"from {first}"
        case None, last:
            return f"up to {last}"
        case first, last:
            return f"{first} to {last}"


def _whole(number: float) -> float:
    if not number.is_integer():
        raise ValueError("Input should be a whole number")
    return number


def _a_boolean(value: Any) -> Any:
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise ValueError("Input should be true or false")
    return value


def _a_date(text: str, first: date, last: date) -> str:
    try:
        fits = bool(ISO_DATE.fullmatch(text)) and first <= date.fromisoformat(text) <= last
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"Input should be a date from {first} to {last}, as YYYY-MM-DD")
    return text
