"""A model whose `fit` takes a dataset gives the same bundle as one whose `fit` takes a frame."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.dataset
import pytest

from slipway import artifacts
from slipway.bundle import folder_hash
from slipway.config import Params, load_params
from slipway.contract import load_model, reads_dataset
from slipway.errors import CheckFailed, InputError
from slipway.pipeline import parquet, split, train, training_rows, validate
from slipway.pipeline.tensors import describe
from slipway.pipeline.training_rows import InMemory, OnDisk
from tests.slipway.conftest import TODAY, edit
from tests.slipway.pipeline import test_image_columns, test_vectors

NAMES = ("SCHEMA", "KEY", "TIME", "TARGET", "FEATURES", "fit")


def sample(**names: Any) -> Any:
    """Return the model of the sample, which can be changed."""
    model = load_model()
    return SimpleNamespace(**{name: getattr(model, name) for name in NAMES} | names)


def fit(rows: pyarrow.dataset.Dataset, target: str, settings: Mapping[str, Any], seed: int) -> Any:
    """Fit the model of the sample on a dataset."""
    frame = rows.to_table().to_pandas()
    return load_model().fit(frame[[*load_model().FEATURES]], frame[target], settings, seed)


@pytest.fixture
def params(workplace: Path) -> Params:  # noqa: ARG001
    """Settings, after validate and split."""
    edit(Path(artifacts.PARAMS), "max_iter: 30", "max_iter: 5")
    params = load_params(artifacts.PARAMS)
    validate.run(params, load_model(), TODAY)
    split.run(params, load_model())
    return params


def trained(params: Params, model: Any) -> tuple[str, bytes]:
    train.run(params, model)
    return folder_hash(artifacts.BUNDLE), artifacts.PARITY.read_bytes()


def test_a_dataset_gives_the_bundle_of_the_frame_for_any_size_of_parts(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = trained(params, load_model())
    monkeypatch.setattr(training_rows, "PART_ROWS", 100)
    monkeypatch.setattr(training_rows, "InMemory", None)  # so that no rows can be loaded as one frame
    monkeypatch.setattr(parquet.pd, "read_parquet", only_columns(pd.read_parquet))
    assert trained(params, sample(fit=fit)) == known
    assert not [*Path("build").glob(".train.*")]


def only_columns(read: Any) -> Any:
    def read_one(path: Path, columns: list[str] | None) -> Any:
        assert columns is not None
        assert len(columns) == 1
        return read(path, columns=columns)

    return read_one


def test_a_dataset_that_is_not_fitted_with_the_seed_is_refused(params: Params) -> None:
    def forgetful(rows: pyarrow.dataset.Dataset, target: str, settings: Mapping[str, Any], seed: int) -> Any:  # noqa: ARG001
        return fit(rows, target, {**settings, "max_iter": 2, "max_features": 0.1}, np.random.randint(2**30))

    with pytest.raises(CheckFailed, match="`fit` gives another model"):
        train.run(params, sample(fit=forgetful))
    assert not artifacts.BUNDLE.exists()


def test_a_row_that_the_graph_predicts_differently_is_named_by_its_key(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Differs:
        def __init__(self, fitted: Any) -> None:
            self.fitted = fitted

        def predict(self, frame: pd.DataFrame) -> Any:
            return self.fitted.predict(frame) * np.where(frame["stories"] == "bilevel", 2, 1)

        def to_onnx(self, export_estimator: Any) -> Any:
            return export_estimator(self.fitted)

    def differing(rows: pyarrow.dataset.Dataset, *others: Any) -> Any:
        return Differs(fit(rows, *others))

    monkeypatch.setattr(training_rows, "PART_ROWS", 100)
    with pytest.raises(CheckFailed, match=r"in the row with sale_date 1997-.*`stories` is 'bilevel', and the"):
        train.run(params, sample(fit=differing))


def test_an_error_of_fit_is_reported_in_one_sentence_and_leaves_no_file(params: Params) -> None:
    def broken(rows: pyarrow.dataset.Dataset, *_: Any) -> Any:
        return rows.to_table(columns=["sale_price"])

    with pytest.raises(InputError, match="`fit` failed"):
        train.run(params, sample(fit=broken))
    assert not [*Path("build").glob(".train.*")]


@pytest.mark.parametrize(("name", "shape"), [("embedding", (3,)), ("photo", (2, 3, 1))])
def test_a_dataset_has_the_shapes_and_types_of_vectors_and_images(tmp_path: Path, name: str, shape: Any) -> None:
    values: list[Any] = test_vectors.vectors() if name == "embedding" else [test_image_columns.BRIGHT] * 60
    model = test_vectors.model() if name == "embedding" else test_image_columns.model()
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(60)], "size": np.arange(60.0), name: values, "price": 1.5})
    rows.to_parquet(tmp_path / "source.parquet")
    schema = describe(model, "regression", None)
    disk = OnDisk.convert(tmp_path / "source.parquet", tmp_path / "rows.parquet", schema)
    dataset, target = disk.arguments
    kind = pyarrow.float32() if name == "embedding" else pyarrow.uint8()
    assert dataset.schema.field(name).type == pyarrow.fixed_shape_tensor(kind, shape)
    assert dataset.to_table().column(name).combine_chunks().to_numpy_ndarray().shape == (60, *shape)
    memory = InMemory(rows, train.features(rows, schema), target)
    half, of_half = memory.only(ODD), disk.only(ODD)
    for some, others in ((memory, disk), (half, of_half), (half.only(ODD[:30]), of_half.only(ODD[:30]))):
        (frame,), (same,) = [*some], [*others]
        pd.testing.assert_frame_equal(same, frame.reset_index(drop=True))
        assert [*others.column("id")] == [*some.column("id")]
        places = np.array([7, 2])
        pd.testing.assert_frame_equal(
            others.at(places, ["id"]).reset_index(drop=True), some.at(places, ["id"]).reset_index(drop=True)
        )


ODD = np.arange(60) % 2 == 1


def quoted(rows: "pyarrow.dataset.Dataset", *_: Any) -> Any: ...
def of_a_frame(rows: pd.DataFrame, *_: Any) -> Any: ...
def of_anything(*_: Any) -> Any: ...
def of_nothing() -> Any: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [(fit, True), (quoted, True), (of_a_frame, False), (of_anything, False), (of_nothing, False), (dict, False)],
)
def test_the_annotation_of_the_first_parameter_decides(function: Any, expected: bool) -> None:
    assert reads_dataset(sample(fit=function)) is expected
