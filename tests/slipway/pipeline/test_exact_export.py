"""Exported trees agree with the fitted ones at and next to every threshold, alone and as parts of other models."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import compose, helper, numpy_helper
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from slipway.bundle import Column, Schema, onnx_session
from slipway.errors import CheckFailed, InputError
from slipway.pipeline import export
from slipway.pipeline.tensors import tensors
from tests.slipway.conftest import ROOT
from tests.slipway.tools import require

require("libgomp.so.1")
import lightgbm  # noqa: E402 (the wheel does not contain this library)

NUMBERS = ("fare", "seconds", "delay")
CATEGORIES = ("wall", "garage")
ROWS = 400
TOLERANCE = 1e-6
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.MULTILINE | re.DOTALL)
XGBOOST = sys.platform != "darwin"
"""True if the locked requirements have XGBoost, whose wheel without CUDA is for Linux."""
EXAMPLES = [block for block in BLOCKS if "catboost" not in block and (XGBOOST or "xgboost" not in block)]
"""CatBoost takes 270 MB."""


def rows_of_training() -> pd.DataFrame:
    """Numbers with one decimal, large whole numbers, missing ones, and categories."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "fare": (9_000 + random.integers(0, 200, ROWS) / 10).astype(np.float32),
            "wall": random.choice(list("abcdefgh"), ROWS).astype(str),
            "seconds": (1_700_000_000 + 70 * random.integers(0, 1000, ROWS)).astype(np.float32),
            "garage": random.choice(["none", "attached", ""], ROWS).astype(str),
            "delay": random.normal(size=ROWS).astype(np.float32),
        }
    )
    frame.loc[::9, "delay"] = np.nan
    return frame


FRAME = rows_of_training()
TARGET = (
    (FRAME["fare"] - 9_000) * (FRAME["wall"] > "c")
    + np.sin(FRAME["seconds"] / 1e4)
    + FRAME["delay"].fillna(1) * (FRAME["garage"] == "none")
    + 20
).to_numpy(dtype=np.float64)
TWO = np.where(np.median(TARGET) < TARGET, "yes", "no")
THREE = np.array(["a", "b", "c"])[np.digitize(TARGET, np.quantile(TARGET, [0.3, 0.6]))]
TARGETS = {"regression": TARGET, "two classes": TWO, "three classes": THREE}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small models wait for each other."""
    with threadpool_limits(1):
        yield


def schema_of(columns: tuple[str, ...], classes: np.ndarray | None) -> Schema:
    return Schema(
        kind="regression" if classes is None else "classification",
        key=("row",),
        target="y",
        classes=None if classes is None else tuple(np.unique(classes)),
        columns=tuple(
            Column(name=name, type="category" if name in CATEGORIES else "number", required=True) for name in columns
        ),
    )


def rows_at_thresholds(graph: onnx.ModelProto, frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows with each threshold of the graph in each number, and with the float32 numbers next to it."""
    splits = [
        numpy_helper.to_array(attribute.t).astype(np.float64)
        for node in graph.graph.node
        for attribute in node.attribute
        if attribute.name == "nodes_splits"
    ]
    near = np.unique(np.concatenate(splits))
    near = near[np.abs(near) < 1e30].astype(np.float32)
    values = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])
    parts = []
    for at, name in enumerate(each for each in frame if each in NUMBERS):
        rows = frame.sample(len(values), replace=True, random_state=at).reset_index(drop=True)
        parts.append(rows.assign(**{name: values}))
    rows = pd.concat(parts, ignore_index=True)
    for name in CATEGORIES:
        if name in rows:
            rows.loc[::13, name] = "unknown"
    return rows


def one_hot(sparse: bool = False) -> ColumnTransformer:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)
    return ColumnTransformer([("c", encoder, list(CATEGORIES)), ("n", "passthrough", list(NUMBERS))])


def ordinal() -> ColumnTransformer:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return ColumnTransformer([("c", encoder, list(CATEGORIES)), ("n", "passthrough", list(NUMBERS))])


