"""The loss of each row, by which models are judged, and summary metrics for the report.

Predictions have shape [rows, 1] (regression) or [rows, classes] (probabilities). `truth` has shape [rows]. It contains
the values of the target, or for a classification the index of each row's class. docs/metrics.md contains the formulas.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from slipway.config import Kind

Floats = NDArray[np.float64]

SMALLEST_PROBABILITY = 1e-7  # keeps the loss of a certain but wrong prediction finite


def _absolute_error(truth: Floats, prediction: Floats) -> Floats:
    return np.asarray(np.abs(prediction[:, 0] - truth))


def _squared_error(truth: Floats, prediction: Floats) -> Floats:
    return np.square(prediction[:, 0] - truth)


def _percentage_error(truth: Floats, prediction: Floats) -> Floats:
    relative: Floats = np.abs(prediction[:, 0] - truth) / np.maximum(np.abs(truth), np.finfo(np.float64).eps)
    return relative


def _log_loss(truth: Floats, prediction: Floats) -> Floats:
    likelihood = prediction[np.arange(len(truth)), truth.astype(int)]
    loss: Floats = -np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0))
    return loss


def _brier_score(truth: Floats, prediction: Floats) -> Floats:
    """Return the squared error of the probabilities, summed over all classes.

    With two classes, both have the same squared error, and it counts once.
    """
    certain = np.eye(prediction.shape[1])[truth.astype(int)]
    distance: Floats = np.square(prediction - certain).sum(axis=1)
    return distance / 2 if prediction.shape[1] == 2 else distance


def _error_rate(truth: Floats, prediction: Floats) -> Floats:
    wrong: Floats = (prediction.argmax(axis=1) != truth).astype(np.float64)
    return wrong


LOSSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "mean_absolute_error": _absolute_error,
    "mean_squared_error": _squared_error,
    "mean_absolute_percentage_error": _percentage_error,
    "log_loss": _log_loss,
    "brier_score": _brier_score,
    "error_rate": _error_rate,
}


def row_losses(loss: str, truth: Floats, prediction: Floats) -> Floats:
    """Return the loss of each row. Models are judged by the mean loss. Lower is better."""
    return LOSSES[loss](truth, prediction)


def summarise(kind: Kind, truth: Floats, prediction: Floats) -> dict[str, float]:
    """Return the usual metrics of a regression or a classification."""
    if kind == "regression":
        values = prediction[:, 0]
        return {
            "mean_absolute_error": float(sk.mean_absolute_error(truth, values)),
            "mean_squared_error": float(sk.mean_squared_error(truth, values)),
            "root_mean_squared_error": float(sk.root_mean_squared_error(truth, values)),
            "median_absolute_error": float(sk.median_absolute_error(truth, values)),
            "mean_absolute_percentage_error": float(_percentage_error(truth, prediction).mean()),
            "bias": float(np.mean(values - truth)),
            "r_squared": float(sk.r2_score(truth, values)) if len(truth) > 1 else 0.0,
        }
    chosen = prediction.argmax(axis=1)
    return {
        "log_loss": float(_log_loss(truth, prediction).mean()),
        "brier_score": float(_brier_score(truth, prediction).mean()),
        "error_rate": float(_error_rate(truth, prediction).mean()),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, chosen)),
        "f1_macro": float(sk.f1_score(truth, chosen, average="macro")),
    }


def naive_prediction(loss: str, kind: Kind, training_truth: Floats, classes: int) -> Floats:
    """Return the best constant prediction, of shape [1, 1] or [1, classes].

    The constant minimises the loss on the training rows: the median for absolute errors, the mean for squared errors,
    the median weighted by 1 / |value| for percentage errors, and the share of each class for a classification.
    """
    if kind == "classification":
        counts = np.bincount(training_truth.astype(int), minlength=classes)
        shares: Floats = counts / counts.sum()
        return shares[None, :]
    if loss == "mean_squared_error":
        return np.array([[np.mean(training_truth)]])
    weights = 1 / np.abs(training_truth) if loss == "mean_absolute_percentage_error" else np.ones(len(training_truth))
    return np.array([[np.quantile(training_truth, 0.5, weights=weights, method="inverted_cdf")]])
