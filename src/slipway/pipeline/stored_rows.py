"""Refuse graphs that contain training rows, as nearest-neighbour models, support vector machines and others store them.

Such a model often stores rows after a transformation, for example scaled vectors or counts of words. A stored row is
therefore compared with every table that the graph computes from the training rows.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from slipway.artifacts import listed
from slipway.bundle import Schema, Tensors, onnx_session
from slipway.errors import InputError
from slipway.pipeline.export import parts_of
from slipway.pipeline.tensors import features, tensors
from slipway.pipeline.training_rows import Rows

SAMPLED_ROWS = 2_000
"""Maximum number of training rows that are compared. A model that stores rows stores many of them."""
BATCH_ROWS = 200
LEAST_WIDTH = 3
DISTINCTIVE_NUMBERS = 2
"""Minimum number of numbers in a row that differ from the median of the row.

Other rows, such as those of one-hot categories, can be equal to rows of weights by chance. The same is true for rows
with fewer than `LEAST_WIDTH` numbers.
"""
LEAST_ROWS = 2
"""Minimum number of rows in a table that stores rows. A single row can consist of the means or medians of columns."""
DIGITS = 4
"""Number of decimals to compare, relative to the largest number of the row, because the graph may round differently."""


@dataclass(frozen=True)
class _Pair:
    """A table that the graph computes, and a constant that possibly contains rows of this table."""

    computed: str
    stored: NDArray[Any]


def refuse_stored_rows(graph: onnx.ModelProto, training: Rows, schema: Schema, minimum: int) -> None:
    """Raise InputError if the graph contains rows that fewer than `minimum` rows of a sample of training rows have.

    Models are checked only if they have a feature whose values must not be published: a text, a vector, an image, or a
    private column.
    """
    if minimum == 1 or not schema.unpublished or not (constants := _tables(graph)):
        return
    positions = np.unique(np.linspace(0, len(training) - 1, SAMPLED_ROWS, dtype=np.int64))
    names = [column.name for column in schema.columns]
    sample = features(training.at(positions, names), schema).reset_index(drop=True)
    inputs = tensors(sample, schema)
    stored: dict[str, set[bytes]] = {}
    for pair in _pairs(graph, constants, {name: each[:LEAST_ROWS] for name, each in inputs.items()}):
        stored.setdefault(pair.computed, set()).update(_keys(pair.stored))
    stored = {name: keys for name, keys in stored.items() if keys}
    compute = _computation(graph, [*stored], [*inputs])
    found = {name: Counter[bytes]() for name in stored}
    for start in range(0, len(sample) if stored else 0, BATCH_ROWS):
        for name, computed in compute(
            {name: each[start : start + BATCH_ROWS] for name, each in inputs.items()}
        ).items():
            found[name].update(key for key in _keys(computed) if key in stored[name])
    if any(sum(count < minimum for count in each.values()) >= LEAST_ROWS for each in found.values()):
        raise InputError(
            "src/model/train.py: the graph would publish training rows, as a nearest-neighbour model or a support "
            f"vector machine stores them, but {listed(schema.unpublished)} must not be published; use a model that "
            "does not store training rows."
        )


def _tables(graph: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return the constants that are tables of floats, and the support vectors, by the name of their tensor or node."""
    constants: dict[str, NDArray[Any]] = {}
    for part in parts_of(graph):
        if isinstance(part, onnx.GraphProto):
            constants |= {each.name: onnx.numpy_helper.to_array(each) for each in part.initializer}
        elif isinstance(part, onnx.NodeProto):
            for attribute in part.attribute:
                if attribute.name == "support_vectors":
                    constants[_node_name(part)] = np.asarray(attribute.floats, np.float32)
                elif part.op_type == "Constant" and attribute.name == "value":
                    constants[part.output[0]] = onnx.numpy_helper.to_array(attribute.t)
    return {
        name: array
        for name, array in constants.items()
        if array.dtype.kind == "f" and (array.ndim == 2 or name.startswith(NODE))
    }


NODE = "node of "
"""Start of the names of support vectors. A tensor cannot have such a name by chance."""


def _node_name(node: onnx.NodeProto) -> str:
    return f"{NODE}{node.output[0]}"


def _pairs(graph: onnx.ModelProto, constants: dict[str, NDArray[Any]], inputs: Tensors) -> Iterator[_Pair]:
    """Yield each computed table with each constant that has rows or columns of the same width.

    A constant from which the table is computed is left out. Rows of a lookup table, for example, are not training rows.
    """
    sources = _sources(graph, constants)
    names = [*inputs, *(name for name in sources if name not in constants)]
    for name, table in _computation(graph, names, [*inputs])(inputs).items():
        if table.ndim != 2 or table.dtype.kind != "f" or len(table) != len(next(iter(inputs.values()))):
            continue
        width = table.shape[1]
        for source, array in constants.items():
            if width < LEAST_WIDTH or source in sources.get(name, ()):
                continue
            if array.ndim == 1 and array.size % width == 0:
                yield _Pair(name, array.reshape(-1, width))
            elif array.ndim == 2:
                yield from (_Pair(name, rows) for rows in (array, array.T) if rows.shape[1] == width)


def _sources(graph: onnx.ModelProto, constants: dict[str, NDArray[Any]]) -> dict[str, frozenset[str]]:
    """Return the names of the constants from which each tensor of the graph is computed."""
    sources = {name: frozenset([name]) for name in constants}
    for node in graph.graph.node:
        read = {name for part in parts_of(node) if isinstance(part, onnx.NodeProto) for name in part.input}
        inner = {each.name for part in parts_of(node) if isinstance(part, onnx.GraphProto) for each in part.initializer}
        known = frozenset().union(*(sources.get(name, frozenset()) for name in (*read, *inner, _node_name(node))))
        sources |= {name: known for name in node.output if name}
    return sources


def _computation(
    graph: onnx.ModelProto, names: Sequence[str], inputs: Sequence[str]
) -> Callable[[Tensors], dict[str, NDArray[Any]]]:
    """Return a function that returns inputs and computed tensors of the graph by their names. Lists are left out."""
    wanted = [name for name in names if name not in inputs]
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = onnx_session(watched.SerializeToString()) if wanted else None

    def compute(given: Tensors) -> dict[str, NDArray[Any]]:
        results = {} if session is None else dict(zip(wanted, session.run(wanted, given), strict=True))
        results |= {name: given[name] for name in names if name in given}
        return {name: each for name, each in results.items() if isinstance(each, np.ndarray)}

    return compute


def _keys(table: NDArray[Any]) -> Iterator[bytes]:
    """Yield a key for each row with enough distinctive numbers. Rows that differ only by a factor have equal keys."""
    table = table[np.isfinite(table).all(axis=1)].astype(np.float64)
    differs = table != np.median(table, axis=1, keepdims=True)
    table = table[differs.sum(axis=1) >= DISTINCTIVE_NUMBERS]
    scaled = table / np.abs(table).max(axis=1, keepdims=True)
    yield from (row.tobytes() for row in np.round(scaled, DIGITS).astype(np.float32) + 0)  # no negative zeros