def encoded_as_numbers(target: np.ndarray) -> np.ndarray:
    """XGBoost takes classes as 0, 1, 2."""
    return target if target.dtype.kind == "f" else np.unique(target, return_inverse=True)[1]


def agrees(fitted: Any, columns: tuple[str, ...], target: np.ndarray, frame: pd.DataFrame = FRAME) -> onnx.ModelProto:
    schema = schema_of(columns, None if target.dtype.kind == "f" else target)
    graph = export.to_onnx(fitted, schema)
    tried = pd.concat([frame[list(columns)], rows_at_thresholds(graph, frame[list(columns)])], ignore_index=True)
    parity = export.check_parity(fitted, graph, [tried], schema, TOLERANCE)
    assert parity.rows > ROWS
    assert parity.rows_beyond_tolerance == 0, parity
    return graph


def models(regressor: type, classifier: type, **settings: Any) -> Callable[[np.ndarray], Any]:
    return lambda target: (regressor if target.dtype.kind == "f" else classifier)(**settings)


HISTOGRAM = models(HistGradientBoostingRegressor, HistGradientBoostingClassifier, max_iter=15)
FOREST = models(RandomForestRegressor, RandomForestClassifier, n_estimators=8)
LIGHTGBM = models(lightgbm.LGBMRegressor, lightgbm.LGBMClassifier, n_estimators=15, verbose=-1, n_jobs=1)
TREES: Mapping[str, Callable[[np.ndarray], Any]] = {
    "decision tree": models(DecisionTreeRegressor, DecisionTreeClassifier, max_depth=8),
    "random forest": FOREST,
    "extra trees": models(ExtraTreesRegressor, ExtraTreesClassifier, n_estimators=8),
    "histogram": HISTOGRAM,
    "lightgbm": LIGHTGBM,
    "lightgbm forest": models(
        lightgbm.LGBMRegressor,
        lightgbm.LGBMClassifier,
        n_estimators=5,
        boosting_type="rf",
        bagging_freq=1,
        bagging_fraction=0.5,
        verbose=-1,
        n_jobs=1,
    ),
}
WITH_CATEGORIES: Mapping[str, Callable[[np.ndarray], Any]] = {
    "histogram, one-hot": lambda target: make_pipeline(one_hot(), HISTOGRAM(target)),
    "histogram, encoded": lambda target: make_pipeline(
        ordinal(), HISTOGRAM(target).set_params(categorical_features=[0, 1])
    ),
    "lightgbm, one-hot": lambda target: make_pipeline(one_hot(), LIGHTGBM(target)),
    "lightgbm, sparse": lambda target: make_pipeline(one_hot(sparse=True), LIGHTGBM(target)),
    "scaled numbers": lambda target: make_pipeline(
        ColumnTransformer(
            [
                ("c", OneHotEncoder(sparse_output=False, handle_unknown="ignore"), list(CATEGORIES)),
                ("n", StandardScaler(), list(NUMBERS)),
            ]
        ),
        HISTOGRAM(target),
    ),
}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", TREES)
def test_trees_agree_at_every_threshold(name: str, kind: str) -> None:
    target = TARGETS[kind]
    agrees(TREES[name](target).fit(FRAME[list(NUMBERS)], target), NUMBERS, target)


@pytest.mark.parametrize("kind", TARGETS)
def test_gradient_boosting_agrees_at_every_threshold(kind: str) -> None:
    numbers, target = ("fare", "seconds"), TARGETS[kind]
    model = models(GradientBoostingRegressor, GradientBoostingClassifier, n_estimators=15)(target)
    agrees(model.fit(FRAME[list(numbers)], target), numbers, target)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", WITH_CATEGORIES)
def test_trees_with_categories_agree_at_every_threshold(name: str, kind: str) -> None:
    target = TARGETS[kind]
    agrees(WITH_CATEGORIES[name](target).fit(FRAME, target), tuple(FRAME), target)


