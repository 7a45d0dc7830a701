"""A model with every kind of column: optional ones, a date format, a pattern, and checks of its own."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pandera.engines.pandas_engine import DateTime
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

KEY, TIME, TARGET = ("id", "sold"), "sold", "price"
FEATURES = ("size", "kind", "rooms", "note", "seen", "zone", "garden", "cellar")
SCHEMA = pa.DataFrameSchema(
    {
        "id": pa.Column(str, pa.Check.str_matches(r"^[A-Z]{2}-\d{4}$")),
        "sold": pa.Column(DateTime(to_datetime_kwargs={"format": "%d.%m.%Y"}), pa.Check.ge(pd.Timestamp("2024-01-01"))),
        "size": pa.Column(float, pa.Check.gt(0), nullable=True),
        "kind": pa.Column(pd.CategoricalDtype(["a", "b", "k"]), nullable=True),
        "garden": pa.Column(bool),
        "cellar": pa.Column("boolean", nullable=True),
        "signed": pa.Column(DateTime(tz="Europe/Berlin"), nullable=True),
        "rooms": pa.Column(
            float,
            [
                pa.Check.in_range(1, 9),
                pa.Check(lambda rooms: rooms == rooms.round(), error="rooms is not a whole number"),
            ],
        ),
        "note": pa.Column(str, pa.Check.str_length(3, 10)),
        "seen": pa.Column(DateTime(to_datetime_kwargs={"format": "%Y-%m-%d"}), nullable=True),
        "zone": pa.Column(float, pa.Check.isin([1, 2, 5])),
        "price": pa.Column(float, pa.Check.ge(0)),
    },
    checks=[pa.Check(lambda rows: rows["zone"] <= rows["rooms"], error="zone is above rooms")],
)


def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Pipeline:
    """Fit gradient-boosted trees."""
    texts = [name for name in features if features[name].dtype.kind not in "fi"]
    numbers = [name for name in features if name not in texts]
    columns = ColumnTransformer(
        [("t", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts), ("n", "passthrough", numbers)]
    )
    return make_pipeline(columns, HistGradientBoostingRegressor(**settings, random_state=seed)).fit(features, target)
