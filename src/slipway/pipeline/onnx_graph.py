"""Build ONNX graphs. The names of tensors depend only on the order of calls, so equal models give equal bytes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper

from slipway.pipeline.trees import Ensemble, Tree

ML = "ai.onnx.ml"
RUNTIME = "com.microsoft"
"""Domain of the operators that only ONNX Runtime has."""
OPERATOR_SETS = {"": 21, ML: 5}
"""The operator set versions of the model, which need onnxruntime 1.20. No older version has TreeEnsemble, which adds
float64 leaves in float64.
"""
LEAF_OPERATOR_SETS = {"": 21, ML: 3}
"""The operator set versions of graphs from skl2onnx. These graphs can be merged into a graph with `OPERATOR_SETS`."""
IR_VERSION = 10
MODES = {"<=": 0, "<": 1}
MEMBER = 6
ONNX_TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "int64": onnx.TensorProto.INT64,
    "bool": onnx.TensorProto.BOOL,
    "str": onnx.TensorProto.STRING,
}


class GraphBuilder:
    """An ONNX graph that is built node by node. Most methods return the name of the tensor that the nodes compute."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        """Add a node and return the name of its first output.

        Further outputs have this name followed by _1, _2 and so on.
        """
        name = f"{self._prefix}{operator.lower()}_{len(self._nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, inputs, names, domain=domain, **attributes))
        return name

    def constant(self, values: Any, dtype: str) -> str:
        """Add a constant tensor of numbers, truth values or texts, and return its name."""
        name = f"{self._prefix}constant_{len(self._constants)}"
        array = np.asarray(values, dtype=object if dtype == "str" else dtype)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def subgraph(
        self, name: str, inputs: Sequence[tuple[str, int, Any]], outputs: Sequence[tuple[str, int, Any]]
    ) -> onnx.GraphProto:
        """Return the nodes as the body of a loop. Each input and output is a tuple (name, tensor type, shape)."""
        given, made = ([helper.make_tensor_value_info(*each) for each in tensors] for tensors in (inputs, outputs))
        return helper.make_graph(self._nodes, name, given, made, self._constants)

    def cast(self, tensor: str, dtype: str) -> str:
        return self.add("Cast", tensor, to=ONNX_TYPES[dtype])

    def merge(self, model: onnx.ModelProto, tensor: str) -> str:
        """Add the nodes of a model with one input, and return the name of the model's last output.

        `tensor` replaces the input of the model.
        """
        prefix = f"part_{len(self._nodes)}_"
        graph = compose.add_prefix_graph(model.graph, prefix)
        given, output = graph.input[0].name, graph.output[-1].name
        self._nodes.append(helper.make_node("Identity", [tensor], [given]))
        self._nodes.extend(graph.node)
        self._constants.extend(graph.initializer)
        return str(output)

    def trees(self, ensemble: Ensemble, tensor: str) -> str:
        """Add one TreeEnsemble node for all trees.

        The output of the node has the shape [rows, ensemble.targets] and the type `ensemble.dtype`.
        """
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
            nodes_featureids=_whole(rows.split("feature")),
            nodes_splits=_tensor(rows.split("threshold"), ensemble.dtype),
            nodes_modes=_tensor(rows.split("mode"), "uint8"),
            nodes_truenodeids=_whole(rows.split("true")),
            nodes_trueleafs=_whole(rows.split("true leaf")),
            nodes_falsenodeids=_whole(rows.split("false")),
            nodes_falseleafs=_whole(rows.split("false leaf")),
            nodes_missing_value_tracks_true=_whole(rows.split("missing")),
            leaf_targetids=_whole(rows.leaf("target")),
            leaf_weights=_tensor(rows.leaf("weight"), ensemble.dtype),
            **optional,
        )

    def model(self, inputs: Sequence[tuple[str, str, int]], output: str, width: int, name: str) -> onnx.ModelProto:
        """Return the finished model.

        Each input is a tuple (name, type, width). The model returns `output`, cast to float32.
        """
        self._nodes.append(helper.make_node("Cast", [output], [name], to=onnx.TensorProto.FLOAT))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [helper.make_tensor_value_info(each, ONNX_TYPES[dtype], [None, width]) for each, dtype, width in inputs],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, width])],
            self._constants,
        )
        versions = OPERATOR_SETS | ({RUNTIME: 1} if any(node.domain == RUNTIME for node in self._nodes) else {})
        operator_sets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
        return helper.make_model(graph, opset_imports=operator_sets, ir_version=IR_VERSION)


class _Rows:
    """The attributes of a TreeEnsemble node.

    Each attribute is a list with one entry for each split, or for each leaf.
    """

    def __init__(self) -> None:
        self._splits: list[dict[str, NDArray[Any]]] = []
        self._leaves: list[dict[str, NDArray[Any]]] = []
        self.roots: list[int] = []
        self.members: list[float] = []
        self._split_count = self._leaf_count = 0

    def add(self, tree: Tree, target: int, comparison: str) -> None:
        """Append a tree. If the tree has no split, append a split with the same leaf on both sides."""
        leaf = tree.left < 0
        splits, leaves = np.flatnonzero(~leaf), np.flatnonzero(leaf)
        row = np.empty(len(leaf), np.int64)
        row[splits] = self._split_count + np.arange(len(splits))
        row[leaves] = self._leaf_count + np.arange(len(leaves))
        of_category = np.isin(splits, list(tree.members))
        left, right = tree.left[splits], tree.right[splits]
        if not len(splits):
            splits = left = right = np.zeros(1, np.int64)
            of_category = np.zeros(1, bool)
        self.roots.append(self._split_count)
        self._splits.append(
            {
                "feature": tree.feature[splits],
                "threshold": tree.threshold[splits],
                "mode": np.where(of_category, MEMBER, MODES[comparison]),
                "missing": tree.missing_left[splits],
                "true": row[left],
                "true leaf": leaf[left],
                "false": row[right],
                "false leaf": leaf[right],
            }
        )
        self._leaves.append({"weight": tree.value[leaves], "target": np.full(len(leaves), target)})
        for node in splits[of_category]:
            self.members += [*tree.members[int(node)], np.nan]
        self._split_count += len(splits)
        self._leaf_count += len(leaves)

    def split(self, name: str) -> NDArray[Any]:
        return np.concatenate([each[name] for each in self._splits])

    def leaf(self, name: str) -> NDArray[Any]:
        return np.concatenate([each[name] for each in self._leaves])


def _tensor(values: Sequence[float] | NDArray[Any], dtype: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), "values")


def _whole(values: NDArray[Any]) -> list[int]:
    numbers: list[int] = values.astype(np.int64).tolist()
    return numbers