@pytest.mark.parametrize("kind", TARGETS)
def test_histogram_with_its_own_categories_agrees_at_every_threshold(kind: str) -> None:
    target = TARGETS[kind]
    model = HISTOGRAM(target).set_params(categorical_features=list(CATEGORIES))
    agrees(model.fit(FRAME, target), tuple(FRAME), target)


@pytest.mark.parametrize("kind", TARGETS)
def test_lightgbm_with_its_own_categories_agrees_at_every_threshold(kind: str) -> None:
    target = TARGETS[kind]
    trees = LIGHTGBM(target).set_params(min_data_per_group=5, cat_smooth=1)
    step = type(trees).__name__.lower()
    fitted = make_pipeline(ordinal(), trees).fit(FRAME, target, **{f"{step}__categorical_feature": [0, 1]})
    graph = agrees(fitted, tuple(FRAME), target)
    (node,) = [node for node in graph.graph.node if node.op_type == "TreeEnsemble"]
    assert [each for each in node.attribute if each.name == "membership_values"]


def test_a_number_that_lightgbm_splits_as_a_category_is_truncated_to_an_integer() -> None:
    random = np.random.default_rng(1)
    frame = FRAME[["fare"]].assign(delay=random.integers(0, 9, ROWS).astype(np.float32))
    target = TARGET + frame["delay"].to_numpy() % 3 * 10
    fitted = LIGHTGBM(target).set_params(min_data_per_group=5, cat_smooth=1)
    fitted.fit(frame, target, categorical_feature=[1])
    schema = schema_of(("fare", "delay"), None)
    halves = frame.assign(delay=random.integers(-5, 21, ROWS).astype(np.float32) / 2)
    parity = export.check_parity(fitted, export.to_onnx(fitted, schema), [halves], schema, TOLERANCE)
    assert parity.rows_beyond_tolerance == 0, parity


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("encoding", ["numbers", "one-hot", "sparse", "own"] if XGBOOST else [])
def test_xgboost_agrees_at_every_threshold(encoding: str, kind: str) -> None:
    import xgboost

    target, columns = TARGETS[kind], tuple(FRAME) if encoding != "numbers" else NUMBERS
    model = models(xgboost.XGBRegressor, xgboost.XGBClassifier, n_estimators=15, max_depth=4, n_jobs=1)(target)
    if encoding == "own":
        model.set_params(enable_categorical=True, feature_types=["c", "c", "q", "q", "q"])
    encoder = {"one-hot": one_hot(), "sparse": one_hot(sparse=True), "own": ordinal()}.get(encoding)
    fitted = make_pipeline(*(each for each in (encoder, model) if each is not None))
    agrees(fitted.fit(FRAME[list(columns)], encoded_as_numbers(target)), columns, target)


def test_early_stopping_exports_the_trees_that_the_model_uses() -> None:
    numbers = FRAME[list(NUMBERS)]
    noise = np.random.default_rng(0).normal(size=ROWS)
    stopping: list[Any] = [lightgbm.LGBMRegressor(n_estimators=60, early_stopping_round=2, verbose=-1, n_jobs=1)]
    if XGBOOST:
        import xgboost

        stopping.append(xgboost.XGBRegressor(n_estimators=60, early_stopping_rounds=2, n_jobs=1))
    for model in stopping:
        fitted = model.fit(numbers[:200], noise[:200], eval_set=[(numbers[200:], noise[200:])])
        agrees(fitted, NUMBERS, noise)


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingRegressor(loss="poisson", max_iter=15),
        GradientBoostingRegressor(loss="huber", init="zero", n_estimators=10),
        lightgbm.LGBMRegressor(objective="tweedie", n_estimators=15, verbose=-1, n_jobs=1),
        TransformedTargetRegressor(HISTOGRAM(TARGET), func=np.log1p, inverse_func=np.expm1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_predictions_behind_a_link_agree_at_every_threshold(model: BaseEstimator) -> None:
    numbers = ("fare", "seconds")
    agrees(model.fit(FRAME[list(numbers)], TARGET), numbers, TARGET)


@pytest.mark.parametrize("kind", ["two classes", "three classes"])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "temperature"])
@pytest.mark.parametrize("outside", [True, False])
def test_calibrated_trees_agree_at_every_threshold(outside: bool, method: str, kind: str) -> None:
    target = TARGETS[kind]
    trees = FOREST(target) if method == "isotonic" else HISTOGRAM(target)
    inner = make_pipeline(one_hot(), trees) if outside else trees
    calibrated = CalibratedClassifierCV(inner, method=method, cv=3)
    fitted = calibrated if outside else make_pipeline(one_hot(), calibrated)
    agrees(fitted.fit(FRAME, target), tuple(FRAME), target)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("final", ["default", "trees, with the features"])
