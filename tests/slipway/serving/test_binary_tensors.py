"""Requests with binary tensors get the predictions of the JSON request, and hostile ones are refused."""

import json
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slipway.bundle import Column, Schema
from slipway.serving.binary_tensors import FORMATS, as_json
from slipway.serving.problems import Problem
from slipway.serving.protocols import Infer, Predict
from slipway.serving.records import Records
from slipway.serving.served_model import ServedModel
from tests.slipway.serving import arrays
from tests.slipway.serving.arrays import LENGTH, PIXELS, encoded, expected
from tests.slipway.serving.odd import AREA, SOLD

Tensor = tuple[str, str, list[int], bytes]


def texts(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(each)) + each for each in values)


def message(tensors: Sequence[Tensor], **more: Any) -> tuple[bytes, bytes]:
    """Return a body, and the size of its JSON part."""
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, kind, shape, data in tensors
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(data for *_, data in tensors), str(len(head)).encode()


def infer(model: ServedModel, body: bytes, length: bytes) -> Any:
    protocol = Infer(model)
    return json.loads(protocol(as_json(body, length, protocol)))


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    arrays.write_bundle(tmp_path)
    return ServedModel(tmp_path, "model", 5)


def array_tensors(rows: int = 2, photo: bytes = encoded(PIXELS)) -> list[Tensor]:
    return [
        ("embedding", "FP32", [rows, LENGTH], np.tile(np.array([1, 2.5, -3, 0], "<f4"), rows).tobytes()),
        ("size", "FP32", [rows, 1], np.full(rows, 4.5, "<f4").tobytes()),
        ("photo", "BYTES", [rows, 1], texts(*[photo] * rows)),
        ("other", "FP32", [rows, 2], np.ones(2 * rows, "<f4").tobytes()),
    ]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_binary_vectors_and_image_files_are_predicted(model: ServedModel, rows: int) -> None:
    answer = infer(model, *message(array_tensors(rows), id="7", parameters={"binary_data_output": True}))
    assert answer["id"] == "7"
    assert answer["outputs"][0]["data"] == [expected(arrays.ROW)] * rows
    as_text = infer(model, *message(array_tensors(rows, arrays.PHOTO.encode())))
    assert as_text["outputs"] == answer["outputs"]


@pytest.mark.parametrize("kind", sorted({*FORMATS} - {"BOOL"}))
def test_numbers_of_every_datatype_are_read(odd_model: ServedModel, kind: str) -> None:
    tensors: list[Tensor] = [
        (AREA, kind, [3, 1], np.array([1, 2, 3], FORMATS[kind]).tobytes()),
        ("rooms", "FP32", [3], np.array([1, np.nan, 2], "<f4").tobytes()),  # NaN is a missing value
        ("note", "BYTES", [3, 1], texts(b"x", "ü€".encode(), b"z")),
        ("kind", "BYTES", [3, 1], texts(b"a", b"", b"b")),
        (SOLD, "BYTES", [3, 1], texts(b"2001-01-01", b"", b"2001-01-02")),
    ]
    days = 100 * 11_323
    assert infer(odd_model, *message(tensors))["outputs"][0]["data"] == [
        1 + 10 + 0.25 + days,
        2,
        3 + 20 + 0.5 + days + 100,
    ]


def test_truth_values_are_read() -> None:
    column = Column(name="garage", type="number", boolean=True, required=True)
    schema = Schema(kind="regression", key=("garage",), target="price", classes=None, columns=(column,))
    protocol = Infer(SimpleNamespace(schema=schema, records=Records(schema, 5)))  # type: ignore[arg-type]
    tensors, _ = protocol.read(as_json(*message([("garage", "BOOL", [2, 1], b"\1\0")]), protocol))
    assert tensors["numbers"].tolist() == [[1], [0]]


def test_a_request_may_mix_json_and_binary_tensors(model: ServedModel) -> None:
    body, length = message(array_tensors(1))
    start = int(length)
    document = json.loads(body[:start])
    document["inputs"][1] = {"name": "size", "datatype": "FP32", "shape": [1, 1], "data": [4.5]}
    head = json.dumps(document).encode()
    size = len(array_tensors(1)[0][3])
    rest = body[start:]
    mixed = head + rest[:size] + rest[size + 4 :]
    assert infer(model, mixed, str(len(head)).encode())["outputs"][0]["data"] == [expected(arrays.ROW)]


def replaced(index: int, **changes: Any) -> list[Tensor]:
    tensors = array_tensors()
    name, kind, shape, data = tensors[index]
    tensors[index] = (name, changes.get("kind", kind), changes.get("shape", shape), changes.get("data", data))
    return tensors


