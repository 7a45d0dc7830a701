"""Compute the loss of each row, which the gate compares, and the summary metrics in the report.

Predictions have the shape [rows, 1] (regression) or [rows, classes] (probabilities). `truth` has the shape [rows].
`truth` contains the target values for a regression, and the index of each row's class for a classification.
docs/metrics.md contains the formulas.
"""

from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import rankdata
from sklearn import metrics as sk

from slipway.config import ONE_MINUS_AUC, RECALL_AT_PRECISION, Kind, loss_number
from slipway.statistics.blocks import average

Floats = NDArray[np.float64]

CALIBRATION_BINS = 10
SECOND = 1
"""The index of the positive class of two classes, unless `task.positive` names the first one."""
SMALLEST_PROBABILITY = 1e-7  # a certain but wrong prediction gets a finite loss


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

    With two classes, the squared errors of both classes are equal, so only one of them is used.
    """
    certain = np.eye(prediction.shape[1])[truth.astype(int)]
    distance: Floats = np.square(prediction - certain).sum(axis=1)
    return distance / 2 if prediction.shape[1] == 2 else distance


def _error_rate(truth: Floats, prediction: Floats) -> Floats:
    wrong: Floats = (prediction.argmax(axis=1) != truth).astype(np.float64)
    return wrong


def _one_minus_auc(truth: Floats, prediction: Floats) -> Floats:
    """Return one number for each row, so that the mean of the numbers is 1 - `roc_auc`.

    The number is 1 - area - influence. The area is the area under the ROC curve, and the influence is the effect of the
    row on that area. For a positive row, the influence depends on the share of negative rows that are ranked below it.
    For a negative row, the influence depends on the share of positive rows that are ranked above it (DeLong, DeLong and
    Clarke-Pearson 1988). With these numbers, the standard error over blocks of rows is the standard error of the area
    for clustered rows (Obuchowski 1997).
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
"""Losses that compare pairs of rows. For a part of the rows, such a loss must be computed again from these rows."""


def _pinball(quantile: float, truth: Floats, prediction: Floats) -> Floats:
    """Return the pinball loss of each row. Predicting the quantile minimises the mean loss (Koenker, Bassett 1978)."""
    error = truth - prediction[:, 0]
    return np.maximum(quantile * error, (quantile - 1) * error)


def _huber(threshold: float, truth: Floats, prediction: Floats) -> Floats:
    """Return the Huber loss: half the squared error up to the threshold, and linear growth beyond it (Huber 1964)."""
    size = np.abs(prediction[:, 0] - truth)
    near = np.minimum(size, threshold)
    return near * (size - near / 2)


LOSSES_WITH_NUMBER: dict[str, Callable[[float, Floats, Floats], Floats]] = {"pinball": _pinball, "huber": _huber}


def row_losses(loss: str, truth: Floats, prediction: Floats) -> Floats:
    """Return the loss of each row. A lower loss is better."""
    if parsed := loss_number(loss):
        name, number = parsed
        return LOSSES_WITH_NUMBER[name](number, truth, prediction)
    return LOSSES[loss](truth, prediction)


