"""Generate bundles of heavy models: two multilayer perceptrons (MLP) and an encoder, with random weights.

Each model is a regression on a table of numbers. The encoder reads each number as a token. It is a transformer with one
head per layer, and its output is the mean over the tokens. A row needs about as much time as a text in a small language
model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

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
    onnx_session,
)
from slipway.config import Train
from slipway.statistics.bins import within_series

GOLDEN_ROWS = 8
MOST = int(Train.model_fields["max_metric_series"].default)
TOKENS = 1_000


class _Graph:
    """A graph under construction. Each method adds nodes, and returns the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        name = f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def matrix(self, *shape: int) -> str:
        """Add random weights that keep the scale of their input."""
        return self.constant((self._random.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32))

    def vector(self, size: int, value: float) -> str:
        return self.constant(np.full(size, value, np.float32))

    def model(self, columns: int, output: str) -> bytes:
        self.nodes.append(helper.make_node("Identity", [output], ["prediction"]))
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "model",
            [value("numbers", TensorProto.FLOAT, [None, columns])],
            [value("prediction", TensorProto.FLOAT, [None, 1])],
            self.weights,
        )
        model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
        return bytes(model.SerializeToString())


def mlp(columns: int, hidden: Sequence[int]) -> bytes:
    """Return a multilayer perceptron (MLP) as an ONNX model."""
    graph, x, size = _Graph(), "numbers", columns
    for each in hidden:
        dense = graph.node("Gemm", x, graph.matrix(size, each), graph.vector(each, 0))
        x, size = graph.node("Relu", dense), each
    return graph.model(columns, graph.node("MatMul", x, graph.matrix(size, 1)))


def encoder(columns: int = 32, layers: int = 6, width: int = 256) -> bytes:
    """Return an encoder as an ONNX model, in which each column is a token."""
    graph = _Graph()
    tokens = graph.node("Cast", "numbers", to=TensorProto.INT64)
    x = graph.node("Gather", graph.matrix(TOKENS, width), tokens)
    for _ in range(layers):
        query, key, value = (graph.node("MatMul", x, graph.matrix(width, width)) for _ in range(3))
        scores = graph.node("MatMul", query, graph.node("Transpose", key, perm=[0, 2, 1]))
        scaled = graph.node("Mul", scores, graph.constant(np.float32(width**-0.5)))
        attended = graph.node("MatMul", graph.node("Softmax", scaled, axis=-1), value)
        x = _normalized(graph, graph.node("Add", x, graph.node("MatMul", attended, graph.matrix(width, width))), width)
        wide = graph.node("Relu", graph.node("MatMul", x, graph.matrix(width, 4 * width)))
        x = _normalized(graph, graph.node("Add", x, graph.node("MatMul", wide, graph.matrix(4 * width, width))), width)
    return graph.model(
        columns, graph.node("MatMul", graph.node("ReduceMean", x, axes=[1], keepdims=0), graph.matrix(width, 1))
    )


def _normalized(graph: _Graph, x: str, width: int) -> str:
    return graph.node("LayerNormalization", x, graph.vector(width, 1), graph.vector(width, 0), axis=-1)


def write_bundle(folder: Path, model: bytes, columns: int, counted: int = 1) -> Path:
    """Write the bundle of a model that takes `columns` numbers from 0 to 999, and return its folder.

    The metrics count the first `counted` columns, or fewer, within the limit of `train.max_metric_series`.
    """
    names = [f"x{i}" for i in range(columns)]
    bounded = [Column(name=name, type="number", required=True, minimum=0, maximum=TOKENS - 1) for name in names]
    rows = np.random.default_rng(1).integers(0, TOKENS, (GOLDEN_ROWS, columns)).astype(np.float32)
    (predictions,) = onnx_session(model).run(None, {"numbers": rows})
    bins = FeatureReference(edges=(250.0, 500.0, 750.0), counts=(2, 2, 2, 2), missing=0)
    reference = Reference(features=dict.fromkeys(names[:counted], bins), prediction={"y": bins})
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        SCHEMA: Schema(kind="regression", key=(names[0],), target="y", classes=None, columns=tuple(bounded)),
        REFERENCE: within_series(reference, MOST),
        GOLDEN: Golden(
            rows=tuple(dict(zip(names, row, strict=True)) for row in rows.tolist()),
            predictions=tuple(map(tuple, predictions.tolist())),
        ),
    }.items():
        (folder / name).write_text(content.model_dump_json())
    (folder / MODEL).write_bytes(model)
    np.save(folder / TRAINING_ROWS, np.zeros(0, np.uint64))
    return folder


BUNDLES = {
    "MLP 512-512": lambda folder: write_bundle(folder, mlp(20, (512, 512)), 20),
    "MLP 2048-2048": lambda folder: write_bundle(folder, mlp(20, (2048, 2048)), 20),
    "encoder, 6 layers": lambda folder: write_bundle(folder, encoder(), 32),
}
"""Name of a bundle → the function that writes it to a folder."""


def wide(folder: Path) -> Path:
    """Write the bundle of a model with 1,024 columns, whose metrics have as many time series as possible."""
    return write_bundle(folder, mlp(1_024, (16,)), 1_024, counted=1_024)


def bodies(columns: int, count: int) -> list[dict[str, float]]:
    """Return records for a bundle of this module."""
    rows = np.random.default_rng(2).integers(0, TOKENS, (count, columns)).astype(float)
    return [{f"x{i}": value for i, value in enumerate(row)} for row in rows.tolist()]