def test_stacked_trees_agree_at_every_threshold(final: str, kind: str) -> None:
    target = TARGETS[kind]
    stacking = models(
        StackingRegressor, StackingClassifier, estimators=[("h", HISTOGRAM(target)), ("f", FOREST(target))]
    )
    stacked = stacking(target).set_params(cv=3)
    if final != "default":
        stacked.set_params(final_estimator=HISTOGRAM(target), passthrough=True)
    agrees(make_pipeline(one_hot(), stacked).fit(FRAME, target), tuple(FRAME), target)


@pytest.mark.parametrize("kind", TARGETS)
def test_voting_trees_agree_at_every_threshold(kind: str) -> None:
    target = TARGETS[kind]
    estimators = [("h", make_pipeline(one_hot(), HISTOGRAM(target))), ("l", make_pipeline(ordinal(), LIGHTGBM(target)))]
    voting = models(VotingRegressor, VotingClassifier, estimators=estimators, weights=[1, 2])(target)
    if kind != "regression":
        voting.set_params(voting="soft")
    agrees(voting.fit(FRAME, target), tuple(FRAME), target)


def test_a_scaled_linear_model_agrees() -> None:
    numbers = ("fare", "seconds")
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[list(numbers)], TWO)
    schema = schema_of(numbers, TWO)
    graph = export.to_onnx(fitted, schema)
    assert export.check_parity(fitted, graph, [FRAME[list(numbers)]], schema, TOLERANCE).rows_beyond_tolerance == 0


def test_a_graph_on_top_of_an_exported_encoder_agrees() -> None:
    """Each column is the tensor `prediction` of the encoder's graph, and the sum is the output of the whole graph."""

    class Sum:
        def __init__(self, encoder: ColumnTransformer) -> None:
            self.encoder = encoder

        def predict(self, features: pd.DataFrame) -> Any:
            return self.encoder.transform(features).sum(axis=1)

        def to_onnx(self, export: Callable[[Any], onnx.ModelProto]) -> onnx.ModelProto:
            node = helper.make_node("ReduceSum", ["encoded", "columns"], ["sum"], keepdims=1)
            value, float32 = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
            columns = numpy_helper.from_array(np.array([1]), "columns")
            ends = [value("encoded", float32, [None, None])], [value("sum", float32, [None, 1])]
            graph = helper.make_graph([node], "sum", *ends, [columns])
            added = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
            return compose.merge_models(export(self.encoder), added, [("prediction", "encoded")])

    schema, rows = schema_of(tuple(FRAME), None), FRAME.fillna({"delay": 0})
    scaled = ("n", StandardScaler(), list(NUMBERS))
    fitted = Sum(ColumnTransformer([*one_hot().transformers[:1], scaled]).fit(rows))
    graph = export.to_onnx(fitted, schema)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", 21), ("ai.onnx.ml", 5)]
    assert export.check_parity(fitted, graph, [rows], schema, 1e-5).rows_beyond_tolerance == 0