NAN = np.array([1, np.nan, 1, 1] * 2, "<f4").tobytes()
HOSTILE: list[tuple[list[Tensor], int, str]] = [
    (replaced(0, data=NAN), 422, "embedding"),
    (replaced(1, data=np.array([1, np.nan], "<f4").tobytes()), 422, "size"),
    (replaced(0, data=np.full(8, np.inf, "<f4").tobytes()), 422, "a number is infinite"),
    (replaced(1, data=np.full(2, 1e300, "<f8").tobytes(), kind="FP64"), 422, "size"),
    (replaced(0, data=b"123"), 422, "must be a multiple of 4"),
    (replaced(0, data=b""), 422, "must be \\[rows, 4\\]"),
    (replaced(0, data=bytes(4 * 7)), 422, "must be \\[rows, 4\\]"),
    (replaced(0, shape=[2, -4]), 422, "must be \\[rows, 4\\]"),
    (replaced(0, shape=[2**70, 4]), 422, "shape"),
    (replaced(0, data=bytes(4 * LENGTH * 6)), 422, "at most 80"),
    (replaced(1, data=bytes(4 * 6)), 422, "at most 20"),
    (replaced(1, kind="BOOL", data=b"\2\0"), 422, "a BOOL is a byte that is 0 or 1"),
    (replaced(1, kind="BOOL", data=b"\1\0"), 422, "the datatype of size is FP32"),
    (replaced(1, kind="BF16"), 422, "needs one of the datatypes BYTES, BOOL"),
    (replaced(1, kind=["FP32"]), 422, "needs one of the datatypes"),
    (replaced(1, kind="BYTES", data=texts(b"1", b"2")), 422, "datatype"),
    (replaced(2, kind="FP32", data=bytes(8)), 422, "datatype"),
    (replaced(2, data=texts(b"x" * 3)[:-1]), 422, "a text is longer than the data"),
    (replaced(2, data=b"\xff\xff\xff\xff"), 422, "a text is longer than the data"),
    (replaced(2, data=b"\0\0"), 422, "a text is longer than the data"),
    (replaced(2, data=texts(*[b""] * 6)), 422, "more than 5 values"),
    (replaced(2, data=texts(encoded(PIXELS)[:20], encoded(PIXELS))), 422, "photo"),
    (replaced(2, data=texts(b"\xff\xd8\xff", b"\xfe")), 422, "photo"),
    (array_tensors()[:3], 422, "lacks 'other'"),
    ([*array_tensors(), array_tensors()[0]], 422, "a name occurs twice"),
    ([*array_tensors(), ("unknown", "FP32", [2, 1], bytes(8))], 422, "unknown"),
    ([*array_tensors(), ("\ud800"[:0], "BYTES", [2, 1], texts(b"\xff", b""))], 422, "not UTF-8"),
]


@pytest.mark.parametrize(("tensors", "status", "words"), HOSTILE)
def test_hostile_tensors_are_refused(model: ServedModel, tensors: list[Tensor], status: int, words: str) -> None:
    with pytest.raises(Problem) as problem:
        infer(model, *message(tensors))
    said = [problem.value.detail, *(f"{fault.pointer}: {fault.detail}" for fault in problem.value.faults)]
    assert re.search(words, " ".join(said))
    assert problem.value.status == status


@pytest.mark.parametrize(
    "length", [b"", b"-1", b"+5", b"1e2", b" 5", b"999999", b"9" * 5_000, "٣".encode(), b"5.0", b"0x5"]
)
def test_an_impossible_length_of_the_json_part_is_refused(model: ServedModel, length: bytes) -> None:
    with pytest.raises(Problem, match="is not the size of the JSON part") as problem:
        infer(model, message(array_tensors())[0], length)
    assert problem.value.status == 400


@pytest.mark.parametrize("size", [-1, 2**63, 2**70, 10**6, 1.5, True, "8", None, [8], 0, 31, 33])
def test_an_impossible_size_of_a_tensor_is_refused(model: ServedModel, size: Any) -> None:
    body, length = message(array_tensors())
    document = json.loads(body[: int(length)])
    document["inputs"][0]["parameters"]["binary_data_size"] = size
    head = json.dumps(document).encode()
    with pytest.raises(Problem) as problem:
        infer(model, head + body[int(length) :], str(len(head)).encode())
    assert problem.value.status in (400, 422)


def test_bodies_that_are_cut_or_too_long_are_refused(model: ServedModel) -> None:
    body, length = message(array_tensors())
    for end in range(len(body)):
        with pytest.raises(Problem) as problem:
            infer(model, body[:end], length)
        assert problem.value.status == 400
    with pytest.raises(Problem, match="has 1 bytes after the last tensor"):
        infer(model, body + b"\0", length)
    document = json.loads(body[: int(length)])
    document["inputs"][0]["data"] = [1]
    head = json.dumps(document).encode()
    with pytest.raises(Problem, match="either `data`, or a size"):
        infer(model, head + body[int(length) :], str(len(head)).encode())
    twice = body[: int(length)].replace(b'"binary_data_size"', b'"binary_data_size": 1, "binary_data_size"', 1)
    with pytest.raises(Problem, match="the key 'binary_data_size' twice"):
        infer(model, twice + body[int(length) :], str(len(twice)).encode())


def test_only_the_open_inference_protocol_has_binary_tensors(model: ServedModel) -> None:
    with pytest.raises(Problem, match="Only the Open Inference Protocol") as problem:
        as_json(*message(array_tensors()), Predict(model))
    assert problem.value.status == 415


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=40), st.integers(0, 400), st.binary(max_size=12))
def test_random_bytes_raise_nothing_but_a_problem(model: ServedModel, noise: bytes, place: int, length: bytes) -> None:
    body, right = message(array_tensors())
    for changed, size in ((body[:place] + noise + body[place + len(noise) :], right), (body, length), (noise, b"2")):
        with suppress(Problem):
            infer(model, changed, size)
