"""The Prometheus alert and recording rules.

The rules name no features and no bins, because each replica exports the distribution of its own training data. The
rules are therefore correct for every model, even while a release or a rollback is in progress. All rules aggregate by
namespace. The drift rules also aggregate by bundle.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from slipway.artifacts import PARAMS
from slipway.config import Drift, load_params
from slipway.contract import load_model
from slipway.pipeline.tensors import describe

Rule = dict[str, Any]

PREDICTIONS = 'route=~"/predict|/invocations|/v2/infer"'
OF_BUNDLE = "* on (namespace, pod, instance) group_left (bundle) slipway_model_info"
DISTRIBUTION = "namespace, bundle, feature, output"
LABELS = {"app.kubernetes.io/name": "model", "app.kubernetes.io/component": "server"}

ERRORS = 0.01
"""Maximum share of failed requests, and maximum share of refused requests."""
FEWEST = 5
"""Minimum number of errors in five minutes for an alert.

Without this minimum, one error could raise an alert at low traffic.
"""
P99_SECONDS = 0.25
"""Maximum 99th percentile of response times. One record takes 1 ms, and 1,000 records take 20 ms.

A request takes longer only if it had to wait, or if its body arrived slowly.
"""
CORE = 0.8
"""Maximum CPU use of a replica, which has one thread, as a share of a core.

The autoscaler's target is a fifth of a core.
"""
IN_FLIGHT = 32
"""Maximum number of open requests per replica.

