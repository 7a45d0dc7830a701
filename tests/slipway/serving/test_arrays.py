"""Requests with vectors and images: equal predictions in each protocol, and one sentence about hostile input."""

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from slipway.bundle import Column, Schema
from slipway.images import PNG
from slipway.monitoring.log_tables import to_table
from slipway.serving.log_segments import read_segment, segments
from slipway.serving.openapi import add_predictions
from slipway.serving.problems import Problem
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.records import Records
from slipway.serving.served_model import ServedModel
from tests.slipway.serving.arrays import COLUMNS, LENGTH, PHOTO, PIXELS, ROW, as_base64, encoded, expected, write_bundle
from tests.slipway.serving.conftest import Serve

ROWS = [ROW, ROW | {"embedding": [0, 0, 0, 1e3], "other": None}, {"embedding": [1, 1, 1, 1], "size": 0, "photo": PHOTO}]
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

    photo = tensor("photo", 1) | {"datatype": "BYTES"}
    return {"inputs": [tensor("embedding", LENGTH), tensor("size", 1), photo, tensor("other", 2)]}


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


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("data", [[1.5, 2.5], [[1.5], [2.5]]])
def test_vectors_of_one_number_are_flat_or_nested(datatype: str, data: list[Any]) -> None:
    column = Column(name="norm", type="vector", shape=(1,), required=True)
    schema = Schema(kind="regression", key=("norm",), target="price", classes=None, columns=(column,))
    protocol = Infer(SimpleNamespace(schema=schema, records=Records(schema, 5)))  # type: ignore[arg-type]
    body = {"inputs": [{"name": "norm", "shape": [2, 1], "datatype": datatype, "data": data}]}
    tensors, _ = protocol.read(json.dumps(body).encode())
    assert tensors["norm"].tolist() == [[1.5], [2.5]]


@pytest.mark.parametrize("rows", [[ROW], [ROW, ROW | {"size": 1}]])
def test_tensors_are_flat_or_nested(model: ServedModel, rows: list[dict[str, Any]]) -> None:
    for nested in (True, False):
        answer = ask(Infer, model, tensors(rows, nested=nested))
        assert answer["outputs"][0]["data"] == pytest.approx([expected(row) for row in rows])
    assert Infer(model).metadata()["inputs"][0] == {"name": "embedding", "datatype": "FP32", "shape": [-1, LENGTH]}


