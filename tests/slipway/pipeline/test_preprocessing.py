"""Preprocessing steps of scikit-learn are exported exactly, or refused in one sentence that names the step."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)

from slipway.bundle import Column, Schema
from slipway.errors import CheckFailed, InputError
from slipway.pipeline import export

NUMBERS, FULL, CATEGORIES = ["size", "delay", "rooms"], ["size", "rooms"], ["wall", "garage"]
COLUMNS = (
    *(Column(name=name, type="number", required=name != "delay") for name in NUMBERS),
    *(Column(name=name, type="category", required=True) for name in CATEGORIES),
)
SCHEMA = Schema(kind="regression", key=("id",), target="price", classes=None, columns=COLUMNS)
ONE_HOT = OneHotEncoder(handle_unknown="ignore")
UNKNOWN = {"handle_unknown": "use_encoded_value", "unknown_value": -1}
MISSING_TEXT = SimpleImputer(missing_values="", strategy="most_frequent", add_indicator=True)


def rows(seed: int, wall: str = "brick") -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "size": random.normal(5, 3, 300).astype("float32"),
            "delay": np.where(random.random(300) < 0.05, np.nan, random.normal(100, 30, 300)).astype("float32"),
            "rooms": random.integers(0, 6, 300).astype("float32"),
            "wall": random.choice(["brick", "wood", "clay", "straw", ""], 300, p=[0.4, 0.3, 0.2, 0.04, 0.06]),
            "garage": random.choice(["none", "one", "two"], 300),
        }
    )
    frame.loc[:20, "wall"] = wall
    return frame.astype(dict.fromkeys(CATEGORIES, "str"))


TRAINING, HOLDOUT = rows(0), rows(1, "unseen")
PRICE = (
    TRAINING["size"] * 2
    + TRAINING["delay"].fillna(20) * 0.1
    + TRAINING["rooms"] ** 2
    + (TRAINING["wall"] == "brick") * 3
    + (TRAINING["garage"] == "one") * 2
)


def numbers(step: Any, columns: list[str] = NUMBERS) -> Any:
    return make_column_transformer((step, columns), (ONE_HOT, CATEGORIES))


def categories(step: Any) -> Any:
    return make_column_transformer((step, CATEGORIES), (SimpleImputer(), NUMBERS))


def check(*steps: Any, final: Any = None) -> None:
    fitted = make_pipeline(*steps, final or Ridge()).fit(TRAINING, PRICE)
    graph = export.to_onnx(fitted, SCHEMA)
    export.require_parity(export.check_parity(fitted, graph, [TRAINING], SCHEMA, 1e-5, [HOLDOUT]))


@pytest.mark.parametrize(
    "steps",
    [
        (numbers(SimpleImputer(add_indicator=True)),),
        (numbers(make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())),),
        (make_column_transformer(("passthrough", NUMBERS)), SimpleImputer(add_indicator=True), StandardScaler()),
        (numbers(SimpleImputer(strategy="constant", fill_value=-1, add_indicator=True)),),
        (make_column_transformer((SimpleImputer(missing_values=0, add_indicator=True), ["rooms"])),),
        (make_column_transformer((MissingIndicator(), NUMBERS), (SimpleImputer(), NUMBERS)),),
        (make_column_transformer((MissingIndicator(features="all"), NUMBERS), (SimpleImputer(), NUMBERS)),),
        (make_column_transformer((MissingIndicator(missing_values=""), CATEGORIES)),),
        (numbers(make_union(SimpleImputer(), MissingIndicator())),),
    ],
)
def test_indicators_of_missing_values_are_exported(steps: tuple[Any, ...]) -> None:
    check(*steps)


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_a_column_without_a_value_is_dropped_by_the_imputer_with_an_indicator() -> None:
    empty = TRAINING.assign(delay=np.float32("nan"))
    fitted = make_pipeline(numbers(SimpleImputer(add_indicator=True)), Ridge()).fit(empty, PRICE)
    graph = export.to_onnx(fitted, SCHEMA)
    export.require_parity(export.check_parity(fitted, graph, [empty, TRAINING], SCHEMA, 1e-5))


@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist"),
        OneHotEncoder(min_frequency=20, handle_unknown="ignore", drop="first"),
        OneHotEncoder(max_categories=3, handle_unknown="warn", sparse_output=False, dtype=np.float32),
        OneHotEncoder(handle_unknown="warn"),
        OneHotEncoder(drop="if_binary", handle_unknown="ignore"),
        OrdinalEncoder(min_frequency=20, **UNKNOWN),
        OrdinalEncoder(max_categories=3, **UNKNOWN),
    ],
)
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_encoders_that_group_rare_categories_are_exported(encoder: Any) -> None:
    check(categories(encoder))


@pytest.mark.parametrize(
    "step",
    [
        numbers(KBinsDiscretizer(quantile_method="averaged_inverted_cdf"), FULL),
        numbers(FunctionTransformer(np.log1p), ["rooms"]),
        make_column_transformer((make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(np.sqrt)), FULL)),
        FeatureUnion([("n", make_column_transformer((SimpleImputer(), NUMBERS))), ("c", categories(ONE_HOT))]),
        numbers(FeatureUnion([("a", StandardScaler()), ("b", "drop"), ("c", "passthrough")]), FULL),
        numbers(FeatureUnion([("a", StandardScaler()), ("b", "passthrough")], transformer_weights={"a": 2}), FULL),
        ColumnTransformer([("n", "passthrough", FULL), ("c", ONE_HOT, CATEGORIES)], transformer_weights={"n": 3}),
    ],
)
def test_unions_weights_bins_and_functions_are_exported(step: Any) -> None:
    check(step)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (numbers(KNNImputer(add_indicator=True)), r"KNNImputer\(add_indicator=True\); use SimpleImputer"),
        (categories(make_pipeline(MISSING_TEXT, ONE_HOT)), r"SimpleImputer\(add_indicator=True\) with categories"),
        (categories(OneHotEncoder(min_frequency=20)), "OneHotEncoder with handle_unknown='error'"),
        (numbers(OneHotEncoder(max_categories=3, handle_unknown="ignore"), ["rooms"]), "OneHotEncoder that groups"),
        (numbers(SplineTransformer(), FULL), "SplineTransformer"),
        (numbers(QuantileTransformer(n_quantiles=9, output_distribution="normal"), FULL), "QuantileTransformer"),
        (numbers(FunctionTransformer(lambda values: values * 2), FULL), "FunctionTransformer with <lambda>, which is"),
    ],
)
def test_a_step_that_cannot_be_exported_is_named(step: Any, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=rf"this model cannot be exported \([^\n]*{named}[^\n]*docs/export.md lists"):
        check(step)
    assert "onnxruntime" not in capfd.readouterr().err


def test_a_category_that_the_model_refuses_is_explained() -> None:
    with pytest.raises(InputError, match=r"cannot predict a row .* \(ValueError\); set `handle_unknown`"):
        check(categories(OneHotEncoder()))


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (OrdinalEncoder(encoded_missing_value=-2, **UNKNOWN), "`ordinalencoder` in `columntransformer`"),
        (PowerTransformer(), "`powertransformer` in `columntransformer`"),
    ],
)
def test_the_first_step_that_differs_is_named(step: Any, named: str) -> None:
    with pytest.raises(CheckFailed, match=rf"the first step whose output differs is {named}"):
        check(make_column_transformer((step, ["rooms", "delay"])), final=HistGradientBoostingRegressor(max_iter=20))


def test_a_graph_that_onnxruntime_cannot_run_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    fitted = make_pipeline(make_column_transformer((StandardScaler(), FULL)), Ridge()).fit(TRAINING, PRICE)
    graph = export.to_onnx(fitted, SCHEMA)
    for constant in graph.graph.initializer:
        if list(constant.dims) == [2, 1]:
            constant.dims[:] = [1, 2]
    with pytest.raises(InputError, match=r"onnxruntime cannot run the exported graph \([^\n]*to_onnx"):
        export.check_parity(fitted, graph, [TRAINING], SCHEMA, 1e-5)
    assert capfd.readouterr().err == ""
