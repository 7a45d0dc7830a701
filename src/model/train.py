"""Fit the model."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from model.features import encoder


def fit(features: pd.DataFrame, target: pd.Series, settings: Mapping[str, Any], seed: int) -> Any:
    """Fit gradient-boosted trees on the training rows, and return the pipeline.

    `features` has the columns of `FEATURES`. `target` contains the prices in dollars. `settings` is
    `train.settings` of params.yaml, with the arguments of HistGradientBoostingRegressor.
    """
    # Imported here, because stages that only read the schema start a second faster without scikit-learn.
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline

    trees = HistGradientBoostingRegressor(**settings, random_state=seed)
    return make_pipeline(encoder(), trees).fit(features, target)
