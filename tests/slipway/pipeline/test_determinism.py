"""Equal arguments give equal bundles: `train` fits twice, and the graph has no trace of the machine."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pandera.pandas as pa
import pytest
from onnx import helper
from sklearn.linear_model import SGDRegressor
from threadpoolctl import threadpool_info, threadpool_limits

from slipway import artifacts
from slipway.bundle import Column, Schema, folder_hash
from slipway.config import load_params
from slipway.errors import CheckFailed
from slipway.pipeline import export, train
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.training_rows import InMemory
from tests.slipway.conftest import ROOT


def model(fit: Any) -> Any:
    columns = {"id": pa.Column(str), "size": pa.Column(float), "price": pa.Column(float)}
    return SimpleNamespace(
        SCHEMA=pa.DataFrameSchema(columns), KEY=("id",), TIME=None, TARGET="price", FEATURES=("size",), fit=fit
    )


def seeded(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
    return SGDRegressor(random_state=seed, max_iter=5, tol=None).fit(features / 100, target)


def forgetful(features: pd.DataFrame, target: "pd.Series[float]", *_: Any) -> Any:
    return SGDRegressor(max_iter=5, tol=None).fit(features / 100, target)


def run(fit: Any, rows: int = 300, **settings: Any) -> str:
    numbers = np.arange(rows, dtype="float64")
    table = pd.DataFrame({"id": [f"r{i}" for i in range(rows)], "size": numbers % 97, "price": numbers % 89})
    table[ROW_ID] = np.arange(rows, dtype="uint64")
    artifacts.TRAINING.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(artifacts.TRAINING)
    table.head(20).to_parquet(artifacts.HOLDOUT)
    params = load_params(artifacts.PARAMS)
    train.run(params.model_copy(update={"train": params.train.model_copy(update=settings)}), model(fit))
    return folder_hash(artifacts.BUNDLE)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("rows", [300, train.CHECKED_ROWS + 1], ids=["few", "many"])
def test_a_forgotten_seed_is_refused(rows: int) -> None:
    with pytest.raises(CheckFailed, match="`fit` gives another model"):
        run(forgetful, rows)
    assert not artifacts.BUNDLE.exists()
    assert run(seeded, rows) == run(seeded, rows)


@pytest.mark.usefixtures("workplace")
def test_the_check_can_be_turned_off() -> None:
    run(forgetful, check_determinism=False)
    run(forgetful, threads=2)  # sums differ between runs anyway
    assert artifacts.BUNDLE.exists()


@pytest.mark.usefixtures("workplace")
def test_a_sample_that_cannot_be_fitted_is_not_checked() -> None:
    def only_all(features: pd.DataFrame, *others: Any) -> Any:
        if len(features) <= train.CHECKED_ROWS:
            raise ValueError("too few")
        return seeded(features, *others)

    run(only_all, train.CHECKED_ROWS + 1)
    assert artifacts.BUNDLE.exists()


def test_a_graph_has_no_path_of_the_machine(tmp_path: Path) -> None:
    """PyTorch writes the stack of each call into the node, its subgraphs, and the values."""
    schema = Schema(
        kind="regression",
        key=("id",),
        target="y",
        classes=None,
        columns=(Column(name="size", type="number", required=True),),
    )

    class Own:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def to_onnx(self) -> onnx.ModelProto:
            value = helper.make_tensor_value_info
            float32 = onnx.TensorProto.FLOAT
            branch = helper.make_graph(
                [helper.make_node("Identity", ["numbers"], ["same"], doc_string=self.folder)],
                "branch",
                [],
                [value("same", float32, [None, 1])],
            )
            node = helper.make_node(
                "If", ["yes"], ["y"], then_branch=branch, else_branch=branch, doc_string=self.folder
            )
            yes = onnx.numpy_helper.from_array(np.array(True), "yes")
            inputs, outputs = [value("numbers", float32, [None, 1], self.folder)], [value("y", float32, [None, 1])]
            graph = helper.make_graph([node], "model", inputs, outputs, [yes], doc_string=self.folder)
            made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
            for part in (made, made.graph, made.graph.node[0], made.graph.node[0].attribute[0].g.node[0]):
                entry = part.metadata_props.add()
                entry.key, entry.value = "stack", self.folder
            return made

    here, there = (export.to_onnx(Own(str(tmp_path / name)), schema).SerializeToString() for name in ("a", "elsewhere"))
    assert here == there
    assert str(tmp_path).encode() not in here


def test_every_fit_uses_the_threads_of_params() -> None:
    """The second fit for a threshold too: other sums would give another threshold."""

    def pools(*_: Any) -> Any:
        return {pool["num_threads"] for pool in threadpool_info()}

    params = load_params(ROOT / "params.yaml")
    with threadpool_limits(2):
        for threads in (1, 2):
            limited = params.model_copy(update={"train": params.train.model_copy(update={"threads": threads})})
            assert train.fit(model(pools), InMemory(pd.DataFrame({"y": []}), pd.DataFrame(), "y"), limited) == {threads}
