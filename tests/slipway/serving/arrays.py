"""A bundle with a number, two vectors and an image. Its prediction is the sum of all numbers and pixels."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from slipway.bundle import (
    GOLDEN,
    MODEL,
    REFERENCE,
    SCHEMA,
    TRAINING_ROWS,
    Column,
    FeatureReference,
    Golden,
    Reference,
    Schema,
)

LENGTH = 4
HEIGHT, WIDTH = 2, 3
PIXELS = np.arange(6, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 40


def encoded(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    """Return an image file."""
    file = BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, form, **options)
    return file.getvalue()


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


PHOTO = as_base64(encoded(PIXELS))
MARKED: dict[str, Any] = {"private": "no"}
COLUMNS = (
    Column(name="embedding", type="vector", shape=(LENGTH,), required=True, **MARKED),
    Column(name="size", type="number", required=True, **MARKED),
    Column(name="photo", type="image", shape=(HEIGHT, WIDTH, 1), required=True, **MARKED),
    Column(name="other", type="vector", shape=(2,), required=False, private="hash"),
)
ROW: dict[str, Any] = {"embedding": [1, 2.5, -3, 0], "size": 4.5, "photo": PHOTO, "other": [1, 1]}


def expected(row: dict[str, Any]) -> float:
    return float(row["size"] + sum(row["embedding"]) + sum(row.get("other") or []) + PIXELS.sum())


def graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("IsNaN", ["other"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "other"], ["known"]),
        helper.make_node("Flatten", ["photo"], ["flat"], axis=1),
        helper.make_node("Cast", ["flat"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Concat", ["numbers", "embedding", "known", "pixels"], ["all"], axis=1),
        helper.make_node("ReduceSum", ["all", "axes"], ["prediction"], keepdims=1),
    ]
    inputs = [("numbers", 1), ("embedding", LENGTH), ("other", 2)]
    made = helper.make_graph(
        nodes,
        "model",
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name, width in inputs),
            helper.make_tensor_value_info("photo", TensorProto.UINT8, [None, HEIGHT, WIDTH, 1]),
        ],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0]),
            helper.make_tensor("axes", TensorProto.INT64, [1], [1]),
        ],
    )
    return helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def write_bundle(folder: Path) -> Path:
    counted = FeatureReference(edges=(1.0, 2.0), counts=(1, 1, 1), missing=0)
    files = {
        SCHEMA: Schema(kind="regression", key=("size",), target="price", classes=None, columns=COLUMNS),
        REFERENCE: Reference(features={c.name: counted for c in COLUMNS}, prediction={"price": counted}),
        GOLDEN: Golden(rows=(ROW,), predictions=((expected(ROW),),)),
    }
    for name, content in files.items():
        (folder / name).write_text(content.model_dump_json())
    (folder / MODEL).write_bytes(graph().SerializeToString())
    np.save(folder / TRAINING_ROWS, np.array([], np.uint64))
    return folder