This number is half of SLIPWAY_MAX_UPLOADS, the number of simultaneous uploads beyond which a replica refuses requests.
"""
MIXED = "20m"
"""Time after which two models in one environment raise an alert: twice release.timeout_seconds in params.yaml."""
STALE_DAYS = 200
"""Maximum age of a released model in days. The sample gets a new delivery every half year."""


@dataclass(frozen=True)
class Timing:
    """The intervals at which Prometheus counts rows.

    `every` is the time between two evaluations. `rate` is the time range over which a rate is computed.
    """

    every: str = "2m"
    rate: str = "5m"
    step: int = 300
    """Seconds between two rates that are added up. This number equals `rate`, so that each row is counted once."""


class Alerts:
    """The Kubernetes object PrometheusRule. python-kustomize calls `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Build the PrometheusRule from params.yaml and src/model. Raises InputError if either is invalid."""
        params = load_params(PARAMS)
        columns = describe(load_model(), params.task.kind, None).columns
        compared = 1 + sum(column.type != "date" for column in columns)
        return {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "model", "labels": LABELS},
            "spec": {"groups": groups(params.drift, compared, Timing())},
        }


def groups(drift: Drift, compared: int, timing: Timing) -> list[Rule]:
    """Return all alert and recording rules, in groups.

    `compared` is the number of features and predictions that are compared with the training data. The confidence in
    `drift` applies to all these comparisons together.
    """
    return [
        {"name": "slipway", "interval": "30s", "rules": [*_service(), *_release()]},
        {
            "name": "slipway-drift",
            "interval": timing.every,
            "rules": [*_counts(drift.window, timing), *_drift(drift, compared)],
        },
    ]


def _service() -> list[Rule]:
    errors = f'sum by (namespace) (rate(slipway_requests_total{{{PREDICTIONS}, status=~"5..", status!="503"}}[5m]))'
    refused = f'sum by (namespace) (rate(slipway_requests_total{{{PREDICTIONS}, status="503"}}[5m]))'
    requests = f"sum by (namespace) (rate(slipway_requests_total{{{PREDICTIONS}}}[5m]))"
    seconds = f"sum by (namespace, le) (rate(slipway_request_seconds_bucket{{{PREDICTIONS}}}[5m]))"
    autoscaler = 'max by (namespace) (kube_horizontalpodautoscaler_%s_replicas{horizontalpodautoscaler="model"})'
    return [
        _alert(
            "SlipwayErrors",
            f"{errors}\n/ {requests}\n> {ERRORS}\nand {errors} * 300 > {FEWEST}",
            "5m",
            "critical",
            "{{ $value | humanizePercentage }} of the requests in {{ $labels.namespace }} fail.",
            "The logs of the replicas show each error. If a release caused it, run `slipway rollback`.",
        ),
        _alert(
            "SlipwayRefuses",
            f"{refused}\n/ {requests}\n> {ERRORS}\nand {refused} * 300 > {FEWEST}",
            "5m",
            "warning",
            "{{ $value | humanizePercentage }} of requests in {{ $labels.namespace }} are refused because of overload.",
            "The autoscaler should add replicas. Check that it can, and that their nodes start.",
        ),
        _alert(
            "SlipwaySlow",
            f"histogram_quantile(0.99, {seconds}) > {P99_SECONDS}",
            "10m",
            "warning",
            "One request in a hundred in {{ $labels.namespace }} takes {{ $value | humanizeDuration }} or longer.",
            "If the replicas are busy too, add replicas. If not, clients send slowly or in very large batches.",
        ),
        _alert(
            "SlipwayBusy",
            "avg by (namespace) (\n"
            "  rate(process_cpu_seconds_total[5m]) * on (namespace, pod, instance) group_left () slipway_model_info\n"
            f") > {CORE}",
            "10m",
            "warning",
            "The replicas in {{ $labels.namespace }} use {{ $value | humanizePercentage }} of the core that each has.",
            "The autoscaler should have added replicas before. Check its events.",
        ),
        _alert(
            "SlipwayQueues",
            f"avg by (namespace) (slipway_requests_in_flight) > {IN_FLIGHT}",
            "5m",
            "warning",
            "{{ $value | humanize }} requests are in flight in each replica in {{ $labels.namespace }}.",
            "Add replicas, or find the clients that send their bodies slowly.",
        ),
        _alert(
            "SlipwayAtMaximum",  # needs the metrics of kube-state-metrics
            f"{autoscaler % 'status_current'}\n>= {autoscaler % 'spec_max'}\n"
            "and on (namespace) group by (namespace) (slipway_model_info)",
            "15m",
            "warning",
            "The autoscaler in {{ $labels.namespace }} is at its maximum of {{ $value }} replicas.",
            "Raise maxReplicas in the overlay, or find the client that sends so many requests.",
        ),
        _alert(
            "SlipwayGone",
            "group by (namespace) (max_over_time(slipway_model_info[1h]))\n"
            "unless group by (namespace) (slipway_model_info)",
            "2m",
            "critical",
            "No replica in {{ $labels.namespace }} answers Prometheus any more.",
            "Run `kubectl get pods` there. If the environment was removed, the alert ends after an hour.",
        ),
    ]


def _release() -> list[Rule]:
    since, live = "slipway:model_since:seconds", "group by (namespace, bundle) (slipway_model_info)"
    return [
        # The time of the bundle's first scrape in the namespace. This time is kept if Prometheus is down for less than
        # a week.
        _record(since, f"(min_over_time({since}[7d]) or {live} * time())\nand {live}"),
        _alert(
            "SlipwayStale",
            f"(time() - max by (namespace) ({since})) / 86400 > {STALE_DAYS}",
            "1h",
            "warning",
            '{{ $labels.namespace }} has served the same model for {{ printf "%.0f" $value }} days.',
            "Find out why nothing has shipped: no new data, held pull requests, or a failed release.",
        ),
        _alert(
            "SlipwayMixed",
            "count by (namespace) (count by (namespace, bundle) (slipway_model_info)) > 1",
            MIXED,
            "warning",
            "{{ $value }} models answer in {{ $labels.namespace }} at the same time.",
            "A rollout hangs. `slipway status` shows what should be live, `kubectl describe` why pods do not start.",
        ),
    ]


def _counts(window: str, timing: Timing) -> list[Rule]:
    """Return the rules that count the rows in the window and the training rows, for each bundle and bin."""
    bins = f"{DISTRIBUTION}, bin"
    upper, lower = _up_to("bin"), _up_to("above")
    values, missing = (f"rate(slipway_feature_{each}_total[{timing.rate}])" for each in ("values", "missing"))
    return [
        _record("slipway:training_rows", f"max by ({bins}, above) (\n  slipway_training_rows\n  {OF_BUNDLE}\n)"),
        _record(
            "slipway:rows_up_to:rate",
            f"sum by ({DISTRIBUTION}, le) (\n"
            f'  rate({{__name__=~"slipway_(feature|prediction)_bucket"}}[{timing.rate}])\n'
            f"  {OF_BUNDLE}\n)",
        ),
        _record(
            "slipway:rows:rate",
            f"sum by ({bins}) (\n{upper}\n-\n{lower}\nor\n{upper}\n)\n"
            f'or sum by ({bins}) (\n  label_replace({values}, "bin", "$1", "value", "(.*)")\n  {OF_BUNDLE}\n)\n'
            f'or sum by ({bins}) (\n  label_replace({missing}, "bin", "(missing)", "", "")\n  {OF_BUNDLE}\n)\n'
            f"and on ({bins}) slipway:training_rows",
        ),
        _record("slipway:rows", f"sum_over_time(slipway:rows:rate[{window}:{timing.step}s]) * {timing.step}"),
    ]


def _up_to(edge: str) -> str:
    """Return a query for the number of rows below the upper edge (`bin`) or the lower edge (`above`) of each bin."""
    return (
        f"  (slipway:training_rows * 0 + on ({DISTRIBUTION}, {edge}) group_left ()\n"
        f'    label_replace(slipway:rows_up_to:rate, "{edge}", "$1", "le", "(.+)"))'
    )


def _drift(drift: Drift, compared: int) -> list[Rule]:
    """Return the drift rules. The rules compute the PSI and the noise in the same way as `slipway.monitoring.drift`.

    PromQL has no function for chi-square quantiles. The approximation of Wilson and Hilferty (1931) computes them from
    normal quantiles.
    """
    deviations = round(NormalDist().inv_cdf(1 - (1 - drift.confidence) / compared), 2)
    degrees, share = "slipway:drift:degrees", "slipway:%s:share"
    now, trained = share % "rows", share % "training_rows"
    moved = (
        f"slipway:drift:psi{{%s}} > {drift.psi:g}\nand slipway:drift:psi > slipway:drift:noise\n"
        f"and sum by ({DISTRIBUTION}) (slipway:rows) >= {drift.minimum_rows}"
    )
    what_next = "Run `slipway drift` for details. Retrain on newer data, or check the source of this feature."
    return [
        *(
            _record(
                name,
                f"sum by ({DISTRIBUTION}, bin) (\n  ({rows} + 0.5)\n"
                f"  / on ({DISTRIBUTION}) group_left () sum by ({DISTRIBUTION}) ({rows} + 0.5)\n)",
            )
            for name, rows in ((now, "slipway:rows"), (trained, "slipway:training_rows"))
        ),
        _record("slipway:drift:psi", f"sum by ({DISTRIBUTION}) (({now} - {trained}) * ln({now} / {trained}))"),
        _record("slipway:drift:psi_limit", f"vector({drift.psi:g})"),
        _record(degrees, f"count by ({DISTRIBUTION}) (slipway:training_rows) - 1"),
        _record(
            "slipway:drift:noise",
            f"(1 / sum by ({DISTRIBUTION}) (slipway:rows) + 1 / sum by ({DISTRIBUTION}) (slipway:training_rows))\n"
            f"* {degrees} * (1 - 2 / (9 * {degrees}) + {deviations} * sqrt(2 / (9 * {degrees}))) ^ 3",
        ),
        _alert(
            "SlipwayFeatureDrift",
            moved % 'feature!=""',
            "1h",
            "warning",
            "{{ $labels.feature }} in {{ $labels.namespace }} is distributed differently from the training data "
            '(PSI {{ printf "%.2f" $value }}).',
            what_next,
        ),
        _alert(
            "SlipwayPredictionDrift",
            moved % 'output!=""',
            "1h",
            "warning",
            "{{ $labels.output }} in {{ $labels.namespace }} is predicted with another distribution than in training "
            '(PSI {{ printf "%.2f" $value }}).',
            what_next,
        ),
    ]


def _record(name: str, expression: str) -> Rule:
    return {"record": name, "expr": expression}


def _alert(name: str, expression: str, for_: str, severity: str, summary: str, description: str) -> Rule:
    return {
        "alert": name,
        "expr": expression,
        "for": for_,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


alerts = Alerts()
