"""The rules of Prometheus. They name no feature and no bin: each replica says what its model was trained on.

So they are true of every model: after a release, a rollback, and in the middle of both. All is told apart by namespace,
and drift by bundle too.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from slipway.config import Drift
from slipway.monitoring.manifests import read

Rule = dict[str, Any]

PREDICTIONS = 'route=~"/predict|/invocations|/v2/infer"'
OF_BUNDLE = "* on (namespace, pod, instance) group_left (bundle) slipway_model_info"
DISTRIBUTION = "namespace, bundle, feature, output"
LABELS = {"app.kubernetes.io/name": "model", "app.kubernetes.io/component": "server"}

ERRORS = 0.01
"""Share of requests. The same for those refused."""
FEWEST = 5
"""Errors in five minutes, so that one of two requests at night wakes nobody."""
P99_SECONDS = 0.25
"""A record takes a millisecond, a thousand take twenty; beyond this they wait for others, or arrive slowly."""
CORE = 0.8
"""A replica has one thread, hence one core at most; the autoscaler means to keep it below a fifth of that."""
IN_FLIGHT = 32
"""A replica. At twice as many bodies that still arrive (SLIPWAY_MAX_UPLOADS) it refuses."""
MIXED = "20m"
"""Twice as long as a release waits (release.timeout_seconds in params.yaml)."""
STALE_DAYS = 200
"""The sample's data comes every half year."""


@dataclass(frozen=True)
class Timing:
    """How often rows are counted."""

    every: str = "2m"
    rate: str = "5m"
    step: int = 300
    """Seconds between the rates that are added up; as long as one looks back, so that each row counts once."""


class Alerts:
    """The PrometheusRule; python-kustomize calls `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Read params.yaml and src/model; raises InputError where they are wrong."""
        params, columns = read()
        compared = 1 + sum(column.type != "date" for column in columns)
        return {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "model", "labels": LABELS},
            "spec": {"groups": groups(params.drift, compared, Timing())},
        }


def groups(drift: Drift, compared: int, timing: Timing) -> list[Rule]:
    """`compared`: how many features and predictions there are, for the confidence over all of them."""
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
            "The log of the replicas names each error. If a release brought it: `slipway rollback`.",
        ),
        _alert(
            "SlipwayRefuses",
            f"{refused}\n/ {requests}\n> {ERRORS}\nand {refused} * 300 > {FEWEST}",
            "5m",
            "warning",
            "{{ $value | humanizePercentage }} of the requests in {{ $labels.namespace }} are refused: too many come.",
            "The autoscaler should add replicas; look whether it can, and whether their nodes start.",
        ),
        _alert(
            "SlipwaySlow",
            f"histogram_quantile(0.99, {seconds}) > {P99_SECONDS}",
            "10m",
            "warning",
            "One request in a hundred in {{ $labels.namespace }} takes {{ $value | humanizeDuration }} or longer.",
            "If replicas are busy too, they are too few. If not, clients send slowly, or very many records at once.",
        ),
        _alert(
            "SlipwayBusy",
            "avg by (namespace) (\n"
            "  rate(process_cpu_seconds_total[5m]) * on (namespace, pod, instance) group_left () slipway_model_info\n"
            f") > {CORE}",
            "10m",
            "warning",
            "The replicas in {{ $labels.namespace }} use {{ $value | humanizePercentage }} of the core that each has.",
            "The autoscaler should have added replicas long before; look at its events.",
        ),
        _alert(
            "SlipwayQueues",
            f"avg by (namespace) (slipway_requests_in_flight) > {IN_FLIGHT}",
            "5m",
            "warning",
            "{{ $value | humanize }} requests are in flight in each replica in {{ $labels.namespace }}.",
            "Replicas are too few, or clients send their bodies slowly.",
        ),
        _alert(
            "SlipwayAtMaximum",  # as kube-state-metrics tells it; without that it is quiet
            f"{autoscaler % 'status_current'}\n>= {autoscaler % 'spec_max'}\n"
            "and on (namespace) group by (namespace) (slipway_model_info)",
            "15m",
            "warning",
            "The autoscaler in {{ $labels.namespace }} is at its maximum of {{ $value }} replicas.",
            "Raise maxReplicas in the overlay, or find out which client asks so much.",
        ),
        _alert(
            "SlipwayGone",
            "group by (namespace) (max_over_time(slipway_model_info[1h]))\n"
            "unless group by (namespace) (slipway_model_info)",
            "2m",
            "critical",
            "No replica in {{ $labels.namespace }} answers Prometheus, and within the hour some did.",
            "`kubectl get pods` there. If the environment was taken down, this ends by itself after an hour.",
        ),
    ]


def _release() -> list[Rule]:
    since, live = "slipway:model_since:seconds", "group by (namespace, bundle) (slipway_model_info)"
    return [
        # When Prometheus first saw the bundle there; it remembers through a week without Prometheus.
        _record(since, f"(min_over_time({since}[7d]) or {live} * time())\nand {live}"),
        _alert(
            "SlipwayStale",
            f"(time() - max by (namespace) ({since})) / 86400 > {STALE_DAYS}",
            "1h",
            "warning",
            '{{ $labels.namespace }} serves the same model for {{ printf "%.0f" $value }} days.',
            "Look why nothing has shipped: no new data, pull requests that are held, or a release that stopped.",
        ),
        _alert(
            "SlipwayMixed",
            "count by (namespace) (count by (namespace, bundle) (slipway_model_info)) > 1",
            MIXED,
            "warning",
            "{{ $value }} models answer in {{ $labels.namespace }} at the same time.",
            "A rollout hangs. `slipway status` says what should be live, `kubectl describe` why replicas do not start.",
        ),
    ]


def _counts(window: str, timing: Timing) -> list[Rule]:
    """How many rows each bin got within the window, and in the training, by bundle."""
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
    """For each bin of a number, the rows up to one of its edges: `bin` is the upper, `above` the lower."""
    return (
        f"  (slipway:training_rows * 0 + on ({DISTRIBUTION}, {edge}) group_left ()\n"
        f'    label_replace(slipway:rows_up_to:rate, "{edge}", "$1", "le", "(.+)"))'
    )


def _drift(drift: Drift, compared: int) -> list[Rule]:
    """The rule of slipway.monitoring.drift: the index above what is allowed, above the noise, and of rows enough.

    PromQL has no quantile of chi-square; Wilson and Hilferty's formula has it from that of the normal distribution.
    """
    deviations = round(NormalDist().inv_cdf(1 - (1 - drift.confidence) / compared), 2)
    degrees, share = "slipway:drift:degrees", "slipway:%s:share"
    now, trained = share % "rows", share % "training_rows"
    moved = (
        f"slipway:drift:psi{{%s}} > {drift.psi:g}\nand slipway:drift:psi > slipway:drift:noise\n"
        f"and sum by ({DISTRIBUTION}) (slipway:rows) >= {drift.minimum_rows}"
    )
    what_next = "`slipway drift` tells more. Retrain on newer data, or look what changed where this comes from."
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
            "{{ $labels.feature }} in {{ $labels.namespace }} is not distributed as in the training "
            '(PSI {{ printf "%.2f" $value }}).',
            what_next,
        ),
        _alert(
            "SlipwayPredictionDrift",
            moved % 'output!=""',
            "1h",
            "warning",
            "Predictions of {{ $labels.output }} in {{ $labels.namespace }} are not distributed as in the training "
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
