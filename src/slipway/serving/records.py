"""Records: what a client sends for one row. Read from JSON, held against the schema, turned into tensors.

There are two readers of one schema. msgspec decodes and checks in about a microsecond and stops at the first fault;
what it refuses is read again by pydantic, which names every fault. Nothing is accepted that either of them refuses.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from slipway.bundle import Column, Schema, Tensors
from slipway.serving.problems import MOST_FAULTS, Fault, Problem, pointer

DAY_ZERO = date(1970, 1, 1).toordinal()
LARGEST = float(np.finfo(np.float32).max)
NAN = float("nan")

Locate = Callable[..., str]
"""From the place of a record, and maybe a field, to where the client wrote it."""


class Records:
    """Reads the records that a schema describes."""

    def __init__(self, schema: Schema, most: int) -> None:
        self.most = most
        self.columns = [column for column in schema.columns if column.type != "category"]
        self._width = len(self.columns)
        self.columns += [column for column in schema.columns if column.type == "category"]
        self.names = [column.name for column in self.columns]
        self.model = _described(schema)
        record = _decoded(self.columns)
        self.many = Annotated[list[record], Meta(min_length=1, max_length=most)]  # type: ignore[valid-type]
        self._decode_one = msgspec.json.Decoder(record).decode
        self._decode_many = msgspec.json.Decoder(self.many).decode
        self._dates = [(i, *_days(column)) for i, column in enumerate(self.columns) if column.type == "date"]
        self._optional = [i for i, column in enumerate(self.columns) if not column.required]
        self._texts = len(self._dates) + len(self.columns) - self._width
        # One event loop scores one request at a time, so that every single record can use the same memory.
        self._numbers = np.empty((1, self._width), dtype=np.float32)
        self._categories = np.empty((1, len(self.columns) - self._width), dtype=object)
        self._row = self._inputs(self._numbers, self._categories)

    def read(self, body: bytes) -> Tensors:
        """The tensors for a JSON object or array of objects; raises Problem with every fault."""
        try:
            records = self._decode_many(body) if body.lstrip()[:1] == b"[" else (self._decode_one(body),)
            refuse_duplicates(body, self._strings(records))
            return self.tensors(records)
        except (msgspec.MsgspecError, OutOfRange, RecursionError, UnicodeDecodeError):
            document = parse(body)
        if isinstance(document, list):
            return self.convert(document, pointer)
        return self.convert([document], lambda _, *field: pointer(*field))

    def convert(self, rows: list[Any], locate: Locate) -> Tensors:
        """The tensors for rows that are JSON already read; raises Problem with every fault."""
        try:
            return self.tensors(msgspec.convert(rows, self.many))
        except (msgspec.ValidationError, OutOfRange) as error:
            self._refuse(rows, locate)
            raise Problem(422, f"{error}.") from None

    def texts(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """How many values of the rows are strings, if the rows are as the schema says."""
        if self._optional:
            return sum(isinstance(value, str) for row in rows for value in row.values())
        return len(rows) * self._texts

    def _strings(self, records: Sequence[Struct]) -> int:
        """How many strings of JSON, keys and values, the records were written with."""
        if self._optional:
            values = [value for record in records for value in astuple(record) if value is not UNSET]
            return len(values) + sum(isinstance(value, str | date) for value in values)
        return len(records) * (len(self.columns) + self._texts)

    def tensors(self, records: Sequence[Struct]) -> Tensors:
        """The inputs of the graph. Those of a single record are overwritten by the next."""
        if len(records) > 1:
            return self._tensors(records)
        values = list(astuple(records[0]))
        for i in self._optional:
            if values[i] is None or values[i] is UNSET:
                values[i] = NAN if i < self._width else ""
        for i, first, last in self._dates:
            if isinstance(values[i], date):
                values[i] = values[i].toordinal() - DAY_ZERO
                if not first <= values[i] <= last:
                    raise OutOfRange
        self._numbers[0] = values[: self._width]
        self._categories[0] = values[self._width :]
        return self._row

    def _tensors(self, records: Sequence[Struct]) -> Tensors:
        values: list[Sequence[Any]] = [*zip(*map(astuple, records), strict=True)]
        for i, first, last in self._dates:
            days = [day.toordinal() - DAY_ZERO if day else NAN for day in values[i]]
            if not all(first <= day <= last or day != day for day in days):
                raise OutOfRange
            values[i] = days
        for i in self._optional:
            missing = NAN if i < self._width else ""
            values[i] = [missing if value is None or value is UNSET else value for value in values[i]]
        numbers = np.empty((len(records), self._width), dtype=np.float32)
        categories = np.empty((len(records), len(values) - self._width), dtype=object)
        for i, column in enumerate(values[: self._width]):
            numbers[:, i] = np.fromiter(column, np.float32, len(records))
        for i, column in enumerate(values[self._width :]):
            categories[:, i] = column
        return self._inputs(numbers, categories)

    def _inputs(self, numbers: NDArray[np.float32], categories: NDArray[Any]) -> Tensors:
        tensors = {"numbers": numbers, "categories": categories}
        return {name: tensor for name, tensor in tensors.items() if tensor.shape[1]}

    def _refuse(self, rows: list[Any], locate: Locate) -> None:
        """Raise Problem with all that is wrong in the rows, if pydantic finds anything."""
        if not 1 <= len(rows) <= self.most:
            raise Problem(422, f"A request carries 1 to {self.most} records, not {len(rows)}; split it.")
        faults: list[Fault] = []
        for i, row in enumerate(rows):
            try:
                self.model.model_validate(row)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
                faults += [Fault(each["msg"].removeprefix("Value error, "), locate(i, *each["loc"])) for each in found]
            if len(faults) >= MOST_FAULTS:
                break
        if len(faults) == 1:
            raise Problem(422, f"{faults[0].pointer}: {faults[0].detail}.", faults)
        if faults:
            raise Problem(422, f"{len(faults)} faults in the records; `errors` says where and what.", faults)


class OutOfRange(Exception):
    """A date is earlier or later than the schema allows."""

    def __str__(self) -> str:
        return "A date is out of range"


def parse(body: bytes) -> Any:
    """Any JSON document; raises Problem for what is none, and for keys that an object has twice."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem(400, f"The body cannot be read as JSON: {error}.") from None
    except RecursionError:
        raise Problem(400, "The body is nested too deep; send flat records.") from None
    refuse_duplicates(body, None)
    return document


