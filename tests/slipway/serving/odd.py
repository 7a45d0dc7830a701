"""A small model with features that the sample does not have: optional columns, a free text, unusual names.

The prediction is area + 10 * `rooms` + 100 * (days since 1970), plus 0.25 for "a" or 0.5 for "b", so that it shows each
value. A missing value counts as 0.
"""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from slipway.bundle import (
    GOLDEN,
    MODEL,
    REFERENCE,
    SCHEMA,
    Column,
    FeatureReference,
    Golden,
    Reference,
    Schema,
    UnknownFields,
)

AREA, SOLD = "area/m²~'%", "sold on"
NUMBERS = FeatureReference(edges=(1.0, 2.0, 3.0), counts=(1, 1, 1, 1), missing=0)
SCHEMA_OF_IT = Schema(
    kind="regression",
    key=(AREA,),
    target="price",
    classes=None,
    columns=(
        Column(name="kind", type="category", required=False, values=("a", "b")),
        Column(name=AREA, type="number", required=True, minimum=0, maximum=9),
        Column(name="rooms", type="number", required=False),
        Column(name="note", type="category", required=True),
        Column(name=SOLD, type="date", required=False, minimum="2000-03-01", maximum="2010-06-30"),
    ),
)
ROW: dict[str, Any] = {AREA: 3, "rooms": 2, SOLD: "2001-01-01", "kind": "b", "note": "x"}


def expected(row: dict[str, Any]) -> float:
    """Return the prediction of the model for a row."""
    days = (date.fromisoformat(row[SOLD]) - date(1970, 1, 1)).days if row.get(SOLD) else 0
    kind = {"a": 0.25, "b": 0.5}.get(row.get("kind") or "", 0.0)
    return float(row[AREA] + 10 * (row.get("rooms") or 0) + 100 * days + kind)


def write_bundle(folder: Path, unknown_fields: UnknownFields = "refuse") -> Path:
    """Write the bundle, and return its folder."""
    schema = SCHEMA_OF_IT.model_copy(update={"unknown_fields": unknown_fields})
    text = FeatureReference(values=("a", "b"), counts=(1, 1), missing=0)
    features = {each.name: text if each.type == "category" else NUMBERS for each in SCHEMA_OF_IT.columns}
    for name, content in {
        SCHEMA: schema,
        REFERENCE: Reference(features=features, prediction={"price": NUMBERS}),
        GOLDEN: Golden(rows=(ROW,), predictions=((expected(ROW),),)),
    }.items():
        (folder / name).write_text(content.model_dump_json())
    (folder / MODEL).write_bytes(graph())
    return folder


def graph() -> bytes:
    """Return the model as ONNX."""
    node, value = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("IsNaN", ["numbers"], ["missing"]),
            node("Where", ["missing", "zero", "numbers"], ["known"]),
            node("MatMul", ["known", "weights"], ["sum"]),
            node("Gather", ["categories", "first"], ["kind"], axis=1),
            node(
                "LabelEncoder",
                ["kind"],
                ["code"],
                domain="ai.onnx.ml",
                keys_strings=["a", "b"],
                values_floats=[0.25, 0.5],
                default_float=0.0,
            ),
            node("Add", ["sum", "code"], ["prediction"]),
        ],
        "model",
        [value("numbers", TensorProto.FLOAT, [None, 3]), value("categories", TensorProto.STRING, [None, 2])],
        [value("prediction", TensorProto.FLOAT, [None, 1])],
        [
            numpy_helper.from_array(np.array([[1], [10], [100]], dtype=np.float32), "weights"),
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "first"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString()