def losses_within(loss: str, losses: Floats, truth: Floats, prediction: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Return the losses of the rows that the mask `inside` selects.

    A loss that compares pairs of rows is computed again, from the selected rows alone.
    """
    return row_losses(loss, truth[inside], prediction[inside]) if loss in LOSSES_OF_PAIRS else losses[inside]


def roc_auc(truth: Floats, prediction: Floats, weights: Floats | None = None) -> float:
    """Return the area under the ROC curve.

    A pair is one row of the class and one row outside of the class. The area is the share of pairs in which the row of
    the class has the higher probability. A tie counts as half a pair (Mann and Whitney 1947). With more than two
    classes, the result is the mean of the areas of each class against all other classes. A class without rows, or with
    all rows, is left out. If no class is left, the result is 0.5. With `weights`, the weight of a pair is the product
    of the weights of its rows.
    """
    areas = []
    for inside, scores in _classes(truth, prediction):
        if weights is not None:
            if weights[inside].any() and weights[~inside].any():
                areas.append(float(sk.roc_auc_score(inside, scores, sample_weight=weights)))
            continue
        positive = int(inside.sum())
        pairs = positive * (len(inside) - positive)
        if pairs:
            ranks = float(rankdata(scores)[inside].sum())
            areas.append((ranks - positive * (positive + 1) / 2) / pairs)
    return float(np.mean(areas)) if areas else 0.5


def average_precision(
    truth: Floats, prediction: Floats, weights: Floats | None = None, positive: int = SECOND
) -> float:
    """Return the average precision: the mean precision over all recalls, without interpolation, as in scikit-learn.

    With two classes, the class with the index `positive` is ranked. With more than two classes, the result is the mean
    over the classes that have rows. If no class has rows, the result is 0.
    """
    found = [
        float(sk.average_precision_score(inside, scores, sample_weight=weights))
        for inside, scores in _classes(truth, prediction, positive)
        if (inside if weights is None else weights[inside]).any()
    ]
    return float(np.mean(found)) if found else 0.0


def recall_at_precision(
    truth: Floats, prediction: Floats, precision: float, weights: Floats | None = None, positive: int = SECOND
) -> float:
    """Return the largest recall among the thresholds with at least this precision, or 0 if there is no such threshold.

    With two classes, this is the recall of the class with the index `positive`. With more than two classes, the result
    is the mean over the classes that have rows.
    """
    found = []
    for inside, scores in _classes(truth, prediction, positive):
        sizes = np.ones(len(scores)) if weights is None else weights
        if not sizes[inside].any():
            continue
        order = np.argsort(-scores, kind="stable")
        correct, last = np.cumsum((inside * sizes)[order]), np.append(np.diff(scores[order]) != 0, True)
        precise = last & (correct >= precision * np.cumsum(sizes[order]))
        found.append(float(correct[precise].max(initial=0) / sizes[inside].sum()))
    return float(np.mean(found)) if found else 0.0


def calibration_error(
    truth: Floats, prediction: Floats, weights: Floats | None = None, positive: int = SECOND
) -> float:
    """Return the mean difference between predicted probabilities and observed shares over ten bins.

    With two classes, the probability and the share of the class with the index `positive` are compared. With more
    classes, the probability of the most probable class is compared with the share of correct rows. All bins have about
    the same number of rows (Nixon and others 2019, "Measuring Calibration in Deep Learning").
    """
    if prediction.shape[1] == 2:
        ((inside, scores),) = _classes(truth, prediction, positive)
    else:
        inside, scores = prediction.argmax(axis=1) == truth, prediction.max(axis=1)
    distances = scores - inside if weights is None else weights * (scores - inside)
    gaps = [
        abs(float(distances[bin_].sum()))
        for bin_ in np.array_split(np.argsort(scores, kind="stable"), CALIBRATION_BINS)
    ]
    return sum(gaps) / (len(truth) if weights is None else float(weights.sum()))


def _classes(truth: Floats, prediction: Floats, positive: int = SECOND) -> Iterator[tuple[NDArray[np.bool_], Floats]]:
    """Yield for each class the mask of its rows, and its probability in every row.

    With two classes, yield only the class with the index `positive`.
    """
    for index in range(prediction.shape[1]) if prediction.shape[1] > 2 else [positive]:
        yield truth == index, prediction[:, index]


def summarise(
    kind: Kind,
    truth: Floats,
    prediction: Floats,
    loss: str | None = None,
    losses: Floats | None = None,
    wanted: Collection[str] = (),
    weights: Floats | None = None,
    positive: int = SECOND,
) -> dict[str, float]:
    """Return the usual metrics for a regression or a classification.

    If `loss` is not one of the usual metrics, its name is added, with the mean of `losses` (the loss of each row).
    Metrics with a number in their name, such as `recall_at_precision_0.9`, are added if `wanted` contains their names.
    With `weights`, every metric is weighted. At least one weight must be above 0. `positive` is the index of the
    positive class of two classes. If a true value is 0, the result has no percentage error.
    """
    usual = {*LOSSES} - {*LOSSES_OF_PAIRS}
    own = {} if loss is None or loss in usual or losses is None else {loss: average(losses, weights)}
    if kind == "regression":
        values = prediction[:, 0]
        percentage = {}
        if truth.all():  # else the error of a row is divided by 0
            percentage["mean_absolute_percentage_error"] = average(_percentage_error(truth, prediction), weights)
        return own | {
            "mean_absolute_error": float(sk.mean_absolute_error(truth, values, sample_weight=weights)),
            "mean_squared_error": float(sk.mean_squared_error(truth, values, sample_weight=weights)),
            "root_mean_squared_error": float(sk.root_mean_squared_error(truth, values, sample_weight=weights)),
            "median_absolute_error": float(sk.median_absolute_error(truth, values, sample_weight=weights)),
            **percentage,
            "bias": average(values - truth, weights),
            "r_squared": float(sk.r2_score(truth, values, sample_weight=weights)) if len(truth) > 1 else 0.0,
        }
    chosen = prediction.argmax(axis=1)
    return own | {
        "log_loss": average(_log_loss(truth, prediction), weights),
        "brier_score": average(_brier_score(truth, prediction), weights),
        "error_rate": average(_error_rate(truth, prediction), weights),
        "balanced_accuracy": float(sk.balanced_accuracy_score(truth, chosen, sample_weight=weights)),
        "f1_macro": float(sk.f1_score(truth, chosen, average="macro", sample_weight=weights)),
        "roc_auc": roc_auc(truth, prediction, weights),
        "average_precision": average_precision(truth, prediction, weights, positive),
        "calibration_error": calibration_error(truth, prediction, weights, positive),
        **{
            name: recall_at_precision(truth, prediction, float(found[1]), weights, positive)
            for name in wanted
            if (found := RECALL_AT_PRECISION.fullmatch(name))
        },
    }


def naive_prediction(
    loss: str, kind: Kind, training_truth: Floats, classes: int, weights: Floats | None = None
) -> Floats:
    """Return the best constant prediction, with the shape [1, 1] or [1, classes].

    The constant minimises the loss on the training rows. For absolute errors, the constant is the median. For squared
    errors, the constant is the mean. For percentage errors, the constant is the median weighted by 1 / |value|. For a
    pinball loss, the constant is the quantile. For a Huber loss, a search finds the constant. For a classification, the
    constant is the share of each class. With `weights`, the constant minimises the weighted loss. If all weights are 0,
    the weights are ignored.
    """
    weights = None if weights is None or not weights.any() else weights
    if kind == "classification":
        counts = np.bincount(training_truth.astype(int), weights, minlength=classes)
        shares: Floats = counts / counts.sum()
        return shares[None, :]
    if loss == "mean_squared_error":
        return np.array([[average(training_truth, weights)]])
    name, number = loss_number(loss) or ("", 0.5)
    if name == "huber":
        low, high = training_truth.min(), training_truth.max()
        if low == high:
            return np.array([[low]])

        def mean_loss(constant: float) -> float:
            return average(_huber(number, training_truth, np.array([[constant]])), weights)

        return np.array([[minimize_scalar(mean_loss, bounds=(low, high), method="bounded").x]])
    # Without weights, NumPy does not sort the values. Sorting would need eight times as much memory.
    if loss == "mean_absolute_percentage_error":
        weights = (1.0 if weights is None else weights) / np.abs(training_truth)
    return np.array([[np.quantile(training_truth, number, weights=weights, method="inverted_cdf")]])
