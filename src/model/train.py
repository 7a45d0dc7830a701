"""Fit the model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from model.features import encoder

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def fit(features: pd.DataFrame, target: pd.Series, settings: Mapping[str, Any], seed: int) -> "Pipeline":
    """Fit gradient-boosted trees on the training rows.

    `features` has the columns of `FEATURES`. `target` contains the prices in dollars. `settings` is
    `train.settings` of params.yaml, with the arguments of HistGradientBoostingRegressor.
    """
    # Import scikit-learn here, because stages that only read the schema start much faster without it.
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline

    trees = HistGradientBoostingRegressor(**settings, random_state=seed)
    return make_pipeline(encoder(), trees).fit(features, target)
