"""The loss of each row, by which models are judged, and summary metrics for the report.

Predictions have shape [rows, 1] (regression) or [rows, classes] (probabilities). `truth` has shape [rows]. It contains
the values of the target, or for a classification the index of each row's class. docs/metrics.md contains the formulas.
"""

from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata
from sklearn import metrics as sk

from slipway.config import ONE_MINUS_AUC, RECALL_AT_PRECISION, Kind, loss_number

Floats = NDArray[np.float64]

CALIBRATION_BINS = 10
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


def _one_minus_auc(truth: Floats, prediction: Floats) -> Floats:
    """Return numbers whose mean is 1 - `roc_auc`, one for each row.

    Each is 1 minus the area minus the influence of the row on the area, which follows from the shares of rows of the
    other kind that the row is ranked above or below (DeLong, DeLong and Clarke-Pearson 1988). So the standard error of
    their mean over blocks of rows is that of the area for clustered rows (Obuchowski 1997).
    """
    found = []
    for inside, scores in _classes(truth, prediction):
        positive, rows = int(inside.sum()), len(inside)
        if not 0 < positive < rows:
            continue
        ranks, share = rankdata(scores), positive / rows
        areas = np.empty(rows)
        areas[inside] = (ranks[inside] - rankdata(scores[inside])) / (rows - positive)
        areas[~inside] = 1 - (ranks[~inside] - rankdata(scores[~inside])) / positive
        area = areas[inside].mean()
        found.append(1 - area - (areas - area) / np.where(inside, share, 1 - share))
    return np.mean(found, axis=0) if found else np.full(len(truth), 0.5)


LOSSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "mean_absolute_error": _absolute_error,
    "mean_squared_error": _squared_error,
    "mean_absolute_percentage_error": _percentage_error,
    "log_loss": _log_loss,
    "brier_score": _brier_score,
    "error_rate": _error_rate,
    ONE_MINUS_AUC: _one_minus_auc,
}
LOSSES_OF_PAIRS = (ONE_MINUS_AUC,)
"""Losses that compare each row with others. The loss of a part is not the mean over the rows of the whole."""


def _pinball(quantile: float, truth: Floats, prediction: Floats) -> Floats:
    """Return the pinball loss, whose mean is smallest for the quantile (Koenker and Bassett 1978)."""
    error = truth - prediction[:, 0]
    return np.maximum(quantile * error, (quantile - 1) * error)


def _huber(threshold: float, truth: Floats, prediction: Floats) -> Floats:
    """Return half the squared error, which continues as a straight line beyond the threshold (Huber 1964)."""
    size = np.abs(prediction[:, 0] - truth)
    near = np.minimum(size, threshold)
    return near * (size - near / 2)


LOSSES_WITH_NUMBER: dict[str, Callable[[float, Floats, Floats], Floats]] = {"pinball": _pinball, "huber": _huber}


def row_losses(loss: str, truth: Floats, prediction: Floats) -> Floats:
    """Return the loss of each row. Models are judged by the mean loss. Lower is better."""
    if parsed := loss_number(loss):
        name, number = parsed
        return LOSSES_WITH_NUMBER[name](number, truth, prediction)
    return LOSSES[loss](truth, prediction)


