"""The canary analysis: its metrics compare the canary with the stable replicas, which serve the same clients.

Each query returns the canary's value minus a limit, so a number above 0 is a failure. If there are too few requests,
the query returns nothing, and the metric is inconclusive. The canary's requests are counted from its start. The
requests of the stable replicas are counted in a window, because these replicas often run for weeks.
"""

from math import log, pi, sqrt
from statistics import NormalDist
from typing import Any

from slipway.artifacts import PARAMS
from slipway.config import Drift, load_params
from slipway.contract import load_model
from slipway.monitoring.manifests.alert_rules import ERRORS, LABELS, PREDICTIONS
from slipway.pipeline.tensors import describe

Metric = dict[str, Any]

FEWEST_REQUESTS = 100
"""Minimum number of requests to the canary, and to the stable replicas, before errors and latency are compared."""
QUANTILE = 0.95
SLOWER = 2
"""Maximum ratio of the canary's response time to the response time of the stable replicas."""
FAST_SECONDS = 0.01
"""A response time up to this limit is never too slow, even if the stable replicas are much faster."""
WINDOW = "5m"
"""Default time range in which the requests of the stable replicas are counted."""
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
CANARY = 'namespace="{{args.namespace}}", rollouts_pod_template_hash="{{args.canary}}"'
STABLE = 'namespace="{{args.namespace}}", rollouts_pod_template_hash="{{args.stable}}"'


class Analysis:
    """The Kubernetes object AnalysisTemplate. python-kustomize calls `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Build the AnalysisTemplate from params.yaml and src/model. Raises InputError if either is invalid."""
        params = load_params(PARAMS)
        describe(load_model(), params.task.kind, None)
        return analysis_template("model", metrics(params.drift), {"name": "window", "value": WINDOW})


def analysis_template(name: str, metrics: list[Metric], *arguments: dict[str, str]) -> dict[str, Any]:
    """Return an AnalysisTemplate. Each template has arguments for the pods to compare and for Prometheus."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": name, "labels": LABELS},
        "spec": {
            "args": [
                {"name": "namespace"},
                {"name": "canary"},
                {"name": "stable"},
                {"name": "prometheus", "value": PROMETHEUS},
                *arguments,
            ],
            "metrics": metrics,
        },
    }


def metrics(drift: Drift) -> list[Metric]:
    """Return the metrics for errors, latency and predictions.

    `drift` sets the confidence and the limit for predictions.
    """
    return [
        measured_once("errors", _errors(drift)),
        measured_once("latency", _latency()),
        measured_once("predictions", _predictions(drift)),
    ]


def measured_once(name: str, query: str) -> Metric:
    """Return a metric that is measured once. The metric is inconclusive if its query returns nothing."""
    return {
        "name": name,
        "successCondition": "len(result) > 0 && all(result, # <= 0)",
        "failureCondition": "any(result, # > 0)",
        "provider": {"prometheus": {"address": "{{args.prometheus}}", "query": query}},
    }


def _errors(drift: Drift) -> str:
    """Return the query for the share of failed requests, with an allowance for chance.

    The allowance depends on the number of the canary's requests. Refused records are failures too, because a canary
    that refuses more records breaks clients. Refusals because of overload (503) are not failures.
    """
    deviations = round(NormalDist().inv_cdf(drift.confidence), 2)
    total = f"slipway_requests_total{{%s, {PREDICTIONS}}}"
    failed = f'slipway_requests_total{{%s, {PREDICTIONS}, status!~"2..|503"}}'
    canary, stable = f"sum({total % CANARY})", f"sum({_rows(total % STABLE)})"
    limit = f"clamp_min((sum({_rows(failed % STABLE)}) or vector(0)) / {stable}, {ERRORS})"
    return (
        f"(sum({failed % CANARY}) or vector(0)) / {canary}\n- {limit}\n"
        f"- {deviations} * sqrt({limit} * (1 - {limit}) / {canary})\n"
        f"and {canary} >= {FEWEST_REQUESTS}\nand {stable} >= {FEWEST_REQUESTS}"
    )


def _latency() -> str:
    """Return the query for the 95th percentile of response times."""
    bucket, count = (f"slipway_request_seconds_{each}{{%s, {PREDICTIONS}}}" for each in ("bucket", "count"))
    canary = f"histogram_quantile({QUANTILE}, sum by (le) ({bucket % CANARY}))"
    stable = f"histogram_quantile({QUANTILE}, sum by (le) ({_rows(bucket % STABLE)}))"
    return (
        f"{canary}\n- clamp_min({SLOWER} * {stable}, {FAST_SECONDS})\n"
        f"and sum({count % CANARY}) >= {FEWEST_REQUESTS}\nand sum({_rows(count % STABLE)}) >= {FEWEST_REQUESTS}"
    )


def _predictions(drift: Drift) -> str:
    """Return the query for the Kolmogorov-Smirnov distance between the predictions of canary and stable replicas.

    The limit is derived from `drift.psi`. If a normal distribution shifts by d standard deviations, the PSI is d², and
    the distance is about d/√(2π). If the critical value of the Smirnov test at `drift.confidence` is larger than this
    distance, it is the limit instead.
    """
    limit = round(sqrt(drift.psi / (2 * pi)), 3)
    deviations = round(sqrt(-log((1 - drift.confidence) / 2) / 2), 2)
    bucket, count = (f"slipway_prediction_scale_{each}{{%s}}" for each in ("bucket", "count"))
    canary, stable = f"sum by (output) ({count % CANARY})", f"sum by (output) ({_rows(count % STABLE)})"
    share = "(sum by (output, le) (%s) / on (output) group_left () %s)"
    return (
        f"max by (output) (abs(\n  {share % (bucket % CANARY, canary)}\n"
        f"  - {share % (_rows(bucket % STABLE), stable)}\n))\n"
        f"- clamp_min({deviations} * sqrt(1 / {canary} + 1 / {stable}), {limit})\n"
        f"and {canary} >= {drift.minimum_rows}\nand {stable} >= {drift.minimum_rows}"
    )


def _rows(series: str) -> str:
    return f"increase({series}[{{{{args.window}}}}])"


template = Analysis()
