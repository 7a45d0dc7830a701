"""Choose the decision of a classifier on training rows that a second fit leaves out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from slipway.bundle import Decision
from slipway.config import Task
from slipway.contract import Model
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.measure import best_threshold, ideal_threshold
from slipway.statistics.metrics import Floats

PART = 5
"""The second fit leaves out one of this number of equal parts of the training rows."""
MINIMUM_ROWS = 50
"""Minimum number of left-out rows of each class. With fewer, the threshold is that for correct probabilities."""

Fit = Callable[[pd.DataFrame, "pd.Series[Any]"], Any]


def decide(
    fit: Fit, training: pd.DataFrame, frame: pd.DataFrame, classes: tuple[str, ...], task: Task, model: Model
) -> Decision | None:
    """Return the decision for `task.cost`, or None if it is not set.

    For two classes, `fit` is called on four fifths of the training rows. The threshold is the best one on the newest
    fifth, or on a random fifth if rows have no time. The holdout is not used. `frame` has the features of `training`.
    """
    if task.cost is None:
        return None
    costs = task.costs(classes)
    ideal = ideal_threshold(costs)
    if ideal is None:
        return Decision(costs=costs, threshold=None)
    order = np.argsort(training[model.TIME or ROW_ID].to_numpy(), kind="stable")
    kept, left_out = np.sort(order[: -(len(order) // PART) or None]), np.sort(order[len(order) - len(order) // PART :])
    target = training[model.TARGET]
    truth: Floats = (target.astype(str) == classes[1]).to_numpy(np.float64)
    counts = [np.bincount(truth[rows].astype(int), minlength=2).min() for rows in (kept, left_out)]
    if min(counts) < MINIMUM_ROWS:
        return Decision(costs=costs, threshold=ideal)
    fitted = fit(frame.iloc[kept], target.iloc[kept])
    probabilities = np.asarray(fitted.predict_proba(frame.iloc[left_out]), dtype=np.float32).astype(np.float64)
    return Decision(costs=costs, threshold=best_threshold(costs, truth[left_out], probabilities))