def losses_within(loss: str, losses: Floats, truth: Floats, prediction: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Return the losses of the rows `inside`. A loss that compares pairs of rows is computed again for these rows."""
    return row_losses(loss, truth[inside], prediction[inside]) if loss in LOSSES_OF_PAIRS else losses[inside]


def roc_auc(truth: Floats, prediction: Floats) -> float:
    """Return the area under the ROC curve: how often a row of a class gets a higher probability than another row.

    Ties count half (Mann and Whitney 1947). With more than two classes, it is the mean over the classes, each against
    all others. A class without rows, or with all rows, is left out. Without any class, the result is 0.5.
    """
    areas = []
    for inside, scores in _classes(truth, prediction):
        positive = int(inside.sum())
        pairs = positive * (len(inside) - positive)
        if pairs:
            ranks = float(rankdata(scores)[inside].sum())
            areas.append((ranks - positive * (positive + 1) / 2) / pairs)
    return float(np.mean(areas)) if areas else 0.5


def average_precision(truth: Floats, prediction: Floats) -> float:
    """Return the mean precision over all recalls, without interpolation, as scikit-learn does.

    With more than two classes, it is the mean over the classes that have rows. Without any class, the result is 0.
    """
    found = [
        float(sk.average_precision_score(inside, scores))
        for inside, scores in _classes(truth, prediction)
        if inside.any()
    ]
    return float(np.mean(found)) if found else 0.0


def recall_at_precision(truth: Floats, prediction: Floats, precision: float) -> float:
    """Return the largest recall of a threshold that has at least this precision. Return 0 if no threshold has it.

    With more than two classes, it is the mean over the classes that have rows.
    """
    found = []
    for inside, scores in _classes(truth, prediction):
        if not inside.any():
            continue
        order = np.argsort(-scores, kind="stable")
        correct, last = np.cumsum(inside[order]), np.append(np.diff(scores[order]) != 0, True)
        precise = last & (correct >= precision * np.arange(1, len(scores) + 1))
        found.append(float(correct[precise].max(initial=0) / inside.sum()))
    return float(np.mean(found)) if found else 0.0


def calibration_error(truth: Floats, prediction: Floats) -> float:
    """Return the mean difference between predicted probabilities and shares, in ten bins of equally many rows.

    With two classes, it is the probability of the second class. With more, it is the probability of the most probable
    class, and the share is that of correct rows. Bins of equally many rows: Nixon and others 2019, "Measuring
    Calibration in Deep Learning".
    """
    if prediction.shape[1] == 2:
        ((inside, scores),) = _classes(truth, prediction)
    else:
        inside, scores = prediction.argmax(axis=1) == truth, prediction.max(axis=1)
    gaps = [
        abs(float((scores[bin_] - inside[bin_]).sum()))
        for bin_ in np.array_split(np.argsort(scores, kind="stable"), CALIBRATION_BINS)
    ]
    return sum(gaps) / len(truth)


def _classes(truth: Floats, prediction: Floats) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    """Yield for each class which rows have it, and its probabilities. With two classes, skip the first."""
    for index in range(prediction.shape[1]) if prediction.shape[1] > 2 else [1]:
        yield truth == index, prediction[:, index]


def summarise(
    kind: Kind,
    truth: Floats,
    prediction: Floats,
    loss: str | None = None,
    losses: Floats | None = None,
    wanted: Collection[str] = (),
) -> dict[str, float]:
    """Return the usual metrics of a regression or a classification.

    If `loss` is not one of them, its mean is added. `losses` are the losses of the rows. Metrics with a number, such as
    `recall_at_precision_0.9`, are added if they are `wanted`.
    """
    usual = {*LOSSES} - {*LOSSES_OF_PAIRS}
    own = {} if loss is None or loss in usual or losses is None else {loss: float(losses.mean())}
    if kind == "regression":
        values = prediction[:, 0]
        return own | {
            "mean_absolute_error": float(sk.mean_absolute_error(truth, values)),
            "mean_squared_error": float(sk.mean_squared_error(truth, values)),
            "root_mean_squared_error": float(sk.root_mean_squared_error(truth, values)),
            "median_absolute_error": float(sk.median_absolute_error(truth, values)),
            "mean_absolute_percentage_error": float(_percentage_error(truth, prediction).mean()),
            "bias": float(np.mean(values - truth)),
            "r_squared": float(sk.r2_score(truth, values)) if len(truth) > 1 else 0.0,
        }
    chosen = prediction.argmax(axis=1)
    return own | {
        "log_loss": float(_log_loss(truth, prediction).mean()),
        "brier_score": float(_brier_score(truth, prediction).mean()),
        "error_rate": float(_error_rate(truth, prediction).mean()),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, chosen)),
        "f1_macro": float(sk.f1_score(truth, chosen, average="macro")),
        "roc_auc": roc_auc(truth, prediction),
        "average_precision": average_precision(truth, prediction),
        "calibration_error": calibration_error(truth, prediction),
        **{
            name: recall_at_precision(truth, prediction, float(found[1]))
            for name in wanted
            if (found := RECALL_AT_PRECISION.fullmatch(name))
        },
    }


def naive_prediction(loss: str, kind: Kind, training_truth: Floats, classes: int) -> Floats:
    """Return the best constant prediction, of shape [1, 1] or [1, classes].

    The constant minimises the loss on the training rows: the median for absolute errors, the mean for squared errors,
    the median weighted by 1 / |value| for percentage errors, the quantile for a pinball loss, and the share of each
    class for a classification. For a Huber loss, it is found by a search.
    """
    if kind == "classification":
        counts = np.bincount(training_truth.astype(int), minlength=classes)
        shares: Floats = counts / counts.sum()
        return shares[None, :]
    if loss == "mean_squared_error":
        return np.array([[np.mean(training_truth)]])
    name, number = loss_number(loss) or ("", 0.5)
    if name == "huber":
        low, high = training_truth.min(), training_truth.max()
        if low == high:
            return np.array([[low]])

        def mean_loss(constant: float) -> float:
            return float(_huber(number, training_truth, np.array([[constant]])).mean())

        return np.array([[minimize_scalar(mean_loss, bounds=(low, high), method="bounded").x]])
    weights = 1 / np.abs(training_truth) if loss == "mean_absolute_percentage_error" else np.ones(len(training_truth))
    return np.array([[np.quantile(training_truth, number, weights=weights, method="inverted_cdf")]])
