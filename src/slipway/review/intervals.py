"""Compute the metrics of both models on the same rows, and confidence intervals for the differences."""

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray

from slipway.artifacts import Evaluation, Verdict
from slipway.config import Params
from slipway.pipeline.columns import GROUP, TIME, TRUTH
from slipway.pipeline.gate import answers_of
from slipway.review.report import MetricRow
from slipway.statistics.blocks import estimates_of
from slipway.statistics.metrics import summarise


def metric_rows(
    scores: pd.DataFrame, evaluation: Evaluation, verdict: Verdict, params: Params
) -> tuple[MetricRow, ...]:
    """Return a row for each metric. The first row is the loss that the gate compares, with the gate's interval.

    For other metrics, the interval is for the challenger's value minus the champion's. It takes days and groups into
    account in the same way as the gate, and is None if there are too few days or groups.
    """
    champion = evaluation.champion
    intervals = _intervals(scores, params) if champion else {}
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


def _intervals(scores: pd.DataFrame, params: Params) -> dict[str, tuple[float, float] | None]:
    truth = scores[TRUTH].to_numpy()
    answers = [answers_of(name, scores) for name in ("champion", "challenger")]

    losses = [scores[f"{name}_loss"].to_numpy() for name in ("champion", "challenger")]

    def differences(rows: NDArray[np.bool_]) -> dict[str, float]:
        before, after = (
            summarise(params.task.kind, truth[rows], each[rows], params.task.loss, loss[rows], params.gate.floors)
            for each, loss in zip(answers, losses, strict=True)
        )
        return {metric: after[metric] - before[metric] for metric in after}

    # `evaluate` has checked that all values are finite. Repeating the check would double the time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        estimates = estimates_of(
            differences,
            len(scores),
            times=scores[TIME].to_numpy() if TIME in scores else None,
            groups=scores[GROUP].to_numpy() if GROUP in scores else None,
        )
    return {metric: estimate.interval(params.gate.confidence) for metric, estimate in estimates.items()}
