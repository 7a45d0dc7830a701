"""Check records against the schema and convert them to tensors. A record is the data that a client sends for one row.

Two libraries read records. msgspec decodes and checks a record in about a microsecond, and stops at the first fault.
pydantic reads rejected records again, and lists all faults. Both libraries accept the same records.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import reduce
from operator import or_
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct
from msgspec.structs import astuple
from numpy.typing import NDArray
from pydantic import ValidationError

from slipway.bundle import Schema, Tensors
from slipway.images import NotAnImage, decode_base64, decode_image
from slipway.serving.problems import MAX_FAULTS, MAX_NAME, Fault, Problem, as_step
from slipway.serving.record_types import columns_struct, first_and_last, record_model, record_struct, tensor_structs

DAY_ZERO = date(1970, 1, 1).toordinal()
NAN = float("nan")
MAX_VALUES = 2**24
"""Maximum number of values in all vectors and images of a request.

Without this limit, a small file could decode to a huge image.
"""
MAX_UNKNOWN = 1_000
"""Maximum number of unknown fields in a record whose faults are listed one by one."""

T = TypeVar("T")
Locate = Callable[..., str]
"""A function that returns the JSON Pointer to a row with a given index, or to a field of this row."""


class Unfit(msgspec.ValidationError):
    """Error for values that msgspec accepts, but that do not fit the schema."""


class Records:
    """Reader for records of one schema.

    All requests with a single record share the same tensors, so each of these requests overwrites the previous values.
    """

    def __init__(self, schema: Schema, most: int) -> None:
        values = sum(math.prod(each.shape) for each in schema.columns if each.shape)
        self.most = max(1, min(most, MAX_VALUES // values)) if values else most
        self.model = record_model(schema.columns, schema.unknown_fields)
        self.ignores_unknown_fields = schema.unknown_fields == "ignore"
        columns = sorted(
            schema.columns, key=lambda column: 2 if column.shape else column.type in ("category", "text")
        )  # numbers come first, then categories, as in the model graph
        self.columns = tuple(columns)
        """The columns in the order in which `_single` and `_batch` receive values."""
        self.keeps_values = False
        """True if `take_values` returns the values of the last request."""
        self._values: tuple[Sequence[Any], bool] = ((), True)
        self.one = record_struct(columns, schema.unknown_fields)
        self.many = Annotated[list[self.one], Meta(min_length=1, max_length=self.most)]  # type: ignore[name-defined]
        tensors = tensor_structs(columns, self.most)
        self.tensor = reduce(or_, tensors)
        self._places = {each: i for i, each in enumerate(tensors)}
        self._columns = columns_struct(columns, self.most, schema.unknown_fields)
        self._decode_columns = msgspec.json.Decoder(self._columns).decode
        self._keys = {each.name: msgspec.json.encode(each.name) + b":" for each in columns}
        self._width = len(schema.numbers)
        self._count = len(columns)
        self._arrays = {i: each for i, each in enumerate(columns) if each.shape}
        self._scalars = self._count - len(self._arrays)
        self._dates = {i: _days(*first_and_last(each)) for i, each in enumerate(columns) if each.type == "date"}
        self._numbers_allowed = {i: {*each.numbers} for i, each in enumerate(columns) if each.numbers is not None}
        self._missing = {
            i: None if each.type == "date" else "" if each.type in ("category", "text") else NAN
            for i, each in enumerate(columns)
            if not each.required and each.shape is None
        }
        self._optional = [i for i, each in enumerate(columns) if not each.required]
        # All requests with a single record share this memory. This is safe, because the event loop scores one request
        # at a time.
        self._numbers = np.empty((1, self._width), dtype=np.float32)
        self._categories = np.empty((1, len(schema.categories)), dtype=object)
        self._row = _inputs(self._numbers, self._categories)
        self._memory = self._numbers.data
        self._pack_into = struct.Struct(f"{self._width}f").pack_into  # converts Python's numbers faster than NumPy

    def from_records(self, records: Sequence[Struct]) -> tuple[Tensors, int]:
        """Convert records, which msgspec decoded, to the inputs of the model graph.

        Also returns the total number of key-value pairs in the JSON records. Raises Unfit if a record does not fit the
        schema.
        """
        if len(records) == 1:
            values = list(astuple(records[0]))
            members = self._count - values.count(UNSET) if self._optional else self._count
            return self._single(values), members
        columns: list[Sequence[Any]] = [*zip(*map(astuple, records), strict=True)]
        members = self._count * len(records) - sum(columns[i].count(UNSET) for i in self._optional)
        return self._batch(columns, len(records)), members

    def from_columns(self, columns: Mapping[str, Sequence[Any]]) -> Tensors:
        """Convert records given as a list for each column. Raises msgspec.ValidationError for invalid records."""
        return self._from_lists(astuple(msgspec.convert(columns, self._columns)))

    def from_tensors(self, tensors: Sequence[Any]) -> Tensors:
        """Convert records given as one tensor for each column, in any order.

        Raises Unfit if a record does not fit the schema.
        """
        if len(tensors) != self._count:
            raise Unfit("A column is missing or occurs twice")
        if self._arrays:
            self._divide(tensors)
        rows = len(tensors[0].data)
        values: list[Any] = [UNSET] * self._count
        for tensor in tensors:
            if not tensor.shape[0] == len(tensor.data) == rows:
                raise Unfit("A shape does not fit the data")
            values[self._places[type(tensor)]] = tensor.data[0] if rows == 1 else tensor.data
        if UNSET in values:
            raise Unfit("A column is missing or occurs twice")
        return self._single(values) if rows == 1 else self._batch(values, rows)

    def from_json_columns(self, columns: Mapping[str, msgspec.Raw]) -> Tensors:
        """Convert records given as a JSON list for each column. Raises msgspec.ValidationError for invalid records."""
        columns = self.known(columns)
        if not columns.keys() <= self._keys.keys():
            raise Unfit("A column is not in the schema")
        members = b",".join([b"%b%b" % (self._keys[name], each) for name, each in columns.items()])
        return self._from_lists(astuple(self._decode_columns(b"{%b}" % members)))

    def known(self, columns: Mapping[str, T]) -> Mapping[str, T]:
        """Leave out the columns that are not in the schema, if the bundle ignores unknown columns."""
        if not self.ignores_unknown_fields:
            return columns
        return {name: each for name, each in columns.items() if name in self._keys}

    def _from_lists(self, values: Sequence[Any]) -> Tensors:
        lengths = {len(each) for each in values if each is not UNSET}
        if len(lengths) != 1:
            raise Unfit("The columns have different numbers of rows")
        rows = lengths.pop()
        if rows == 1:
            return self._single([each if each is UNSET else each[0] for each in values])
        return self._batch([[UNSET] * rows if each is UNSET else each for each in values], rows)

    def from_rows(self, rows: Sequence[Any], locate: Locate) -> Tensors:
        """Convert rows that a faster method rejected. If a row is invalid, raises Problem with a list of all faults."""
        if not rows:
            raise Problem(422, f"The request has no record; send 1 to {self.most}.")
        if len(rows) > self.most:
            raise Problem(
                422,
                f"The request has {len(rows):,} records, and the limit is {self.most:,}; split it, or score a file "
                "with `slipway score`.",
            )
        faults: dict[Fault, None] = {}  # if a table lacks a column, each row has the same fault
        for i, row in enumerate(rows):
            self._refuse_many_fields(row, locate(i))
            try:
                self.model.model_validate(row)
            except ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_FAULTS]
                faults |= dict.fromkeys(_fault(row, each["msg"], each["loc"], locate, i) for each in found)
            if len(faults) >= MAX_FAULTS:
                break
        if len(faults) == 1:
            (fault,) = faults
            raise Problem(422, f"{fault.pointer}: {fault.detail}.", [fault])
        if faults:
            raise Problem(422, f"The records have {len(faults)} faults; `errors` lists them.", [*faults])
        try:
            return self.from_records(msgspec.convert(rows, self.many))[0]
        except msgspec.ValidationError as error:
            raise Problem(422, f"{error}.") from None

    def _refuse_many_fields(self, row: Any, place: str) -> None:
        """Raise Problem if a row has very many unknown fields. pydantic would create an error for each of them."""
        if isinstance(row, dict) and len(row) > self._count + MAX_UNKNOWN and not self.ignores_unknown_fields:
            raise Problem(
                422, f"{place}: the record has {len(row):,} fields, but the model reads {self._count}; send only these."
            )

    def _divide(self, tensors: Sequence[Any]) -> None:
        """Split the data of each vector tensor into rows. Raises Unfit if the data does not fit the shape."""
        for tensor in tensors:
            if self.columns[self._places[type(tensor)]].type == "vector":
                rows, width = tensor.shape
                if not 1 <= rows <= self.most or len(tensor.data) != rows * width:
                    raise Unfit("A shape does not fit the data")
                tensor.data = [tensor.data[start : start + width] for start in range(0, rows * width, width)]

    def _array_tensors(self, values: Sequence[Sequence[Any]]) -> dict[str, NDArray[Any]]:
        """Convert the columns of vectors and images. Raises Unfit if a value does not fit the schema."""
        return {
            column.name: (_images if column.type == "image" else _vectors)(given, column.shape or ())
            for column, given in zip(self._arrays.values(), values, strict=True)
        }

    def take_values(self) -> tuple[Sequence[Any], bool]:
        """Return the values of the last request as the client sent them, and whether the request has a single row.

        The values are those of the row, or of each column if there are several rows. They are returned only once, so
        that the memory is free for the next request.
        """
        values, self._values = self._values, ((), True)
        return values

    def _single(self, values: list[Any]) -> Tensors:
        if self.keeps_values:
            self._values = tuple(values), True
        for i, missing in self._missing.items():
            if values[i] is None or values[i] is UNSET:
                values[i] = missing
        for i, (first, last) in self._dates.items():
            if values[i] is None:
                values[i] = NAN
            else:
                values[i] = values[i].toordinal() - DAY_ZERO
                if not first <= values[i] <= last:
                    raise Unfit("A date is out of range")
        for i, allowed in self._numbers_allowed.items():
            if values[i] not in allowed and values[i] is not NAN:
                raise Unfit("A number is not allowed")
        self._pack_into(self._memory, 0, *values[: self._width])
        self._categories[0] = values[self._width : self._scalars]
        if self._arrays:
            return {**self._row, **self._array_tensors([[value] for value in values[self._scalars :]])}
        return self._row

    def _batch(self, values: list[Sequence[Any]], rows: int) -> Tensors:
        if self.keeps_values:
            self._values = tuple(values), False
        for i, missing in self._missing.items():
            values[i] = [missing if value is None or value is UNSET else value for value in values[i]]
        for i, allowed in self._numbers_allowed.items():
            if not allowed.issuperset(value for value in values[i] if value is not NAN):
                raise Unfit("A number is not allowed")
        for i in self._dates:
            values[i] = [NAN if day is None else day.toordinal() for day in values[i]]
        numbers = np.empty((rows, self._width), dtype=np.float32)
        categories = np.empty((rows, self._scalars - self._width), dtype=object)
        for i, column in enumerate(values[: self._width]):
            numbers[:, i] = np.frombuffer(struct.pack(f"{rows}f", *column), np.float32)
        for i, column in enumerate(values[self._width : self._scalars]):
            categories[:, i] = column
        for i, (first, last) in self._dates.items():
            numbers[:, i] -= DAY_ZERO
            if np.any((numbers[:, i] < first) | (numbers[:, i] > last)):
                raise Unfit("A date is out of range")
        inputs = _inputs(numbers, categories)
        return {**inputs, **self._array_tensors(values[self._scalars :])} if self._arrays else inputs


def _vectors(values: Sequence[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    missing = [NAN] * shape[0]
    lists = [missing if value is None or value is UNSET else value for value in values]
    with np.errstate(over="ignore"):
        tensor = np.array(lists, dtype=np.float64).astype(np.float32)
    if np.isinf(tensor).any():
        raise Unfit("A number is beyond single precision")
    return tensor


def _images(values: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    try:
        return np.stack([decode_image(decode_base64(value), shape) for value in values])
    except NotAnImage as error:
        raise Unfit(str(error)) from None


def _fault(row: Any, message: str, place: Sequence[str | int], locate: Locate, i: int) -> Fault:
    """Return a fault of a row. The text names the column, unless the pointer already ends with its name."""
    pointer = locate(i, *place)
    detail = message.removeprefix("Value error, ")
    if not place:
        return Fault(detail, pointer)
    name = str(place[0])
    if isinstance(row, dict) and name in row and row[name] is None:
        detail = "A value is required"
    if not pointer.endswith(as_step(name)):
        detail = f"column {name[:MAX_NAME]!r}: {detail}"
    return Fault(detail, pointer)


def _inputs(numbers: NDArray[np.float32], categories: NDArray[Any]) -> Tensors:
    """Return the inputs of the model graph. An input is left out if the schema has no column for it."""
    tensors = {"numbers": numbers, "categories": categories}
    return {name: tensor for name, tensor in tensors.items() if tensor.shape[1]}


def _days(first: date, last: date) -> tuple[int, int]:
    """Convert the first and the last valid date to days since 1970-01-01."""
    return first.toordinal() - DAY_ZERO, last.toordinal() - DAY_ZERO
