"""Logistic regression on standardised measurements."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def fit(features: pd.DataFrame, target: "pd.Series[str]", settings: Mapping[str, Any], seed: int) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(**settings, random_state=seed)).fit(features, target)
