"""The three prediction protocols. Each protocol reads a request body, and writes a response body.

msgspec reads each request first, because msgspec is fast. A request that msgspec rejects is read again, to list all
faults.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import astuple
from numpy.typing import NDArray

from slipway.bundle import Tensors
from slipway.serving.json_body import UNREADABLE, is_array, parse, refuse_duplicates, with_null_for_nan
from slipway.serving.problems import MAX_NAME, Problem, listed, pointer
from slipway.serving.record_types import datatype, width
from slipway.serving.records import Locate, Unfit
from slipway.serving.served_model import ServedModel

encode = msgspec.json.encode
DECISION = "decision"
"""The name of the chosen class in responses of MLflow's protocol and of the Open Inference Protocol."""
Predictions = NDArray[np.float32]
Rows = list[dict[str, Any]]
Cell = float | str | bool | list[Any] | dict[str, Any] | None
"""A value of a data frame.

This type accepts the values of all columns, so that a later check can name the column in its error.
"""
MIDNIGHT = re.compile(r"T00:00:00(\.0+)?(Z|\+00:00)?")


class _Value(Struct, gc=False):
    prediction: float


class _Class(Struct):
    prediction: str
    probabilities: dict[str, float]


class _Decided(Struct):
    """The response of a model with a decision rule. `threshold` is null for more than two classes."""

    prediction: str
    probabilities: dict[str, float]
    threshold: float | None


class PredictionProtocol(ABC):
    """A prediction protocol for one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model

    def __call__(self, body: bytes) -> bytes:
        tensors, form = self.read(body)
        return self.write(self.model.predict(tensors), form)

    def has_one_row(self, body: bytes) -> bool:  # noqa: ARG002
        """Return True if a body certainly has one row, and False if that is unknown. The body is not parsed."""
        return False

    @abstractmethod
    def read(self, body: bytes) -> tuple[Tensors, Any]:
        """Return the inputs of the model graph, and the properties of the request that `write` needs.

        The inputs of a request with a single record are valid only until the next call of `read`. Raises Problem if the
        request is invalid.
        """

    @abstractmethod
    def write(self, predictions: Predictions, form: Any) -> bytes:
        """Return the response body."""


class Predict(PredictionProtocol):
    """Slipway's own protocol. The request body is one record or a list of records.

    The response has a prediction for each record.
    """

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._decode_one = msgspec.json.Decoder(model.records.one).decode
        self._decode_many = msgspec.json.Decoder(model.records.many).decode

    def has_one_row(self, body: bytes) -> bool:
        return body.startswith(b"{")

    def read(self, body: bytes) -> tuple[Tensors, bool]:
        many = is_array(body)
        return self._read(body, many), many

    def write(self, predictions: Predictions, form: bool) -> bytes:
        answers = self._answers(predictions)
        return encode(answers if form else answers[0])

    def _read(self, body: bytes, many: bool) -> Tensors:
        records = self.model.records
        try:
            tensors, members = records.from_records(self._decode_many(body) if many else (self._decode_one(body),))
        except UNREADABLE:
            document = parse(body)
        else:
            refuse_duplicates(body, members)
            return tensors
        if many:
            return records.from_rows(document, pointer)
        return records.from_rows([document], lambda _, *field: pointer(*field))

    def _answers(self, predictions: Predictions) -> Sequence[Struct]:
        classes = self.model.schema.classes
        if classes is None:
            return [*map(_Value, predictions.ravel().tolist())]
        if (decision := self.model.schema.decision) is not None:
            return [
                _Decided(classes[chosen], dict(zip(classes, row, strict=True)), decision.threshold)
                for chosen, row in zip(decision.chosen(predictions).tolist(), predictions.tolist(), strict=True)
            ]
        return [
            _Class(classes[best], dict(zip(classes, row, strict=True)))
            for best, row in zip(predictions.argmax(axis=1), predictions.tolist(), strict=True)
        ]


class _Split(Struct, forbid_unknown_fields=True):
    """A data frame in the format of pandas with `orient="split"`."""

    columns: list[str]
    data: list[list[Cell]]
    index: list[Any] | UnsetType = UNSET


class _Invocation(Struct, forbid_unknown_fields=True):
    """A request of MLflow's protocol. A valid request has exactly one of the first four members."""

    dataframe_split: _Split | UnsetType = UNSET
    dataframe_records: Rows | UnsetType = UNSET
    instances: Rows | UnsetType = UNSET
    inputs: dict[str, list[Cell]] | Rows | UnsetType = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET


