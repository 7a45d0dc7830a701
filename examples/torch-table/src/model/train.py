"""Fit a neural network on one-hot categories and scaled numbers."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from model.features import CATEGORIES, NUMBERS


def fit(features: pd.DataFrame, target: "pd.Series[float]", settings: Mapping[str, Any], seed: int) -> Any:
    """Fit with `train.settings` of params.yaml. One thread gives the same network in every run."""
    # Imported here, because PyTorch takes seconds to import, and only the stage `train` needs it.
    import torch
    from model.network import Network
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    encoder = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(CATEGORIES)),
            ("numbers", StandardScaler(), list(NUMBERS)),
        ]
    ).fit(features)
    network = Network(encoder, settings["hidden"], float(target.mean()))
    network.learn(features, target, settings["epochs"], settings["batch"], settings["rate"])
    return network
