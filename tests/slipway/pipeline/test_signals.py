"""A graph with the output `signals`: its numbers are counted for drift like features, and are in no answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from slipway import artifacts, bundle
from slipway.bundle import read_reference
from slipway.config import Drift
from slipway.errors import InputError
from slipway.monitoring.drift import compare
from slipway.monitoring.drift_sources import of_pages, of_rows
from slipway.pipeline.tensors import features, tensors
from slipway.serving.protocols import Infer, Invocations, Predict
from slipway.serving.runs import Plan, Runs, measure
from slipway.serving.served_model import ServedModel
from tests.slipway.monitoring.counted import page
from tests.slipway.pipeline.test_image_columns import Brightness, model, train_on
from tests.slipway.serving.arrays import as_base64, encoded

RULE = Drift(confidence=0.99, psi=0.1, minimum_rows=10, prometheus=None, label_matchers="", window="1d")
NAMES = ("signals[0]", "signals[1]")


class Corners(Brightness):
    """Predicts the mean brightness, and has the first and the last pixel as signals."""

    kept, kind = (0, 5), TensorProto.FLOAT

    def to_onnx(self) -> onnx.ModelProto:
        made = super().to_onnx()
        nodes = [
            helper.make_node("Gather", ["flat", "kept"], ["corners"], axis=1),
            helper.make_node("Cast", ["corners"], ["signals"], to=self.kind),
        ]
        made.graph.node.extend(nodes)
        made.graph.initializer.append(helper.make_tensor("kept", TensorProto.INT64, [len(self.kept)], self.kept))
        made.graph.output.append(helper.make_tensor_value_info("signals", self.kind, [None, len(self.kept)]))
        return made


def trained(fitted: Brightness, rows: int = 400) -> Path:
    train_on(rows, model(fit=lambda *_: fitted))
    return artifacts.BUNDLE


@pytest.fixture
def served(workplace: Path) -> ServedModel:  # noqa: ARG001
    return ServedModel(trained(Corners()), "model", 1_000)


def rows_with(sorted_pixels: bool, rows: int = 400) -> pd.DataFrame:
    """Return random rows. With `sorted_pixels`, the first pixel is brighter than the second one."""
    pixels = np.random.default_rng(1).integers(0, 256, (rows, 2, 3)).astype(np.uint8)
    if sorted_pixels:
        pixels[:, 0, :2] = -np.sort(-pixels[:, 0, :2].astype(int), axis=1)
    return pd.DataFrame({"photo": [encoded(each) for each in pixels]})


def test_the_reference_counts_the_signals_after_the_features(served: ServedModel) -> None:
    assert tuple(served.reference.features) == ("photo", *NAMES)
    first = served.reference.features["signals[0]"]
    assert (len(first.counts), sum(first.counts), first.missing) == (10, 400, 0)
    assert first.edges
    assert 15 < first.edges[0] < 35


def test_no_answer_has_a_signal(served: ServedModel) -> None:
    photo = as_base64(encoded(np.array([[0, 60, 60], [60, 60, 120]], np.uint8)))
    assert json.loads(Predict(served)(json.dumps([{"photo": photo}] * 2).encode())) == [{"prediction": 60.0}] * 2
    body = json.dumps({"dataframe_records": [{"photo": photo}]}).encode()
    assert json.loads(Invocations(served)(body)) == {"predictions": [60.0]}
    tensor = {"name": "photo", "shape": [1, 1], "datatype": "BYTES", "data": [photo]}
    (output,) = json.loads(Infer(served)(json.dumps({"inputs": [tensor]}).encode()))["outputs"]
    assert (output["shape"], output["data"]) == ([1, 1], [60.0])
    assert [each["name"] for each in Infer(served).metadata()["outputs"]] == ["prediction"]
    bins = served.metrics.bins()["feature"]
    assert [bins["signals[0]"][0], sum(bins["signals[0]"])] == [4, 4]
    assert sum(bins["signals[1]"][3:6]) == 4


def test_signals_of_divided_and_shared_runs_are_counted(served: ServedModel) -> None:
    frame = features(rows_with(False, 5), served.schema)
    given = tensors(frame, served.schema)
    answered: list[Any] = []

    async def score() -> None:
        runs = Runs(served, Plan(max_rows=2, is_shared=True), 1_000)
        runs.add(given, 5, 0.0, answered.append)
        for _ in range(2):
            runs.add({name: each[:1] for name, each in given.items()}, 1, 0.0, answered.append)
        while len(answered) < 3:
            await asyncio.sleep(0)

    asyncio.run(score())
    assert sorted(len(each) for each in answered) == [1, 1, 5]
    assert sum(served.metrics.bins()["feature"]["signals[1]"]) == 7
    assert measure(served, 1, "on").is_shared


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("source", ["rows", "page"])
def test_a_signal_drifts_without_a_drift_of_the_brightness(source: str, tmp_path: Path) -> None:
    loaded = bundle.load_bundle(artifacts.BUNDLE)
    reference = read_reference(loaded.path)
    found = {}
    for moved in (False, True):
        frame = features(rows_with(moved), loaded.schema)
        if source == "rows":
            counts = of_rows(loaded, reference, frame)
        else:
            replica = ServedModel(loaded.path, "model", 1_000)
            replica.predict(tensors(frame, loaded.schema))
            (tmp_path / "page").write_text(page(replica.metrics))
            counts = of_pages([tmp_path / "page"], loaded, reference)
        found[moved] = compare(loaded.hash, loaded.schema, reference, counts, RULE)
    assert not found[False].alarm
    assert [each.name for each in found[True].moved if each.alarm] == ["signals[0]"]
    assert found[True].reason.startswith("signals[0] (PSI ")


def test_a_signal_that_is_not_finite_is_counted(served: ServedModel) -> None:
    outputs = np.array([[1, np.nan, np.inf], [2, 5, -np.inf]], np.float32)
    assert served.accept({"photo": np.zeros((2, 2, 3, 1), np.uint8)}, outputs).tolist() == [[1], [2]]
    bins = served.metrics.bins()["feature"]
    assert (sum(bins["signals[0]"]), bins["signals[0]"][-1]) == (2, 1)
    assert [bins["signals[1]"][0], bins["signals[1]"][-2]] == [1, 1]


@pytest.mark.usefixtures("workplace")
def test_signals_of_another_shape_or_type_are_refused() -> None:
    wide, whole, alone = Corners(), Corners(), Corners()
    wide.kept = (0, 1, 2, 3, 4, 5, 0, 1, 2)
    with pytest.raises(InputError, match=r"`signals` of the graph is float32 of the shape \[20, 9\] for 20 rows"):
        trained(wide, 20)
    whole.kind = TensorProto.INT32
    with pytest.raises(InputError, match=r"`signals` of the graph is int32"):
        trained(whole, 20)

    def only_signals() -> onnx.ModelProto:
        made = Corners.to_onnx(alone)
        del made.graph.output[0]
        return made

    alone.to_onnx = only_signals  # type: ignore[method-assign]
    with pytest.raises(InputError, match="a graph with the only output `signals`"):
        trained(alone, 20)
    assert not artifacts.BUNDLE.exists()
