"""A graph must not contain training rows, even after a transformation, if a feature must not be published."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingRegressor, StackingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, QuantileTransformer, StandardScaler
from sklearn.svm import SVR

from slipway.bundle import Column, Schema
from slipway.errors import InputError
from slipway.pipeline.export import to_onnx
from slipway.pipeline.stored_rows import refuse_stored_rows
from slipway.pipeline.training_rows import InMemory

ROWS = 120
RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "body": pd.Series([" ".join(f"word{i}" for i in RANDOM.integers(0, 30, 12)) for _ in range(ROWS)], dtype="str"),
        "city": pd.Series([f"city {i % 40}" for i in range(ROWS)], dtype="str"),
        "ink": [row.astype(np.float32) for row in RANDOM.normal(size=(ROWS, 12))],
        "age": RANDOM.integers(20, 90, ROWS).astype(np.float32),
        "rooms": RANDOM.integers(1, 5, ROWS).astype(np.float32),
        "size": RANDOM.normal(size=ROWS).astype(np.float32),
    }
)
TARGET = pd.Series(RANDOM.normal(size=ROWS), name="price")
COLUMNS = {
    "body": Column(name="body", type="text", required=True),
    "city": Column(name="city", type="category", required=True),
    "ink": Column(name="ink", type="vector", shape=(12,), required=True),
    "age": Column(name="age", type="number", required=True, private="drop"),
    "rooms": Column(name="rooms", type="number", required=True),
    "size": Column(name="size", type="number", required=True),
}
READ = {
    "body": ("body", TfidfVectorizer(), "body"),
    "city": ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
    "ink": ("ink", make_pipeline(FunctionTransformer(np.stack), StandardScaler()), "ink"),
    "numbers": ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "rooms", "size"]),
    "public": ("public", StandardScaler(), ["rooms", "size"]),
}


def check(steps: list[str], estimator: Any, columns: list[str], minimum: int = 10) -> None:
    encode = ColumnTransformer([READ[name] for name in steps], sparse_threshold=0)
    frame = FRAME[columns]
    schema = Schema(
        kind="regression", key=("id",), target="price", classes=None, columns=tuple(COLUMNS[name] for name in columns)
    )
    graph = to_onnx(make_pipeline(encode, estimator).fit(frame, TARGET), schema)
    refuse_stored_rows(graph, InMemory(frame, frame, "price"), schema, minimum)


NUMBERS = ["age", "rooms", "size"]
STORING = {
    "scaled vectors": (["ink"], KNeighborsRegressor(), ["ink"]),
    "support vectors": (["ink"], SVR(), ["ink"]),
    "Gaussian process": (["ink"], GaussianProcessRegressor(), ["ink"]),
    "vectors with other columns": (["ink", "city"], KNeighborsRegressor(), ["city", "ink"]),
    "counts of words": (["body"], SVR(), ["body"]),
    "components": (["body"], make_pipeline(PCA(5), KNeighborsRegressor()), ["body"]),
    "private numbers": (["numbers"], KNeighborsRegressor(), NUMBERS),
    "inside of a stack": (["body"], StackingRegressor([("a", Ridge()), ("b", KNeighborsRegressor())], cv=2), ["body"]),
    "inside of a bag": (["body"], BaggingRegressor(KNeighborsRegressor(), 2), ["body"]),
}


@pytest.mark.parametrize("name", STORING)
def test_a_model_that_stores_training_rows_is_refused(name: str) -> None:
    steps, estimator, columns = STORING[name]
    with pytest.raises(InputError, match="the graph would publish training rows, as a nearest-neighbour model"):
        check(steps, estimator, columns)
    check(steps, estimator, columns, minimum=1)


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(),
        HistGradientBoostingRegressor(max_iter=5),
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=5),
        make_pipeline(PCA(5), QuantileTransformer(n_quantiles=20), Ridge()),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_that_stores_no_training_row_is_accepted(estimator: Any) -> None:
    check(["body", "city", "ink", "numbers"], estimator, [*COLUMNS])


def test_a_model_whose_features_are_all_public_may_store_training_rows() -> None:
    check(["public"], KNeighborsRegressor(), ["rooms", "size"])