class Invocations(PredictionProtocol):
    """MLflow's protocol.

    https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#inference-server-specification

    MLflow's client sends pandas data frames. The client sends NaN or NaT for a missing value, and a timestamp at
    midnight for a date.
    """

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._decode = msgspec.json.Decoder(_Invocation).decode
        self._dates = [column.name for column in model.schema.columns if column.type == "date"]
        self._required = [column.name for column in model.schema.columns if column.required]
        many = model.records.many | UnsetType
        quick = [
            ("dataframe_split", _Split | UnsetType, UNSET),
            *((name, many, UNSET) for name in ("dataframe_records", "instances")),
            ("inputs", dict[str, msgspec.Raw] | many, UNSET),
        ]
        self._decode_quickly = msgspec.json.Decoder(
            msgspec.defstruct("QuickInvocation", quick, forbid_unknown_fields=True)
        ).decode

    def read(self, body: bytes) -> tuple[Tensors, None]:
        try:
            return self._read(self._decode_quickly(body), body), None
        except UNREADABLE:
            rows, locate = self._rows(parse(with_null_for_nan(body)))
            return self.model.records.from_rows(self._with_dates(rows), locate), None

    def write(self, predictions: Predictions, form: None) -> bytes:  # noqa: ARG002
        classes = self.model.schema.classes
        if classes is None:
            return encode({"predictions": predictions[:, 0].tolist()})
        if (decision := self.model.schema.decision) is not None:
            return encode(
                {
                    "predictions": [
                        {**dict(zip(classes, row, strict=True)), DECISION: classes[chosen]}
                        for chosen, row in zip(decision.chosen(predictions).tolist(), predictions.tolist(), strict=True)
                    ]
                }
            )
        return encode({"predictions": [dict(zip(classes, row, strict=True)) for row in predictions.tolist()]})

    def _read(self, request: Any, body: bytes) -> Tensors:
        given = [value for value in astuple(request) if value is not UNSET]
        if len(given) != 1:
            raise Unfit
        value, records = given[0], self.model.records
        members = 1  # the outer object has one member, which contains the rows
        if isinstance(value, list):
            tensors, more = records.from_records(value)
            members += more
        elif isinstance(value, dict):
            tensors = records.from_json_columns(value)
            members += len(value)
        else:
            members += 2 + (value.index is not UNSET)
            tensors = self._from_split(value)
        refuse_duplicates(body, members)
        return tensors

    def _from_split(self, split: _Split) -> Tensors:
        if len(split.data) != 1:
            return self.model.records.from_columns(_columns(split))
        row = dict(zip(split.columns, split.data[0], strict=False))
        if not len(row) == len(split.columns) == len(split.data[0]):
            raise Unfit
        return self.model.records.from_records((msgspec.convert(row, self.model.records.one),))[0]

    def _rows(self, document: Any) -> tuple[Rows, Locate]:
        """Return the rows of a request, and a function that returns the place of each row in the body.

        Raises Problem if the body has no rows in a known format.
        """
        request = _typed(document, _Invocation)
        given = [name for name in request.__struct_fields__ if name != "params" and getattr(request, name) is not UNSET]
        if len(given) != 1:
            names = "`dataframe_split`, `dataframe_records`, `instances` and `inputs`"
            raise Problem(422, f"The body must have one of {names}, but it has {len(given)} of them.")
        if request.params:
            raise Problem(422, "The model takes no `params`; leave them out.")
        key, value = given[0], getattr(request, given[0])
        if isinstance(value, list):
            return value, lambda i, *field: pointer(key, i, *field)
        if isinstance(value, dict):
            self._refuse_missing(value, pointer(key))
            known = self.model.records.known(value) or value  # if all columns are unknown, use them to count the rows
            return _transposed(known), lambda i, *field: pointer(key, *field, i)
        try:
            columns = _columns(value)
        except Unfit as error:
            raise Problem(422, f"#/dataframe_split: {error}.") from None
        self._refuse_missing(value.columns, pointer(key, "columns"))

        def locate(i: int, *field: str) -> str:
            if field and field[0] in columns:
                return pointer(key, "data", i, value.columns.index(field[0]))
            return pointer(key, "columns")

        return _transposed(columns), locate

    def _refuse_missing(self, columns: Collection[str], place: str) -> None:
        if missing := [name for name in self._required if name not in columns]:
            raise Problem(422, f"{place}: the request lacks {listed(missing)}; send all required columns.")

    def _with_dates(self, rows: Rows) -> Rows:
        for row in rows:
            for name in self._dates:
                text = row.get(name)
                if text == "NaT":
                    row[name] = None
                elif isinstance(text, str) and MIDNIGHT.fullmatch(text, 10):
                    row[name] = text[:10]
        return rows


