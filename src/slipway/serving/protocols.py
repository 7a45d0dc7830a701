"""The three protocols that clients speak: each a function from the body of a request to the body of the answer."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType
from numpy.typing import NDArray

from slipway.serving.live import LiveModel
from slipway.serving.problems import Problem, pointer
from slipway.serving.records import Locate, parse, refuse_duplicates

encode = msgspec.json.encode
Predictions = NDArray[np.float32]
Rows = list[dict[str, Any]]
Envelope = TypeVar("Envelope")
MIDNIGHT = re.compile(r"T00:00:00(\.0+)?(Z|\+00:00)?")


class Predict:
    """Slipway's own: a record, or a list of records, as plain JSON objects."""

    def __init__(self, model: LiveModel) -> None:
        self.model = model

    def __call__(self, body: bytes) -> bytes:
        predictions = self.model.score(self.model.records.read(body))
        answers = self._answers(predictions)
        return encode(answers if body.lstrip()[:1] == b"[" else answers[0])

    def _answers(self, predictions: Predictions) -> list[dict[str, Any]]:
        classes = self.model.schema.classes
        if classes is None:
            return [{"prediction": value} for value in predictions[:, 0].tolist()]
        return [
            {"prediction": classes[best], "probabilities": dict(zip(classes, row, strict=True))}
            for best, row in zip(predictions.argmax(axis=1), predictions.tolist(), strict=True)
        ]


class _Split(Struct, forbid_unknown_fields=True):
    """A data frame as pandas writes it with `orient="split"`."""

    columns: list[str]
    data: list[list[float | str | None]]
    index: list[Any] | UnsetType = UNSET


class _Invocation(Struct, forbid_unknown_fields=True):
    dataframe_split: _Split | UnsetType = UNSET
    dataframe_records: Rows | UnsetType = UNSET
    instances: Rows | UnsetType = UNSET
    inputs: dict[str, list[float | str | None]] | Rows | UnsetType = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET


class Invocations:
    """MLflow's: https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/#inference-server-specification.

    A data frame's timestamps at midnight are dates.
    """

    def __init__(self, model: LiveModel) -> None:
        self.model = model
        self._decode = msgspec.json.Decoder(_Invocation).decode
        self._dates = [column.name for column in model.schema.columns if column.type == "date"]

    def __call__(self, body: bytes) -> bytes:
        rows, locate, strings = self._rows(_decoded(self._decode, body))
        refuse_duplicates(body, strings + self.model.records.texts(rows))
        for row in rows:
            for name in self._dates:
                if isinstance(text := row.get(name), str) and MIDNIGHT.fullmatch(text, 10):
                    row[name] = text[:10]
        predictions = self.model.score(self.model.records.convert(rows, locate))
        classes = self.model.schema.classes
        if classes is None:
            return encode({"predictions": predictions[:, 0].tolist()})
        return encode({"predictions": [dict(zip(classes, row, strict=True)) for row in predictions.tolist()]})

    def _rows(self, request: _Invocation) -> tuple[Rows, Locate, int]:
        """The records; where each lies in the body; and how many strings the body has beside their values."""
        given = [name for name in request.__struct_fields__ if name != "params" and getattr(request, name) is not UNSET]
        if len(given) != 1:
            names = "`dataframe_split`, `dataframe_records`, `instances` and `inputs`"
            raise Problem(422, f"The body must have one of {names}, and it has {len(given)}.")
        key, value = given[0], getattr(request, given[0])
        if request.params:
            raise Problem(422, "The model takes no `params`; leave them out.")
        if isinstance(value, _Split):
            return self._split(value)
        if isinstance(value, dict):
            rows = _transposed(value)
            return rows, lambda i, *field: pointer(key, *field, i), 1 + len(value)
        return value, lambda i, *field: pointer(key, i, *field), 1 + sum(map(len, value))

    def _split(self, split: _Split) -> tuple[Rows, Locate, int]:
        names = split.columns
        if len(set(names)) < len(names):
            raise Problem(422, "#/dataframe_split/columns: a name is there twice; send each column once.")
        if any(len(row) != len(names) for row in split.data):
            raise Problem(
                422, "#/dataframe_split/data: a row has not as many values as there are columns; complete it."
            )

        def locate(i: int, *field: str) -> str:
            if field and field[0] in names:
                return pointer("dataframe_split", "data", i, names.index(field[0]))
            return pointer("dataframe_split", "columns")

        strings = 3 + (split.index is not UNSET) + len(names)
        return [dict(zip(names, row, strict=True)) for row in split.data], locate, strings


