"""Requests with vectors: the same prediction in each protocol, and a refusal with one sentence for hostile input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipway.serving.log_segments import read_segment, segments
from slipway.serving.openapi import add_predictions
from slipway.serving.problems import Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.served_model import ServedModel
from tests.slipway.serving.arrays import LENGTH, ROW, expected, write_bundle
from tests.slipway.serving.conftest import Serve

ROWS = [ROW, ROW | {"embedding": [0, 0, 0, 1e3], "other": None}, {"embedding": [1, 1, 1, 1], "size": 0}]
FULL = [{name: row.get(name) for name in ROW} for row in ROWS]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("arrays"))


@pytest.fixture
def model(bundle: Path) -> ServedModel:
    return ServedModel(bundle, "model", 5)


def tensors(rows: list[dict[str, Any]], *, nested: bool) -> Any:
    def tensor(name: str, width: int) -> Any:
        values = [row.get(name) for row in rows]
        flat = values if nested or width == 1 else [number for value in values for number in value]
        return {"name": name, "shape": [len(rows), width], "datatype": "FP32", "data": flat}

    return {"inputs": [tensor("embedding", LENGTH), tensor("size", 1), tensor("other", 2)]}


def ask(protocol: Any, model: ServedModel, body: Any) -> Any:
    return json.loads(protocol(model)(body if isinstance(body, bytes) else json.dumps(body).encode()))


FORMS: dict[str, Callable[[ServedModel], list[float]]] = {
    "one by one": lambda model: [ask(Predict, model, row)["prediction"] for row in ROWS],
    "many": lambda model: [each["prediction"] for each in ask(Predict, model, ROWS)],
    "records": lambda model: ask(Invocations, model, {"dataframe_records": ROWS})["predictions"],
    "split": lambda model: ask(
        Invocations,
        model,
        {"dataframe_split": {"columns": list(ROW), "data": [[*row.values()] for row in FULL]}},
    )["predictions"],
    "columns": lambda model: ask(Invocations, model, {"inputs": {name: [row[name] for row in FULL] for name in ROW}})[
        "predictions"
    ],
    "nested tensors": lambda model: ask(Infer, model, tensors(FULL, nested=True))["outputs"][0]["data"],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_request_gives_the_same_predictions(model: ServedModel, form: str) -> None:
    assert FORMS[form](model) == pytest.approx([expected(row) for row in ROWS])


@pytest.mark.parametrize("rows", [[ROW], [ROW, ROW | {"size": 1}]])
def test_tensors_are_flat_or_nested(model: ServedModel, rows: list[dict[str, Any]]) -> None:
    for nested in (True, False):
        answer = ask(Infer, model, tensors(rows, nested=nested))
        assert answer["outputs"][0]["data"] == pytest.approx([expected(row) for row in rows])
    assert Infer(model).metadata()["inputs"][0] == {"name": "embedding", "datatype": "FP32", "shape": [-1, LENGTH]}


LENGTH_FAULT = f"Input should be an array of {LENGTH} numbers"
HOSTILE: dict[str, tuple[Any, str]] = {
    "short": ([1, 2], LENGTH_FAULT),
    "long": ([1] * 5, LENGTH_FAULT),
    "empty": ([], LENGTH_FAULT),
    "nested": ([[1, 2, 3, 4]], LENGTH_FAULT),
    "object": ({"0": 1}, LENGTH_FAULT),
    "text": ("1234", LENGTH_FAULT),
    "number": (1234, LENGTH_FAULT),
    "null": (None, "A value is required"),
    "null inside": ([1, None, 3, 4], "Number 1 of the array should be a finite number in single precision"),
    "text inside": ([1, 2, "3", 4], "Number 2 of the array should be a finite number in single precision"),
    "boolean inside": ([True, 2, 3, 4], "Number 0 of the array should be a finite number in single precision"),
    "too large": ([1, 2, 3, 1e39], "Number 3 of the array should be a finite number in single precision"),
    "huge integer": ([1, 2, 3, 10**400], "Number 3 of the array should be a finite number in single precision"),
    "many": ([0] * 100_000, LENGTH_FAULT),
    "deep": (json.loads("[" * 50 + "]" * 50), LENGTH_FAULT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_is_not_a_vector_is_refused_in_every_protocol(model: ServedModel, name: str) -> None:
    value, detail = HOSTILE[name]
    row = ROW | {"embedding": value}
    bodies = (
        (Predict, row),
        (Predict, [ROW, row]),
        (Invocations, {"instances": [ROW, row]}),
        (Invocations, {"dataframe_split": {"columns": list(row), "data": [[*row.values()]]}}),
        (Infer, tensors([ROW, row], nested=True)),
    )
    for protocol, body in bodies:
        with pytest.raises(Problem) as refused:
            ask(protocol, model, body)
        assert refused.value.status == 422
        assert detail in str(refused.value)
        assert len(refused.value.body()) < 1_000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_json_is_refused(model: ServedModel, number: str) -> None:
    body = json.dumps(ROW).replace("2.5", number).encode()
    for protocol, sent in ((Predict, body), (Invocations, b'{"instances": [%b]}' % body)):
        with pytest.raises(Problem) as refused:
            ask(protocol, model, sent)
        assert refused.value.status in (400, 422)


@pytest.mark.parametrize("shape", [[2, 1], [2], [1, LENGTH], [2, LENGTH, 1], [-2, LENGTH], [0, LENGTH], "2"])
def test_a_shape_that_does_not_fit_is_refused(model: ServedModel, shape: Any) -> None:
    for nested in (True, False):
        body = tensors([ROW, ROW], nested=nested)
        body["inputs"][0]["shape"] = shape
        with pytest.raises(Problem, match=r"#/inputs/0/shape: the shape must be \[rows, 4\] and match the data"):
            ask(Infer, model, body)


def test_the_document_describes_a_vector(model: ServedModel) -> None:
    document = add_predictions({"paths": {}}, model)
    record = document["components"]["schemas"]["Record"]
    array = {"type": "array", "items": {"type": "number"}, "minItems": LENGTH, "maxItems": LENGTH}
    assert {key: record["properties"]["embedding"][key] for key in array} == array
    assert record["examples"] == [{**ROW, "embedding": tuple(ROW["embedding"]), "other": (1, 1)}]
    infer = document["paths"]["/v2/models/model/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert ask(Infer, model, infer["examples"]["one"]["value"])["outputs"][0]["data"] == [expected(ROW)]


def test_metrics_count_only_the_norm(model: ServedModel) -> None:
    for row in ROWS:
        ask(Predict, model, row)
    bins = model.metrics.bins()["feature"]
    assert bins["embedding"] == [0, 1, 2, 0]
    assert bins["other"] == [0, 1, 0, 2]


def test_the_prediction_log_follows_the_marks_of_vectors(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    secret = {"SLIPWAY_PREDICTION_LOG": str(tmp_path), "SLIPWAY_PREDICTION_LOG_SECRET": "s" * 16}
    with serve(bundle, **secret) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", json=ROWS[0]).status_code == 200
        assert client.post("/predict", json=FULL).status_code == 200
    (path,) = segments(tmp_path)
    logged = read_segment(path)
    names = [column.name for column in logged.header.columns]
    values = [value for block in logged.blocks for value in block.columns[names.index("embedding")]]
    assert values == [row["embedding"] for row in [ROWS[0], *FULL]]
    hashes = [value for block in logged.blocks for value in block.columns[names.index("other")]]
    assert [value is None for value in hashes] == [False, False, True, True]
    assert hashes[0] == hashes[1] != ROW["other"]
