"""Each metric of both models on the same rows, with an interval of the difference."""

import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray

from slipway.artifacts import Evaluation, Verdict
from slipway.config import Params
from slipway.pipeline.columns import GROUP
from slipway.pipeline.evaluate import TRUTH
from slipway.pipeline.gate import answers_of
from slipway.review.report import MetricRow
from slipway.statistics.metrics import summarise

RESAMPLES = 300
"""Enough to see about how sure a difference is. The gate itself draws many more, of the one loss that decides."""


def metric_rows(
    scores: pd.DataFrame, evaluation: Evaluation, verdict: Verdict, params: Params
) -> tuple[MetricRow, ...]:
    """A row for each metric, first the loss by which models are judged, with the interval that the gate found.

    The others have a percentile bootstrap of challenger minus champion, by rows or by the groups held out.
    """
    champion = evaluation.champion
    intervals = _intervals(scores, params) if champion else {}
    if champion and verdict.comparison:
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


def _intervals(scores: pd.DataFrame, params: Params) -> dict[str, tuple[float, float]]:
    truth = scores[TRUTH].to_numpy()
    answers = [answers_of(name, scores) for name in ("champion", "challenger")]
    tail = (1 - params.gate.confidence) / 2
    differences = []
    # `evaluate` has checked that all are finite; checking each resample again would take half of the time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for rows in _draws(scores, params.gate.seed):
            before, after = (summarise(params.task.kind, truth[rows], each[rows]) for each in answers)
            differences.append({metric: after[metric] - before[metric] for metric in after})
    quantiles = pd.DataFrame(differences).quantile([tail, 1 - tail])
    return {str(metric): (float(quantiles[metric].iloc[0]), float(quantiles[metric].iloc[1])) for metric in quantiles}


def _draws(scores: pd.DataFrame, seed: int) -> list[NDArray[np.int64]]:
    """The rows of each resample: drawn one by one, or a whole group at a time where groups were held out."""
    random = np.random.default_rng(seed)
    if GROUP not in scores:
        return [random.integers(len(scores), size=len(scores)) for _ in range(RESAMPLES)]
    groups = list(scores.groupby(GROUP).indices.values())
    drawn = (random.integers(len(groups), size=len(groups)) for _ in range(RESAMPLES))
    return [np.concatenate([groups[index] for index in chosen]) for chosen in drawn]