class _Tensor(Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | UnsetType = UNSET


class _Output(Struct, forbid_unknown_fields=True):
    name: str
    parameters: dict[str, Any] | UnsetType = UNSET


class _Inference(Struct, forbid_unknown_fields=True):
    inputs: list[_Tensor]
    id: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    outputs: list[_Output] | UnsetType = UNSET


NUMBERS = {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)} | {"FP16", "FP32", "FP64"}


class Infer:
    """The Open Inference Protocol, version 2, over JSON: https://github.com/kserve/open-inference-protocol.

    One input for each column of the schema, of shape [rows] or [rows, 1]; dates and categories are BYTES.
    """

    OUTPUT = "prediction"

    def __init__(self, model: LiveModel) -> None:
        self.model = model
        self._decode = msgspec.json.Decoder(_Inference).decode
        self._datatypes = {
            column.name: NUMBERS if column.type == "number" else {"BYTES"} for column in model.schema.columns
        }

    def __call__(self, body: bytes) -> bytes:
        request = _decoded(self._decode, body)
        columns = {tensor.name: self._column(i, tensor) for i, tensor in enumerate(request.inputs)}
        if len(columns) < len(request.inputs):
            raise Problem(422, "#/inputs: a name is there twice; send each input once.")
        for output in request.outputs or ():
            if output.name != self.OUTPUT:
                raise Problem(422, f"#/outputs: the model has no output {output.name[:80]!r}; ask for {self.OUTPUT!r}.")
        rows = _transposed(columns)
        refuse_duplicates(body, 1 + 6 * len(columns) + 2 * (request.id is not UNSET) + self.model.records.texts(rows))
        places = {name: i for i, name in enumerate(columns)}

        def locate(i: int, *field: str) -> str:
            return pointer("inputs", places[field[0]], "data", i) if field and field[0] in places else pointer("inputs")

        predictions = self.model.score(self.model.records.convert(rows, locate))
        return encode(
            {
                "model_name": self.model.name,
                "model_version": self.model.hash,
                **({"id": request.id} if request.id is not UNSET else {}),
                "outputs": [
                    {
                        "name": self.OUTPUT,
                        "datatype": "FP32",
                        "shape": predictions.shape,
                        "data": predictions.ravel().tolist(),
                    }
                ],
            }
        )

    def metadata(self) -> dict[str, Any]:
        """What `GET /v2/models/{name}` answers."""
        classes = self.model.schema.classes
        return {
            "name": self.model.name,
            "versions": [self.model.hash],
            "platform": "onnxruntime_onnx",
            "inputs": [
                {"name": column.name, "datatype": "FP32" if column.type == "number" else "BYTES", "shape": [-1, 1]}
                for column in self.model.schema.columns
            ],
            "outputs": [{"name": self.OUTPUT, "datatype": "FP32", "shape": [-1, len(classes) if classes else 1]}],
        }

    def _column(self, i: int, tensor: _Tensor) -> list[Any]:
        expected = self._datatypes.get(tensor.name)
        if expected is not None and tensor.datatype not in expected:
            raise Problem(
                422,
                f"{pointer('inputs', i, 'datatype')}: {tensor.name} is {tensor.datatype[:20]}; send FP32 or BYTES "
                "as the model's metadata says.",
            )
        data = tensor.data
        if data and isinstance(data[0], list) and len(tensor.shape) == 2:
            data = [value for row in data for value in (row if isinstance(row, list) else [row])]
        if tensor.shape not in ([len(data)], [len(data), 1]):
            raise Problem(422, f"{pointer('inputs', i, 'shape')}: it does not fit the data; send [{len(data)}, 1].")
        return data


def _decoded(decode: Callable[[bytes], Envelope], body: bytes) -> Envelope:
    try:
        return decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        parse(body)  # says better what is wrong with what is no JSON
        raise Problem(422, f"{error}.") from None


def _transposed(columns: dict[str, list[Any]]) -> Rows:
    """Rows from columns; raises Problem if they differ in length."""
    values = columns.values()
    if len({len(each) for each in values}) > 1:
        raise Problem(422, "#/inputs: the columns differ in how many rows they have; make them equal.")
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
