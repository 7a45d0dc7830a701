"""Choose the decision threshold of a classifier on training rows that are left out of a second fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from slipway.bundle import Decision
from slipway.config import Task
from slipway.contract import Model
from slipway.errors import InputError
from slipway.pipeline.columns import ROW_ID
from slipway.pipeline.measure import best_threshold, ideal_threshold, row_weights
from slipway.pipeline.training_rows import Rows
from slipway.statistics.metrics import Floats

PART = 5
"""The training rows are divided into this number of equal parts. The second fit leaves out one part."""
MINIMUM_ROWS = 50
"""Minimum number of rows of each class in the fit and among the left-out rows. With fewer rows, the threshold comes
from `ideal_threshold`, which assumes correct probabilities.
"""

FAILED = "src/model/train.py: the model that is fitted on four fifths of the training rows, to choose a threshold,"
ADVICE = "set `handle_unknown` of encoders, or correct `fit` (`slipway --debug train` shows where it fails)"

Fit = Callable[[Rows], Any]


def decide(fit: Fit, training: Rows, classes: tuple[str, ...], task: Task, model: Model) -> Decision | None:
    """Return the decision for `task.cost`, or None if `task.cost` is not set.

    For two classes, `fit` is called on four fifths of the training rows. The threshold is chosen on the remaining
    fifth: the newest rows, or random rows if rows have no time. The holdout is not used.
    """
    if task.cost is None:
        return None
    costs = task.costs(classes)
    ideal = ideal_threshold(costs)
    if ideal is None:
        return Decision(costs=costs, threshold=None)
    order = np.argsort(training.column(model.TIME or ROW_ID).to_numpy(), kind="stable")
    left_out = np.zeros(len(order), dtype=bool)
    left_out[order[len(order) - len(order) // PART :]] = True
    truth: Floats = (training.column(model.TARGET).astype(str) == classes[1]).to_numpy(np.float64)
    counts = [np.bincount(truth[rows].astype(int), minlength=2).min() for rows in (~left_out, left_out)]
    if min(counts) < MINIMUM_ROWS:
        return Decision(costs=costs, threshold=ideal)
    fitted = fit(training.only(~left_out))
    answers = [_probabilities(fitted, part) for part in training.only(left_out)]
    probabilities = np.concatenate(answers).astype(np.float64)
    weights = None if task.weight is None else row_weights(training.column(task.weight).to_frame(), task.weight)
    weights = None if weights is None else weights[left_out]
    return Decision(costs=costs, threshold=best_threshold(costs, truth[left_out], probabilities, weights))


def _probabilities(fitted: Any, rows: pd.DataFrame) -> NDArray[np.float32]:
    """Return probabilities, float32 [rows, 2]. Raises InputError if the model cannot predict finite probabilities."""
    try:
        found = np.asarray(fitted.predict_proba(rows), dtype=np.float32).reshape(len(rows), 2)
    except Exception as error:  # an estimator may raise any exception, whose message may quote a value of a row
        raise InputError(f"{FAILED} cannot predict the others ({type(error).__name__}); {ADVICE}.") from error
    if not np.isfinite(found).all():
        raise InputError(f"{FAILED} predicts infinite or missing probabilities for the others; {ADVICE}.")
    return found
