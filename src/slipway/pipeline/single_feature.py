"""Compute a feature's predictive power score: the share of the loss that this feature alone removes.

A small tree that reads only this feature is fitted on training rows and evaluated on holdout rows. Each leaf predicts
the best constant for its training rows, as the naive baseline does for all training rows. The score is 0 for a useless
feature, and 1 for a feature that determines the target. See Wetschoreck, Krabel and Krishnamurthy, 8080labs/ppscore,
2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.preprocessing import OrdinalEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from slipway.config import Task
from slipway.pipeline.measure import Measure
from slipway.statistics.metrics import Floats, naive_prediction

MAX_ROWS = 10_000
"""Maximum number of training rows that are used, and maximum number of holdout rows."""
MAX_LEAVES = 128
MIN_LEAF_ROWS = 5


@dataclass(frozen=True)
class Sample:
    """A sample of rows: the features in the form for `Model.fit`, and the true values in the form for `row_losses`."""

    frame: pd.DataFrame
    truth: Floats

    def every(self, rows: int) -> "Sample":
        """Return at most `rows` rows that are spread evenly over the sample."""
        step = step_of(len(self.frame), rows)
        return Sample(self.frame.iloc[::step], self.truth[::step])


def step_of(rows: int, most: int) -> int:
    """Return the smallest step `n` for which every `n`-th of `rows` rows is a sample of at most `most` rows."""
    return -(-rows // most) or 1


def scores_alone(
    training: Sample, holdout: Sample, measure: Measure, classes: int, names: Sequence[str]
) -> dict[str, float]:
    """Return the predictive power score of each feature in `names`, on the holdout.

    `measure` must not use a loss that src/model computes.
    """
    task = measure.task
    training, holdout = training.every(MAX_ROWS), holdout.every(MAX_ROWS)
    constant = naive_prediction(task.loss, task.kind, training.truth, classes)

    def loss_of(answers: Floats) -> float:
        return float(measure.losses(holdout.truth, answers, holdout.frame, measure.decision).mean())

    naive = loss_of(np.repeat(constant, len(holdout.truth), axis=0))
    scores = {}
    for name in names:
        columns = _as_numbers(training.frame[name], holdout.frame[name])
        loss = loss_of(_answers(columns, training.truth, task, constant))
        scores[name] = 1 - loss / naive if naive else 0.0
    return scores


def _as_numbers(training: "pd.Series[Any]", holdout: "pd.Series[Any]") -> tuple[Floats, Floats]:
    """Convert a feature to numbers [rows, 1], for the training rows and the holdout rows.

    A category that is not in the training rows becomes -1.
    """
    if training.dtype.kind == "f":
        return training.to_numpy(np.float64)[:, None], holdout.to_numpy(np.float64)[:, None]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    before: Floats = encoder.fit_transform(training.to_frame())
    now: Floats = encoder.transform(holdout.to_frame())
    return before, now


def _answers(columns: tuple[Floats, Floats], truth: Floats, task: Task, constant: Floats) -> Floats:
    """Fit the tree on the training column.

    Return its predictions for the holdout column, [rows, 1] or [rows, classes].
    """
    if task.kind == "regression":
        tree = DecisionTreeRegressor(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=MIN_LEAF_ROWS, random_state=0)
    else:
        tree = DecisionTreeClassifier(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=MIN_LEAF_ROWS, random_state=0)
    known = truth != 0  # a percentage error is undefined where the target is 0
    weights = 1 / np.square(truth, where=known, out=np.ones_like(truth))
    tree.fit(columns[0], truth, sample_weight=weights * known if task.loss.endswith("percentage_error") else None)
    leaves, asked = tree.apply(columns[0]), tree.apply(columns[1])
    predictions = np.zeros((tree.tree_.node_count, constant.shape[1]))
    for leaf in np.unique(leaves):
        inside = truth[leaves == leaf]
        found = naive_prediction(task.loss, task.kind, inside, constant.shape[1])
        if task.kind == "classification":  # a class without training rows in a leaf still gets a small probability
            found = (found * len(inside) + constant) / (len(inside) + 1)
        predictions[leaf] = found
    return np.asarray(predictions[asked])
