"""Fit a convolutional network on the photo and on the ink of its rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def fit(features: pd.DataFrame, target: "pd.Series[str]", settings: Mapping[str, Any], seed: int) -> Any:
    """Fit with `train.settings` of params.yaml. One thread gives the same network in every run."""
    # Imported here, because PyTorch takes seconds to import, and only the stage `train` needs it.
    import torch

    from model.network import Network

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = Network(np.unique(target))
    network.learn(features, target, settings["epochs"], settings["batch"], settings["rate"])
    return network