LENGTH_FAULT = f"Input should be an array of {LENGTH} numbers"
VECTORS: dict[str, tuple[Any, str]] = {
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


def bomb() -> bytes:
    """Return a small file whose header promises 50,000 by 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    return PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**7))), (b"IEND", b""))
    )


SIZE_FAULT = "The image is not 3 pixels wide and 2 high"
GRAY_FAULT = "The image is not gray with 8 bits"
FORMAT_FAULT = "The image is not a PNG or JPEG image"
DAMAGE = "The image is truncated or damaged"
BASE64 = "The image is not base64"
FILE = encoded(PIXELS)
RGB = np.zeros((2, 3, 3), np.uint8)
IMAGES: dict[str, tuple[Any, str]] = {
    "decompression bomb": (as_base64(bomb()), SIZE_FAULT),
    "turned": (as_base64(encoded(PIXELS.T)), SIZE_FAULT),
    "no pixel": (as_base64(FILE[:16] + struct.pack(">II", 0, 0) + FILE[24:]), DAMAGE),
    "colour": (as_base64(encoded(RGB)), GRAY_FAULT),
    "transparent": (as_base64(encoded(np.zeros((2, 3, 4), np.uint8))), GRAY_FAULT),
    "sixteen bits": (as_base64(encoded(PIXELS.astype(np.uint16))), GRAY_FAULT),
    "one bit": (as_base64(encoded(PIXELS > 100)), GRAY_FAULT),
    "GIF": (as_base64(encoded(PIXELS, "GIF")), FORMAT_FAULT),
    "TIFF": (as_base64(encoded(PIXELS, "TIFF")), FORMAT_FAULT),
    "GIF with the start of PNG": (as_base64(FILE[:8] + encoded(PIXELS, "GIF")), DAMAGE),
    "PNG with the start of JPEG": (as_base64(b"\xff\xd8\xff" + FILE), DAMAGE),
    "truncated header": (as_base64(FILE[:20]), DAMAGE),
    "truncated pixels": (as_base64(FILE[:-30]), DAMAGE),
    "truncated JPEG": (as_base64(encoded(PIXELS, "JPEG")[:-100]), DAMAGE),
    "damaged pixels": (as_base64(FILE.replace(FILE[45:49], bytes(4))), DAMAGE),
    "empty": ("", FORMAT_FAULT),
    "SVG": (as_base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), FORMAT_FAULT),
    "not base64": ("%%%%", BASE64),
    "unpadded base64": (PHOTO.rstrip("=")[:-1], BASE64),
    "base64 with a line break": (PHOTO[:8] + "\n" + PHOTO[8:], BASE64),
    "data URL": (f"data:image/png;base64,{PHOTO}", BASE64),
    "not ASCII": ("é" * 40, BASE64),
    "too many bytes": (as_base64(FILE + bytes(100_000)), "The image has more than 65,548 bytes"),
    "number": (7, BASE64),
    "null": (None, "A value is required"),
    "list of numbers": ([137, 80, 78, 71], BASE64),
    "nested": ([PHOTO], BASE64),
}
HOSTILE = {
    **{f"vector: {name}": ("embedding", *each) for name, each in VECTORS.items()},
    **{f"image: {name}": ("photo", *each) for name, each in IMAGES.items()},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_value_that_does_not_fit_is_refused_in_every_protocol(model: ServedModel, name: str) -> None:
    column, value, detail = HOSTILE[name]
    row = ROW | {column: value}
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


def test_jpeg_and_png_of_the_declared_size_are_accepted(model: ServedModel) -> None:
    gray = np.full((2, 3), 100, np.uint8)
    files = (
        encoded(gray),
        encoded(gray, "JPEG"),
        encoded(gray, "JPEG", progressive=True),
        encoded(gray, optimize=True),
    )
    answers = [ask(Predict, model, ROW | {"photo": as_base64(file)})["prediction"] for file in files]
    assert answers == [pytest.approx(expected(ROW) - PIXELS.sum() + 600)] * 4
    assert model.metrics.bins()["feature"]["photo"] == [0, 0, 4, 0]


def test_a_request_has_a_bounded_number_of_pixels() -> None:
    column = Column(name="photo", type="image", shape=(1_000, 1_000, 3), required=True)
    schema = Schema(kind="regression", key=("photo",), target="y", classes=None, columns=(column,))
    assert Records(schema, 1_000).most == 5
    assert Records(schema.model_copy(update={"columns": (COLUMNS[1],)}), 1_000).most == 1_000


def test_a_server_without_images_does_not_import_pillow(odd_bundle: Path, bundle: Path) -> None:
    code = "import sys; from pathlib import Path; from slipway.serving.served_model import ServedModel as Served\n"
    code += "Served(Path(sys.argv[1]), 'm', 5); print('PIL' in sys.modules)"
    for folder, imported in ((odd_bundle, "False"), (bundle, "True")):
        run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == imported


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
    photos = to_table(logged)["record_photo"].to_pylist()
    assert photos == [FILE] * 4


def test_damaged_metadata_of_an_image_is_not_logged(serve: Serve, bundle: Path) -> None:
    beyond_the_file = struct.pack("<HHII", 296, 5, 1, 9_999_999)
    metadata = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + beyond_the_file + bytes(4)
    photo = as_base64(encoded(PIXELS, "JPEG", exif=metadata))
    with serve(bundle) as server:
        assert httpx.post(f"{server.url}/predict", json=ROW | {"photo": photo}).status_code == 200
        assert b"Warning" not in server.log.read_bytes()