class _Tensor(Struct, forbid_unknown_fields=True):
    name: str
    shape: msgspec.Raw
    datatype: str
    data: msgspec.Raw
    parameters: dict[str, Any] | UnsetType = UNSET


class _Output(Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] | UnsetType = UNSET


class _OnlyOutput(_Output, forbid_unknown_fields=True):
    name: Literal["prediction"]


class _Inference(Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor]
    id: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    outputs: list[_Output] | UnsetType = UNSET


Requested = tuple[str | UnsetType, Sequence[_Output] | None]
"""The id of a request, and the names of the outputs that it requests."""
NUMBERS = {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)} | {"FP16", "FP32", "FP64"}


class Infer(PredictionProtocol):
    """The Open Inference Protocol, version 2, over JSON: https://github.com/kserve/open-inference-protocol.

    A request has one input tensor for each column of the schema. The shape of a tensor is [rows] or [rows, 1], or
    [rows, length] for a vector. Dates, categories, texts and images in base64 have the datatype BYTES.
    """

    OUTPUT = "prediction"

    def __init__(self, model: ServedModel) -> None:
        super().__init__(model)
        self._decode = msgspec.json.Decoder(_Inference).decode
        self._datatypes = {column.name: datatype(column) for column in model.schema.columns}
        self._vector_names = {column.name for column in model.schema.columns if column.type == "vector"}
        self._widths = {column.name: width(column) for column in model.schema.columns}
        self._outputs = (self.OUTPUT,) if model.schema.decision is None else (self.OUTPUT, DECISION)
        quick: list[Any] = [
            ("inputs", list[model.records.tensor]),  # type: ignore[name-defined]
            ("id", str | UnsetType, UNSET),
            ("parameters", dict[str, Any] | UnsetType, UNSET),
            ("outputs", list[_OnlyOutput] | UnsetType, UNSET),
        ]
        self._decode_quickly = msgspec.json.Decoder(
            msgspec.defstruct("QuickInference", quick, forbid_unknown_fields=True)
        ).decode
        self._decode_tensors = msgspec.json.Decoder(list[model.records.tensor]).decode  # type: ignore[name-defined]

    def read(self, body: bytes) -> tuple[Tensors, Requested]:
        try:
            request: Any = self._decode_quickly(body)
            tensors = self.model.records.from_tensors(request.inputs)
        except UNREADABLE:
            request = self._request(body)
            tensors = self._without_unknown(request)
        else:
            # A body with `parameters` or `outputs` has more members than this number, so the body is parsed again.
            refuse_duplicates(body, 1 + 4 * len(request.inputs) + (request.id is not UNSET))
        return tensors, (request.id, request.outputs or None)

    def write(self, predictions: Predictions, form: Requested) -> bytes:
        request_id, outputs = form
        answer: dict[str, Any] = {
            "model_name": self.model.name,
            "model_version": self.model.hash,
            "outputs": [
                {
                    "name": self.OUTPUT,
                    "datatype": "FP32",
                    "shape": predictions.shape,
                    "data": predictions.ravel().tolist(),
                }
            ],
        }
        if len(self._outputs) > 1:
            self._add_decision(answer, predictions, outputs)
        return encode(answer if request_id is UNSET else {**answer, "id": request_id})

    def _add_decision(
        self, answer: dict[str, Any], predictions: Predictions, requested: Sequence[_Output] | None
    ) -> None:
        """Add the output `decision` to a response, and remove the outputs that the request did not name."""
        classes = self.model.schema.classes or ()
        chosen = [classes[each] for each in self.model.schema.chosen(predictions).tolist()]
        decided = {"name": DECISION, "datatype": "BYTES", "shape": [len(chosen)], "data": chosen}
        names = [*self._outputs] if requested is None else [output.name for output in requested]
        answer["outputs"] = [each for each in (*answer["outputs"], decided) if each["name"] in names]

    def _request(self, body: bytes) -> _Inference:
        try:
            request = self._decode(body)
        except UNREADABLE as error:
            parse(body)
            raise Problem(422, f"{error}.") from None
        parse(body)
        return request

    def _without_unknown(self, request: _Inference) -> Tensors:
        """Convert inputs, and skip unknown inputs that the bundle ignores. Raises Problem with a list of all faults."""
        for output in request.outputs or ():
            if output.name not in self._outputs:
                name, known_names = output.name[:MAX_NAME], " or ".join(map(repr, self._outputs))
                raise Problem(422, f"#/outputs: the model has no output {name!r}; request {known_names}.")
        known = [*enumerate(request.inputs)]
        if self.model.records.ignores_unknown_fields:
            known = [(i, tensor) for i, tensor in known if tensor.name in self._datatypes]
        if len(known) < len(request.inputs):
            with suppress(*UNREADABLE):
                return self.model.records.from_tensors(self._decode_tensors(encode([tensor for _, tensor in known])))
        return self._explain(known)

    def _explain(self, inputs: Sequence[tuple[int, _Tensor]]) -> Tensors:
        """Convert inputs, each given with its position in the request. Raises Problem with a list of all faults."""
        values = {tensor.name: self._values(i, tensor) for i, tensor in inputs}
        if len(values) < len(inputs):
            raise Problem(422, "#/inputs: a name occurs twice; send each input once.")
        places = {tensor.name: i for i, tensor in inputs}
        if missing := [name for name in self._datatypes if name not in values]:
            raise Problem(422, f"#/inputs: the request lacks {listed(missing)}; send null for a missing value.")

        def locate(i: int, *field: str) -> str:
            known = field and field[0] in values
            return pointer("inputs", places[field[0]], "data", i) if known else pointer("inputs")

        return self.model.records.from_rows(_transposed(values), locate)

    def _values(self, i: int, tensor: _Tensor) -> list[Any]:
        """Return the values of an input tensor. Raises Problem if its datatype or shape is wrong."""
        datatype = self._datatypes.get(tensor.name, tensor.datatype)
        if tensor.datatype != datatype and not (datatype in ("FP32", "BOOL") and tensor.datatype in NUMBERS):
            at = pointer("inputs", i, "datatype")
            raise Problem(422, f"{at}: the datatype of {tensor.name} is {datatype}; send it.")
        data, shape = msgspec.json.decode(tensor.data), _shape(tensor)
        if tensor.name in self._vector_names:
            return self._vectors(data, shape, self._widths[tensor.name], pointer("inputs", i, "shape"))
        if isinstance(data, list) and all(isinstance(row, list) and len(row) == 1 for row in data):
            data = [row[0] for row in data] if len(shape) == 2 else data
        if not isinstance(data, list) or not data or shape not in ([len(data)], [len(data), 1]):
            at = pointer("inputs", i, "shape")
            raise Problem(422, f"{at}: the shape must be [rows, 1] and match the data; correct one of them.")
        return data

    def _vectors(self, data: Any, shape: list[int], length: int, at: str) -> list[Any]:
        """Return the vectors of a tensor. `data` is one list of all numbers, or one list for each row."""
        if isinstance(data, list) and len(shape) == 2 and shape[1] == length and 0 < shape[0] <= len(data):
            if len(data) == shape[0]:
                return [[each] if length == 1 and isinstance(each, int | float) else each for each in data]
            if len(data) == shape[0] * length:
                return [data[start : start + length] for start in range(0, len(data), length)]
        raise Problem(422, f"{at}: the shape must be [rows, {length}] and match the data; correct one of them.")

    def metadata(self) -> dict[str, Any]:
        """Return the response to `GET /v2/models/{name}`."""
        classes = self.model.schema.classes
        return {
            "name": self.model.name,
            "versions": [self.model.hash],
            "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": name, "datatype": datatype, "shape": [-1, self._widths[name]]}
                for name, datatype in self._datatypes.items()
            ],
            "outputs": [
                {"name": self.OUTPUT, "datatype": "FP32", "shape": [-1, len(classes) if classes else 1]},
                *({"name": name, "datatype": "BYTES", "shape": [-1]} for name in self._outputs[1:]),
            ],
        }


def _shape(tensor: _Tensor) -> list[int]:
    """Return the shape of a tensor, or an empty list if the request's `shape` is not a list of integers."""
    try:
        return msgspec.json.decode(tensor.shape, type=list[int])
    except msgspec.ValidationError:
        return []


def _typed(document: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise Problem(422, f"{error}.") from None


def _columns(split: _Split) -> dict[str, Sequence[Cell]]:
    if len(set(split.columns)) < len(split.columns):
        raise Unfit("a name is in `columns` twice; send each column once")
    if any(len(row) != len(split.columns) for row in split.data):
        raise Unfit("a row of `data` has more or fewer values than `columns`; send one for each column")
    return dict(zip(split.columns, zip(*split.data, strict=True), strict=True)) if split.data else {}


def _transposed(columns: Mapping[str, Sequence[Any]]) -> Rows:
    """Convert columns to rows. Raises Problem if the columns differ in length."""
    try:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    except ValueError:
        raise Problem(422, "#/inputs: the columns differ in their number of rows; send the same number.") from None
