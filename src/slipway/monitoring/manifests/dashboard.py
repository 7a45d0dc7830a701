"""The dashboard of Grafana, in a ConfigMap that its sidecar finds. Each feature of the model has a panel."""

import json
import re
from typing import Any

from slipway.bundle import Column
from slipway.config import Drift
from slipway.monitoring.manifests import read
from slipway.monitoring.manifests.alert_rules import LABELS, PREDICTIONS

Panel = dict[str, Any]

HERE = 'namespace="$namespace"'
MILLISECONDS_A_DAY = 86_400_000
QUARTILES = {"upper quarter": 0.75, "median": 0.5, "lower quarter": 0.25}
ACROSS, WIDTH, HEIGHT = 24, 6, 7
"""Of the screen and of a panel, in Grafana's units."""


class Dashboard:
    """The ConfigMap; python-kustomize calls `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Read params.yaml and src/model; raises InputError where they are wrong."""
        params, columns = read()
        title = params.record.experiment
        name = re.sub(r"[^a-z0-9]+", "-", f"slipway-{title.lower()}")[:40]
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "model-dashboard", "labels": {**LABELS, "grafana_dashboard": "1"}},
            "data": {f"{name}.json": json.dumps(graphs(title, name, columns, params.drift), indent=1) + "\n"},
        }


def graphs(title: str, name: str, columns: tuple[Column, ...], drift: Drift) -> dict[str, Any]:
    return {
        "title": title,
        "uid": name,
        "tags": ["slipway"],
        "schemaVersion": 39,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_SOURCE, _NAMESPACE]},
        "panels": _placed(
            [_row("Service"), *_service(), _row("Model"), *_model(drift), _row("Features"), *_features(columns)]
        ),
    }


_SOURCE = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
_NAMESPACE = {
    "name": "namespace",
    "type": "query",
    "datasource": {"type": "prometheus", "uid": "$source"},
    "query": "label_values(slipway_model_info, namespace)",
    "refresh": 2,
}


def _service() -> list[Panel]:
    here = f"{HERE}, {PREDICTIONS}"
    rate = "rate(slipway_requests_total{%s}[$__rate_interval])"
    seconds = f"sum by (le) (rate(slipway_request_seconds_bucket{{{here}}}[$__rate_interval]))"
    shares = {"refused (503)": 'status="503"', "other 5xx": 'status=~"5..", status!="503"', "4xx": 'status=~"4.."'}
    of_replica = f"* on (namespace, pod, instance) slipway_model_info{{{HERE}}}"
    cpu = f"rate(process_cpu_seconds_total[$__rate_interval]) {of_replica}"
    memory = f"process_resident_memory_bytes {of_replica}"
    return [
        _panel("Requests", "reqps", {"{{route}} {{status}}": f"sum by (route, status) ({rate % HERE})"}),
        _panel(
            "Errors, of predictions",
            "percentunit",
            {
                legend: f"(sum({rate % f'{here}, {which}'}) or vector(0)) / sum({rate % here})"
                for legend, which in shares.items()
            },
        ),
        _panel(
            "Time to answer",
            "s",
            {"p99": f"histogram_quantile(0.99, {seconds})", "p50": f"histogram_quantile(0.5, {seconds})"},
        ),
        _panel("In flight", "short", {"all replicas": f"sum(slipway_requests_in_flight{{{HERE}}})"}),
        _panel("Core, of each replica", "percentunit", {"largest": f"max({cpu})", "mean": f"avg({cpu})"}),
        _panel("Memory, of each replica", "bytes", {"largest": f"max({memory})"}),
    ]


def _model(drift: Drift) -> list[Panel]:
    missing = f'slipway:rows:rate{{{HERE}, bin="(missing)"}}'
    psi = f'slipway:drift:psi{{{HERE}, %s!=""}}'
    return [
        _panel("Replicas, by bundle", "short", {"{{bundle}}": f"count by (bundle) (slipway_model_info{{{HERE}}})"}),
        _panel(
            "Predictions", "short", _quartiles('output!=""', "{{output}} "), "Quarters, in the bins of the training."
        ),
        _panel(
            "Drift",
            "short",
            {"{{feature}}": psi % "feature", "prediction {{output}}": psi % "output"},
            f"Population stability index of the last {drift.window} beside the training; of few rows it is noise.",
            limit=drift.psi,
        ),
        _panel(
            "Missing",
            "percentunit",
            {"{{feature}}": f"sum by (feature) ({missing}) / sum by (feature) (slipway:rows:rate{{{HERE}}})"},
        ),
    ]


def _features(columns: tuple[Column, ...]) -> list[Panel]:
    return [_category(each.name) if each.type == "category" else _number(each) for each in columns]


def _number(column: Column) -> Panel:
    feature = f"feature={json.dumps(column.name)}"
    if column.type == "date":
        return _panel(column.name, "dateTimeAsIso", _quartiles(feature, scale=f" * {MILLISECONDS_A_DAY}"))
    return _panel(column.name, "short", _quartiles(feature))


def _category(name: str) -> Panel:
    of = f"{HERE}, feature={json.dumps(name)}"
    return _panel(
        name,
        "percentunit",
        {"{{bin}}": f"slipway:rows:share{{{of}}}", "{{bin}}, training": f"slipway:training_rows:share{{{of}}}"},
    )


def _quartiles(which: str, legend: str = "", scale: str = "") -> dict[str, str]:
    rows = f"sum by (output, le) (slipway:rows_up_to:rate{{{HERE}, {which}}})"
    return {f"{legend}{name}": f"histogram_quantile({share}, {rows}){scale}" for name, share in QUARTILES.items()}


def _panel(title: str, unit: str, queries: dict[str, str], description: str = "", limit: float | None = None) -> Panel:
    """A graph over time; `queries` by their legends."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    style: dict[str, Any] = {"showPoints": "never"}
    if limit is not None:
        steps.append({"color": "red", "value": limit})
        style["thresholdsStyle"] = {"mode": "line"}
    return {
        "title": title,
        "type": "timeseries",
        "description": description,
        "datasource": {"type": "prometheus", "uid": "$source"},
        "fieldConfig": {
            "defaults": {"unit": unit, "custom": style, "thresholds": {"mode": "absolute", "steps": steps}}
        },
        "options": {"tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend}
            for i, (legend, query) in enumerate(queries.items())
        ],
    }


def _row(title: str) -> Panel:
    return {"title": title, "type": "row", "collapsed": False, "panels": []}


def _placed(panels: list[Panel]) -> list[Panel]:
    """From left to right, each row title on a line of its own."""
    x = y = 0
    placed = []
    for number, panel in enumerate(panels, start=1):
        width, height = (ACROSS, 1) if panel["type"] == "row" else (WIDTH, HEIGHT)
        if x + width > ACROSS:
            x, y = 0, y + HEIGHT
        placed.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel})
        x, y = (0, y + 1) if panel["type"] == "row" else (x + width, y)
    return placed


dashboard = Dashboard()
