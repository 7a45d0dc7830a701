"""Compute the metrics of each model on the same rows, and confidence intervals for metrics and their differences."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray

from slipway.artifacts import Evaluation, Verdict
from slipway.config import Params
from slipway.pipeline.columns import GROUP, TIME, TRUTH, WEIGHT
from slipway.pipeline.gate import answers_of, weights_of
from slipway.review.report import MetricRow
from slipway.statistics.blocks import estimates_of
from slipway.statistics.metrics import SECOND, summarise

Interval = tuple[float, float] | None
Mask = NDArray[np.bool_]
Figures = Callable[[Mask], dict[str, float]]


def metric_rows(
    scores: pd.DataFrame, evaluation: Evaluation, verdict: Verdict, params: Params
) -> tuple[MetricRow, ...]:
    """Return a row for each metric. The first row is the loss that the gate compares, with the gate's interval.

    In all other rows, the interval is for the challenger's value minus the champion's. All intervals take days and
    groups into account in the same way as the gate. An interval is None if there are too few days or groups.
    """
    champion = evaluation.champion
    intervals = _difference_intervals(scores, params, evaluation.positive_index) if champion else {}
    if champion and verdict.comparison and verdict.comparison.interval:
        low, high = verdict.comparison.interval
        intervals[params.task.loss] = (0.0 - high, 0.0 - low)
    return tuple(
        MetricRow(
            metric=metric,
            champion=champion.metrics[metric] if champion else None,
            challenger=evaluation.challenger.metrics[metric],
            baseline=evaluation.baseline.metrics[metric],
            interval=intervals.get(metric),
        )
        for metric in sorted(evaluation.challenger.metrics, key=lambda name: name != params.task.loss)
    )


def metric_intervals(
    scores: pd.DataFrame, params: Params, contender: str, positive: int = SECOND
) -> dict[str, Interval]:
    """Return the interval of each metric of a model. An interval is None if there are too few days or groups."""
    scores = _weighted_rows(scores)
    return _intervals(scores, params, _figures(scores, params, contender, positive))


def _difference_intervals(scores: pd.DataFrame, params: Params, positive: int) -> dict[str, Interval]:
    scores = _weighted_rows(scores)
    champion, challenger = (_figures(scores, params, name, positive) for name in ("champion", "challenger"))

    def differences(rows: Mask) -> dict[str, float]:
        before, after = champion(rows), challenger(rows)
        return {metric: after[metric] - before[metric] for metric in after}

    return _intervals(scores, params, differences)


def _weighted_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Leave out the rows with the weight 0. If a sample contained only these rows, metrics would be undefined."""
    return scores[scores[WEIGHT] > 0] if WEIGHT in scores else scores


def _figures(scores: pd.DataFrame, params: Params, contender: str, positive: int) -> Figures:
    """Return a function that takes a mask of rows, and computes a model's metrics on these rows."""
    truth, answers = scores[TRUTH].to_numpy(), answers_of(contender, scores)
    losses, weights = scores[f"{contender}_loss"].to_numpy(), weights_of(scores)

    def figures(rows: Mask) -> dict[str, float]:
        return summarise(
            params.task.kind,
            truth[rows],
            answers[rows],
            params.task.loss,
            losses[rows],
            params.gate.floors,
            None if weights is None else weights[rows],
            positive,
        )

    return figures


def _intervals(scores: pd.DataFrame, params: Params, figures: Figures) -> dict[str, Interval]:
    # The check for finite values is left out, because `evaluate` made it already and repeating it would double the
    # time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        estimates = estimates_of(
            figures,
            len(scores),
            times=scores[TIME].to_numpy() if TIME in scores else None,
            groups=scores[GROUP].to_numpy() if GROUP in scores else None,
            weights=weights_of(scores),
        )
    return {metric: estimate.interval(params.gate.confidence) for metric, estimate in estimates.items()}
