"""A bundle whose columns are a number and two vectors. Its prediction is the size plus the sum of all their numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

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
MARKED: dict[str, Any] = {"private": "no"}
COLUMNS = (
    Column(name="embedding", type="vector", shape=(LENGTH,), required=True, **MARKED),
    Column(name="size", type="number", required=True, **MARKED),
    Column(name="other", type="vector", shape=(2,), required=False, private="hash"),
)
ROW: dict[str, Any] = {"embedding": [1, 2.5, -3, 0], "size": 4.5, "other": [1, 1]}


def expected(row: dict[str, Any]) -> float:
    return float(row["size"] + sum(row["embedding"]) + sum(row.get("other") or []))


def graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("IsNaN", ["other"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "other"], ["known"]),
        helper.make_node("Concat", ["numbers", "embedding", "known"], ["all"], axis=1),
        helper.make_node("ReduceSum", ["all", "axes"], ["prediction"], keepdims=1),
    ]
    inputs = [("numbers", 1), ("embedding", LENGTH), ("other", 2)]
    made = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name, width in inputs],
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