def refuse_duplicates(body: bytes, strings: int | None) -> None:
    """Raise Problem if an object of the document has a key twice: a reader would silently take the last.

    `strings` is how many strings the reader saw. Where the text has just as many, no key is there twice, and the text
    need not be read again. Each string has two quotation marks, and only a backslash could hide another.
    """
    if strings is not None and b"\\" not in body:
        quotes = np.count_nonzero(np.frombuffer(body, np.uint8) == ord('"')) if len(body) > 1024 else body.count(b'"')
        if quotes == 2 * strings:
            return
    try:
        json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
    except RecursionError:
        raise Problem(400, "The body is nested too deep; send flat records.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Problem(400, f"An object has the key {twice[:80]!r} twice; send it once.")
    return members


def _decoded(columns: Sequence[Column]) -> type[Struct]:
    """The type for msgspec, its fields in the order of `columns`."""
    fields: list[Any] = []
    for i, column in enumerate(columns):
        match column.type:
            case "number":
                low, high = _bounds(column)
                kind: Any = Annotated[float, Meta(ge=low, le=high)]
            case "date":
                kind = date
            case "category":
                kind = Literal[column.values] if column.values else Annotated[str, Meta(min_length=1)]
        fields.append((f"field{i}", kind) if column.required else (f"field{i}", kind | None | UnsetType, UNSET))
    return msgspec.defstruct(
        "Record",
        fields,
        rename={f"field{i}": column.name for i, column in enumerate(columns)},  # a column's name is any text
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _described(schema: Schema) -> type[BaseModel]:
    """The type for pydantic, its fields in the order of the schema; the OpenAPI document shows it."""
    fields: dict[str, Any] = {}
    for i, column in enumerate(schema.columns):
        match column.type:
            case "number":
                low, high = _bounds(column)
                kind: Any = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=low, le=high)]
            case "date":
                first, last = _first_and_last(column)
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


def _first_and_last(column: Column) -> tuple[date, date]:
    first, last = column.minimum, column.maximum
    return date.fromisoformat(str(first)) if first else date.min, date.fromisoformat(str(last)) if last else date.max


def _days(column: Column) -> tuple[int, int]:
    first, last = _first_and_last(column)
    return first.toordinal() - DAY_ZERO, last.toordinal() - DAY_ZERO


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