@pytest.mark.parametrize("kind", ["two classes", "three classes"])
def test_probabilities_of_a_forest_are_between_0_and_1(kind: str) -> None:
    target = TARGETS[kind]
    fitted = RandomForestClassifier(11, random_state=0).fit(FRAME[list(NUMBERS)], target)
    schema = schema_of(NUMBERS, target)
    session = onnx_session(export.to_onnx(fitted, schema).SerializeToString())
    (answers,) = session.run(None, tensors(FRAME[list(NUMBERS)], schema))
    assert answers.min() == 0
    assert answers.max() == 1


def test_the_same_model_gives_the_same_bytes() -> None:
    fitted = make_pipeline(one_hot(), LIGHTGBM(TARGET)).fit(FRAME, TARGET)
    schema = schema_of(tuple(FRAME), None)
    first, second = (export.to_onnx(fitted, schema).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


class Wrapped:
    """A model of a fork that corrects its inputs before an estimator of a known kind."""

    def __init__(self, estimator: Any, correct: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame) -> None:
        self.estimator, self.correct = estimator, correct

    def predict(self, features: pd.DataFrame) -> Any:
        return self.estimator.predict(self.correct(features))

    def to_onnx(self, export_estimator: Callable[[Any], onnx.ModelProto]) -> onnx.ModelProto:
        return export_estimator(self.estimator)


def parity_of(fitted: Any, graph: onnx.ModelProto, frame: pd.DataFrame, schema: Schema) -> str:
    keys = pd.DataFrame({"id": [f"r{at}" for at in range(len(frame))]})
    training, holdout = [frame.iloc[:ROWS]], [frame.iloc[ROWS:]] if len(frame) > ROWS else []
    parity = export.check_parity(
        fitted, graph, training, schema, TOLERANCE, holdout=holdout, keys=lambda rows: keys.iloc[rows]
    )
    with pytest.raises(CheckFailed) as refused:
        export.require_parity(parity)
    return str(refused.value)


def test_to_onnx_of_a_fork_receives_the_export_function() -> None:
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(FRAME[list(NUMBERS)], TARGET), 15)
    agrees(Wrapped(booster), NUMBERS, TARGET)


def test_the_error_names_row_and_feature_of_a_rounded_threshold() -> None:
    numbers = ("fare",)
    fitted = HISTOGRAM(TARGET).fit(FRAME[list(numbers)], TARGET)
    schema = schema_of(numbers, None)
    rounded = export._with_one_output(export._convert_sklearn(fitted, schema, ""))
    rows = rows_at_thresholds(export.to_onnx(fitted, schema), FRAME[list(numbers)])
    rows = pd.concat([FRAME[list(numbers)], rows], ignore_index=True)
    sentence = parity_of(fitted, rounded, rows, schema)
    row, value = re.findall(r"in the row with id r(\d+) `fare` is ([\d.]+), on a threshold that the graph", sentence)[0]
    assert rows["fare"][int(row)] == np.float32(value)


@pytest.mark.parametrize(
    ("changed", "correct", "expected"),
    [
        (
            {"delay": np.float32(np.nan)},
            lambda f: f.fillna({"delay": 9}),
            "`delay` is missing, which the graph handles differently",
        ),
        ({"wall": "straw"}, lambda f: f.replace({"wall": {"straw": "a"}}), "`wall` is 'straw', which no training row"),
        (
            {"wall": "b"},
            lambda f: f.replace({"wall": {"b": "h"}}),
            "`wall` is 'b', and the graph encodes it differently",
        ),
        ({"garage": ""}, lambda f: f.replace({"garage": {"": "none"}}), "`garage` is missing, and the graph encodes"),
        ({}, lambda f: f.assign(fare=f["fare"] * 2), "no single feature causes the difference"),
    ],
)
def test_the_error_names_a_value_that_the_graph_handles_differently(
    changed: dict[str, Any], correct: Any, expected: str
) -> None:
    inner = make_pipeline(one_hot(), DecisionTreeRegressor(max_depth=12)).fit(FRAME, TARGET)
    schema = schema_of(tuple(FRAME), None)
    fitted = Wrapped(inner, correct)
    rows = FRAME[(FRAME["wall"] > "c") & (FRAME["garage"] == "none") & FRAME["delay"].notna()].iloc[5:6]
    rows = pd.concat([FRAME, rows.assign(fare=np.float32(9_017.7), **changed)], ignore_index=True)
    if not changed:
        rows = rows.iloc[-1:]
    sentence = parity_of(fitted, export.to_onnx(fitted, schema), rows, schema)
    assert expected in sentence, sentence


