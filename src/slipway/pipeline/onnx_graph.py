"""A builder of ONNX graphs. Names depend only on the order of its calls, so equal models give equal bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from slipway.pipeline.trees import Ensemble, Tree

ML = "ai.onnx.ml"
OPERATOR_SETS = {"": 21, ML: 5}
"""The first with TreeEnsemble, which adds up float64 leaves in float64. It needs onnxruntime 1.20."""
LEAF_OPERATOR_SETS = {"": 21, ML: 3}
"""The sets for steps that skl2onnx converts and that are merged into such a graph."""
IR_VERSION = 10
MODES = {"<=": 0, "<": 1}
MEMBER = 6
ONNX_TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "int64": onnx.TensorProto.INT64,
    "str": onnx.TensorProto.STRING,
}


class GraphBuilder:
    """Collects nodes. Each method returns the name of the tensor that it adds."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, values: Any, dtype: str) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def cast(self, tensor: str, dtype: str) -> str:
        return self.add("Cast", tensor, to=ONNX_TYPES[dtype])

    def merge(self, model: onnx.ModelProto, tensor: str) -> str:
        """Add the nodes of a graph with one input, replaced by `tensor`. Return its last output."""
        prefix = f"part_{len(self._nodes)}_"
        graph = compose.add_prefix_graph(model.graph, prefix)
        given, output = graph.input[0].name, graph.output[-1].name
        self._nodes.append(helper.make_node("Identity", [tensor], [given]))
        self._nodes.extend(graph.node)
        self._constants.extend(graph.initializer)
        return str(output)

    def trees(self, ensemble: Ensemble, tensor: str) -> str:
        """Add one TreeEnsemble node for all trees, of shape [rows, ensemble.targets] and type `ensemble.dtype`."""
        rows = _Rows()
        for target, start in enumerate(ensemble.base):
            rows.add(Tree.of_one_leaf(start), target, "<=")
        for target, tree in ensemble.trees:
            rows.add(tree, target, ensemble.comparison)
        optional = {"membership_values": _tensor(rows.members, ensemble.dtype)} if rows.members else {}
        return self.add(
            "TreeEnsemble",
            tensor,
            domain=ML,
            aggregate_function=1,  # sum
            post_transform=0,  # none
            n_targets=ensemble.targets,
            tree_roots=rows.roots,
            nodes_featureids=rows.features,
            nodes_splits=_tensor(rows.thresholds, ensemble.dtype),
            nodes_modes=_tensor(rows.modes, "uint8"),
            nodes_truenodeids=rows.children[0],
            nodes_trueleafs=rows.leaves[0],
            nodes_falsenodeids=rows.children[1],
            nodes_falseleafs=rows.leaves[1],
            nodes_missing_value_tracks_true=rows.missing,
            leaf_targetids=rows.targets,
            leaf_weights=_tensor(rows.weights, ensemble.dtype),
            **optional,
        )

    def model(self, inputs: Sequence[tuple[str, str, int]], output: str, name: str) -> onnx.ModelProto:
        """Return the model: `inputs` as (name, type, columns), and `output` cast to float32 and called `name`."""
        self._nodes.append(helper.make_node("Cast", [output], [name], to=onnx.TensorProto.FLOAT))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [helper.make_tensor_value_info(each, ONNX_TYPES[dtype], [None, width]) for each, dtype, width in inputs],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)],
            self._constants,
        )
        operator_sets = [helper.make_opsetid(domain, version) for domain, version in OPERATOR_SETS.items()]
        return helper.make_model(graph, opset_imports=operator_sets, ir_version=IR_VERSION)


class _Rows:
    """The attributes of a TreeEnsemble node: one row for each split, one for each leaf."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.features: list[int] = []
        self.thresholds: list[float] = []
        self.modes: list[int] = []
        self.missing: list[int] = []
        self.children: tuple[list[int], list[int]] = ([], [])
        self.leaves: tuple[list[int], list[int]] = ([], [])
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.members: list[float] = []

    def add(self, tree: Tree, target: int, comparison: str) -> None:
        """Append a tree. A tree without splits becomes a split with the same leaf on both sides."""
        splits = np.flatnonzero(tree.left >= 0)
        leaves = np.flatnonzero(tree.left < 0)
        split_row = {int(node): len(self.modes) + row for row, node in enumerate(splits)}
        leaf_row = {int(node): len(self.weights) + row for row, node in enumerate(leaves)}
        self.roots.append(len(self.modes))
        self.targets += [target] * len(leaves)
        self.weights += tree.value[leaves].tolist()
        if not split_row:
            self._split(0, 0.0, MODES[comparison], missing=False)
            for side in (0, 1):
                self._child(side, leaf_row[0], leaf=True)
        for node in map(int, splits):
            members = tree.members.get(node)
            mode = MODES[comparison] if members is None else MEMBER
            self._split(int(tree.feature[node]), float(tree.threshold[node]), mode, bool(tree.missing_left[node]))
            if members is not None:
                self.members += [*members, np.nan]
            for side, child in enumerate((int(tree.left[node]), int(tree.right[node]))):
                leaf = child in leaf_row
                self._child(side, leaf_row[child] if leaf else split_row[child], leaf=leaf)

    def _split(self, feature: int, threshold: float, mode: int, missing: bool) -> None:
        self.features.append(feature)
        self.thresholds.append(threshold)
        self.modes.append(mode)
        self.missing.append(int(missing))

    def _child(self, side: int, row: int, leaf: bool) -> None:
        self.children[side].append(row)
        self.leaves[side].append(int(leaf))


def _tensor(values: Sequence[float] | NDArray[Any], dtype: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), "values")
