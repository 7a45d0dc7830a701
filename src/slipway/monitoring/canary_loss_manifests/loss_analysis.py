"""The canary analysis of the loss on requests whose truth is known. It compares the canary with the stable replicas.

`slipway join` pushes the loss by bundle and day (`slipway.monitoring.loss_gauges`). Only days on which both bundles
answered requests are compared, because the loss can differ between days. Without enough truths, the metric is
inconclusive.
"""

from statistics import NormalDist
from typing import Any

from slipway.artifacts import PARAMS
from slipway.config import Decay, Drift, load_params
from slipway.monitoring.canary_manifests.analysis import CANARY, STABLE, Metric, analysis_template, measured_once
from slipway.monitoring.loss_gauges import ERROR, LOSS, ROWS


class LossAnalysis:
    """The Kubernetes object AnalysisTemplate. python-kustomize calls `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Build the object from params.yaml. Raises InputError if params.yaml is invalid."""
        params = load_params(PARAMS)
        return analysis_template("model-loss", [loss(params.drift, params.decay)])


def loss(drift: Drift, decay: Decay) -> Metric:
    """Return the metric for the difference of the losses, weighted by the canary's rows of each day.

    The allowed difference is the margin of `decay`, plus an allowance for chance at the confidence of `drift`. Both
    bundles need `decay.minimum_rows` rows.
    """
    deviations = round(NormalDist().inv_cdf(drift.confidence), 2)
    rows, mean, error = (_by_day(name, CANARY) for name in (ROWS, LOSS, ERROR))
    stable_rows, stable_mean, stable_error = (_by_day(name, STABLE) for name in (ROWS, LOSS, ERROR))
    common, stable_common = f"sum({rows} and {stable_rows})", f"sum({stable_rows} and {rows})"
    excess = f"sum({rows} * ({mean} - {stable_mean} - {decay.margin} * abs({stable_mean})))"
    noise = f"sqrt(sum(({rows}) ^ 2 * (({error}) ^ 2 + ({1 + decay.margin} * {stable_error}) ^ 2)))"
    return measured_once(
        "loss",
        f"({excess}\n- {deviations} * {noise})\n/ {common}\n"
        f"and {common} >= {decay.minimum_rows}\nand {stable_common} >= {decay.minimum_rows}",
    )


def _by_day(gauge: str, replicas: str) -> str:
    """Return a query for the daily values of a gauge, for the bundle that the selected replicas serve."""
    return f"max by (day) ({gauge} and on (bundle) slipway_model_info{{{replicas}}})"


template = LossAnalysis()