CATBOOST = {
    "features_info": {
        "float_features": [
            {"feature_index": 0, "flat_feature_index": 0, "nan_value_treatment": "AsTrue"},
            {"feature_index": 1, "flat_feature_index": 1, "nan_value_treatment": "AsIs"},
        ]
    },
    "oblivious_trees": [
        {
            "leaf_values": [-0.903428066717951, 0, -0.2138216377254859, 0.6375053986426322],
            "splits": [
                {"border": 1.25, "float_feature_index": 0, "split_type": "FloatFeature"},
                {"border": -1.5499999523162842, "float_feature_index": 0, "split_type": "FloatFeature"},
            ],
        },
        {
            "leaf_values": [1.9215789278089945, -0.17207901479022325, 0, 1.5586600928561332],
            "splits": [
                {"border": -1.75, "float_feature_index": 1, "split_type": "FloatFeature"},
                {"border": 1.6500000953674316, "float_feature_index": 1, "split_type": "FloatFeature"},
            ],
        },
    ],
    "scale_and_bias": [1, [1.3462666273117065]],
}
"""A regression of CatBoost 1.2.10, as it saves it; the library takes 270 MB."""


def test_a_model_saved_by_catboost_predicts_the_same_as_catboost() -> None:
    class CatBoost:
        __module__ = "catboost"

        def save_model(self, path: str, format: str) -> None:  # noqa: A002 (CatBoost's own name)
            assert format == "json"
            Path(path).write_text(json.dumps(CATBOOST))

        def get_all_params(self) -> dict[str, str]:
            return {"loss_function": "RMSE"}

    border = np.float32(1.6500000953674316)
    above, higher = (np.nextafter(each, np.float32(2)) for each in (np.float32(1.25), border))
    rows = pd.DataFrame(
        [(x, z) for x in (np.nan, 1.25, above) for z in (border, higher)], columns=["fare", "delay"], dtype=np.float32
    )
    schema = schema_of(("fare", "delay"), None)
    (answers,) = onnx_session(export.to_onnx(CatBoost(), schema).SerializeToString()).run(None, tensors(rows, schema))
    answered = [1.8116930111641154, 3.542432118810472, 0.9603659747959974, 2.6911050824423537]
    np.testing.assert_allclose(answers[:, 0], [*answered, *answered[:2]], rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"linear_tree": True}, "linear_tree"),
        ({"zero_as_missing": True}, "zero_as_missing"),
        ({"objective": lambda truth, answer: (answer - truth, np.ones(ROWS))}, "objective custom"),
    ],
)
def test_the_error_names_a_variant_that_cannot_be_exported_exactly(settings: dict[str, Any], named: str) -> None:
    numbers = FRAME[list(NUMBERS)].fillna(0)
    fitted = lightgbm.LGBMRegressor(**settings, n_estimators=2, verbose=-1, n_jobs=1).fit(numbers, TARGET)
    with pytest.raises(InputError, match=named):
        export.to_onnx(fitted, schema_of(NUMBERS, None))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0].strip('"'))
def test_the_examples_of_the_documentation_agree_at_every_threshold(example: str) -> None:
    names: dict[str, Any] = {}
    exec(example, names)
    columns = NUMBERS if "class Level" in example else tuple(FRAME)
    agrees(names["fit"](FRAME[list(columns)], pd.Series(TARGET), {}, 0), columns, TARGET)
