"""The graph answers what the estimator answers, or there is no bundle."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

import model.features
from slipway import bundle
from slipway.artifacts import BUNDLE, PARITY, Parity
from slipway.config import load_params
from slipway.errors import CheckFailed, InputError
from slipway.pipeline import export, split, train, validate
from slipway.pipeline.tensors import describe, features, tensors
from tests.slipway.conftest import ROOT

SCHEMA = describe(model, "regression", None)
SETTINGS = {"max_iter": 20}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.read_csv(ROOT / "sample/source/1997H2.csv", parse_dates=["sale_date"]).head(1500)


def test_unseen_categories_and_missing_values_are_allowed(frame: pd.DataFrame) -> None:
    fitted = model.fit(features(frame, SCHEMA), frame["price"], SETTINGS, 0)
    strange = features(frame.head(200), SCHEMA)
    strange.loc[:50, "wall"] = "straw"
    strange.loc[30:80, "garage"] = ""
    strange.loc[60:120, "depth_ft"] = np.nan
    parity = export.check_parity(fitted, export.to_onnx(fitted, SCHEMA), [strange], SCHEMA, 1e-4)
    assert parity.rows == 200
    assert parity.rows_beyond_tolerance == 0


def test_native_categories_of_the_sample_are_exported_exactly(frame: pd.DataFrame) -> None:
    encode = ColumnTransformer(
        [("c", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), SCHEMA.categories)],
        remainder="passthrough",
    )
    native = make_pipeline(encode, HistGradientBoostingRegressor(max_iter=20, categorical_features=[0, 1, 2]))
    fitted = native.fit(features(frame, SCHEMA), frame["price"])
    parity = export.check_parity(fitted, export.to_onnx(fitted, SCHEMA), [features(frame, SCHEMA)], SCHEMA, 1e-6)
    assert parity.rows_beyond_tolerance == 0


def test_a_graph_of_another_model_is_refused(frame: pd.DataFrame) -> None:
    some = frame.head(1100)
    inputs = features(some, SCHEMA)
    fitted, other = (model.fit(inputs, some["price"] * factor, {"max_iter": 2}, 0) for factor in (1, 2))
    parity = export.check_parity(fitted, export.to_onnx(other, SCHEMA), [inputs], SCHEMA, 1e-4)
    assert parity.rows_beyond_tolerance == len(some)
    with pytest.raises(CheckFailed, match=r"differ on 1,100 of 1,100 rows .* no single feature causes the difference"):
        export.require_parity(parity)


def test_a_difference_of_nan_is_beyond_the_tolerance() -> None:
    parity = Parity(rows=3, tolerance=1e-4, largest_relative_difference=float("nan"), rows_beyond_tolerance=1)
    with pytest.raises(CheckFailed):
        export.require_parity(parity)


def test_the_error_names_an_estimator_that_cannot_be_exported(frame: pd.DataFrame) -> None:
    class Unknown(KNeighborsRegressor):
        pass

    fitted = make_pipeline(model.features.encoder(), Unknown()).fit(features(frame, SCHEMA), frame["price"])
    with pytest.raises(InputError, match=r"src/model/train.py: this model cannot be exported \(.*Unknown"):
        export.to_onnx(fitted, SCHEMA)


def test_a_model_may_bring_its_own_export(frame: pd.DataFrame) -> None:
    """A model can come from any framework that writes an ONNX graph. This one is one line of NumPy."""

    class Level:
        def predict(self, features: pd.DataFrame) -> Any:
            return features["living_area_sqft"].to_numpy() * 50.0

        def to_onnx(self) -> onnx.ModelProto:
            position = SCHEMA.numbers.index("living_area_sqft")
            return onnx.parser.parse_model(f"""
                <ir_version: 8, opset_import: ["" : 17]>
                level (float[N, {len(SCHEMA.numbers)}] numbers, string[N, {len(SCHEMA.categories)}] categories)
                  => (float[N, 1] y)
                <int64[1] at = {{{position}}}, float[1] factor = {{50.0}}>
                {{ area = Gather <axis = 1> (numbers, at)
                   y = Mul (area, factor) }}
            """)

    fitted = Level()
    graph = export.to_onnx(fitted, SCHEMA)
    parity = export.check_parity(fitted, graph, [features(frame, SCHEMA)], SCHEMA, 1e-6)
    assert (parity.rows, parity.rows_beyond_tolerance) == (1500, 0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ValueError("cannot read hunter2"),
            r"^src/model/train.py: `to_onnx` of the fitted model failed \(Value",
        ),
        (None, r"`to_onnx` of the fitted model returns the type NoneType; return an onnx\.ModelProto"),
        (b"graph", r"`to_onnx` of the fitted model returns the type bytes; return an onnx\.ModelProto"),
    ],
    ids=["raises", "nothing", "bytes"],
)
def test_an_own_export_without_a_graph_is_refused_in_one_sentence(given: Any, words: str) -> None:
    class Broken:
        def to_onnx(self) -> Any:
            if isinstance(given, Exception):
                raise given
            return given

    with pytest.raises(InputError, match=words) as error:
        export.to_onnx(cast(Any, Broken()), SCHEMA)
    assert "hunter2" not in str(error.value)


def test_a_model_that_changes_its_rows_is_compared_on_the_same_rows_as_the_graph(frame: pd.DataFrame) -> None:
    class Halving:
        def predict(self, features: pd.DataFrame) -> Any:
            features["living_area_sqft"] /= 2
            return features["living_area_sqft"].to_numpy()

    position = SCHEMA.numbers.index("living_area_sqft")
    graph = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        level (float[N, {len(SCHEMA.numbers)}] numbers, string[N, {len(SCHEMA.categories)}] categories)
          => (float[N, 1] prediction)
        <int64[1] at = {{{position}}}> {{ prediction = Gather <axis = 1> (numbers, at) }}
    """)
    inputs = features(frame, SCHEMA)
    parity = export.check_parity(Halving(), graph, [inputs], SCHEMA, 1e-6)
    assert parity.rows_beyond_tolerance == parity.rows
    assert inputs.equals(features(frame, SCHEMA))


def test_the_operator_sets_of_a_graph_are_sorted() -> None:
    """skl2onnx writes them in the order of a hash table."""

    class Unsorted:
        def to_onnx(self) -> onnx.ModelProto:
            value = onnx.helper.make_tensor_value_info
            inputs, outputs = [value("numbers", 1, [None, 1])], [value("y", 1, [None, 1])]
            graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["numbers"], ["y"])], "g", inputs, outputs)
            domains = [("ai.onnx.ml", 3), ("", 17)]
            return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid(*each) for each in domains])

    size = bundle.Column(name="size", type="number", required=True)
    schema = bundle.Schema(kind="regression", key=("id",), target="y", classes=None, columns=(size,))
    assert [each.domain for each in export.to_onnx(Unsorted(), schema).opset_import] == ["", "ai.onnx.ml"]


def test_a_classifier_gives_probabilities_only(frame: pd.DataFrame) -> None:
    columns = ["living_area_sqft", "rooms"]
    chosen = bundle.Schema(
        kind="classification",
        key=("row",),
        target="stories",
        classes=("one", "one+half", "two"),
        columns=tuple(bundle.Column(name=name, type="number", required=True) for name in columns),
    )
    some = frame[frame["stories"].isin(chosen.classes or ())]
    inputs = features(some, chosen)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs, some["stories"])
    graph = export.to_onnx(fitted, chosen)
    assert [output.name for output in graph.graph.output] == ["prediction"]
    assert not [node for node in graph.graph.node if "output_label" in node.output]
    assert export.check_parity(fitted, graph, [inputs], chosen, 1e-3).rows_beyond_tolerance == 0


@pytest.mark.usefixtures("workplace")
class TestTrain:
    def prepare(self) -> Any:
        from tests.slipway.conftest import TODAY

        params = load_params(Path("params.yaml"))
        validate.run(params, model, TODAY)
        split.run(params, model)
        return params

    def test_the_bundle_is_complete_and_its_golden_rows_reproduce(self) -> None:
        parity = train.run(self.prepare(), model)
        assert parity == Parity.read(PARITY)
        loaded = bundle.load_bundle(BUNDLE)
        golden = bundle.Golden.model_validate_json((BUNDLE / bundle.GOLDEN).read_bytes())
        rows = pd.DataFrame(list(golden.rows)).assign(sale_date=lambda f: pd.to_datetime(f["sale_date"]))
        answers = loaded.predict(tensors(features(rows, loaded.schema), loaded.schema))
        np.testing.assert_array_equal(answers, np.array(golden.predictions, dtype=np.float32))
        reference = bundle.Reference.model_validate_json((BUNDLE / bundle.REFERENCE).read_bytes())
        trained_on = len(loaded.training_rows())
        for feature in [*reference.features.values(), *reference.prediction.values()]:
            assert sum(feature.counts) + feature.missing == trained_on

    def test_no_bundle_is_written_if_the_graph_differs(self) -> None:
        params = self.prepare()
        exact = params.train.model_copy(update={"parity_tolerance": 1e-12})
        with pytest.raises(CheckFailed):
            train.run(params.model_copy(update={"train": exact}), model)
        assert not BUNDLE.exists()
        assert Parity.read(PARITY).rows_beyond_tolerance > 0

    def test_the_error_names_an_unknown_setting_of_the_model(self) -> None:
        params = self.prepare()
        wrong = params.train.model_copy(update={"settings": {"max_iterations": 3}})
        with pytest.raises(InputError, match=r"`fit` failed \(TypeError: .*max_iterations"):
            train.run(params.model_copy(update={"train": wrong}), model)
        assert not BUNDLE.exists()

    def test_the_seed_and_the_settings_reach_the_model(self) -> None:
        asked: list[tuple[Mapping[str, Any], int]] = []

        class Spy:
            SCHEMA, KEY, TIME, TARGET, FEATURES = model.SCHEMA, model.KEY, model.TIME, model.TARGET, model.FEATURES

            def fit(self, frame: Any, target: Any, settings: Mapping[str, Any], seed: int) -> Any:
                asked.append((settings, seed))
                return model.fit(frame, target, settings, seed)

        train.run(self.prepare(), Spy())
        wanted = ({"learning_rate": 0.08, "max_iter": 30, "early_stopping": False}, 0)
        assert asked == [wanted] * 2  # the second for `train.check_determinism`


def test_marks_for_the_prediction_log_are_in_the_bundle_only_if_they_are_set() -> None:
    assert "private" not in SCHEMA.model_dump_json()
    names = ("SCHEMA", "KEY", "TIME", "TARGET", "FEATURES")
    marked: Any = SimpleNamespace(**{name: getattr(model, name) for name in names})
    marked.SCHEMA = model.SCHEMA.update_column("rooms", metadata={"private": "hash"})
    described = describe(marked, "regression", None)
    assert {column.name: column.private for column in described.columns if column.private} == {"rooms": "hash"}
    assert bundle.Schema.model_validate_json(described.model_dump_json()) == described
