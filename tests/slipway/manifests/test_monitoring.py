"""Alerts and dashboard fit the model, each alert fires only when it should, and each graph has data."""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

import model
from slipway.artifacts import PARAMS
from slipway.bundle import REFERENCE, Reference
from slipway.config import load_params
from slipway.monitoring.manifests import COMPONENTS, PREDICTION_LOG, SOURCES
from slipway.monitoring.manifests.alert_rules import Timing, groups
from slipway.statistics.psi import population_stability
from tests.slipway import prometheus
from tests.slipway.conftest import ROOT, Repository
from tests.slipway.manifests.rendering import kustomize, of
from tests.slipway.prometheus import Prometheus
from tests.slipway.serving.conftest import Serve
from tests.slipway.serving.test_prediction_log import marked
from tests.slipway.tools import require

Series = dict[str, str]
Bins = tuple[float, float, float]
WHERE = 'namespace="houses",pod="p%s",instance="i%s"'


# The manifests fit this model.


def compiled(folder: Path, cwd: Path = ROOT, path: str = str(ROOT / "src")) -> dict[str, str]:
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-m", "slipway.monitoring.manifests", str(folder)]
    subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True, text=True)
    return contents(folder)


def committed() -> dict[str, str]:
    files = contents(ROOT / COMPONENTS)
    return {name: text for name, text in files.items() if name.startswith((*SOURCES, PREDICTION_LOG))}


def contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_make_manifests_does_not_change_the_committed_alerts(tmp_path: Path) -> None:
    assert compiled(tmp_path / "compiled") == committed(), "run `make manifests`"


def test_the_alerts_follow_the_number_of_features_of_a_fork(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests/slipway/end_to_end/tumour_model", tmp_path / "model")
    params = (ROOT / "params.yaml").read_text()
    for old, new in {
        "regression #": "classification #",
        "mean_absolute_error\n": "log_loss\n",
        "r_squared: {at_least": "error_rate: {at_most",
    }.items():
        assert old in params
        params = params.replace(old, new)
    (tmp_path / "params.yaml").write_text(params.replace("experiment: house-prices", "experiment: Tumours!"))
    files = compiled(tmp_path / "compiled", tmp_path, f"{tmp_path}{os.pathsep}{ROOT / 'src'}")
    assert files.keys() == committed().keys()
    assert files != committed()
    assert not [name for name in model.FEATURES if name in "".join(files.values())]


def test_the_commented_release_label_works_when_uncommented(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize/components/monitoring", tmp_path / "monitoring")
    file = tmp_path / "monitoring/kustomization.yaml"
    file.write_text(re.sub("(?m)^# (patches:|  )", r"\1", file.read_text()))
    (tmp_path / "kustomization.yaml").write_text("components: [monitoring]\n")
    made = {each["kind"]: each["metadata"]["labels"] for each in yaml.safe_load_all(kustomize(tmp_path))}
    assert {kind: labels.get("release") for kind, labels in made.items()} == {
        "ServiceMonitor": "NAME",
        "PrometheusRule": "NAME",
        "ConfigMap": None,
    }


# Each alert fires when it should, and only then.


def alerts() -> dict[str, Any]:
    return dict(of("production", ("monitoring",))["PrometheusRule"]["spec"])


def info(replica: int = 1, bundle: str = "b1", values: str = "1x400") -> Series:
    return {f'slipway_model_info{{{where(replica)},name="model",bundle="{bundle}"}}': values}


def where(replica: int) -> str:
    return WHERE % (replica, replica)


def answers(status: int, a_minute: float, route: str = "/predict") -> Series:
    return {f'slipway_requests_total{{{where(1)},route="{route}",status="{status}"}}': f"0+{a_minute}x400"}


def seconds(fast: float, slow: float) -> Series:
    """Return the histogram of `fast` requests a minute below 0.25 s, and `slow` ones below 0.5 s."""
    name = f'slipway_request_seconds_bucket{{{where(1)},route="/predict",le="%s"}}'
    return {
        name % "0.25": f"0+{fast}x400",
        name % "0.5": f"0+{fast + slow}x400",
        name % "+Inf": f"0+{fast + slow}x400",
    }


def autoscaler(now: int, most: int, namespace: str = "houses") -> Series:
    name = f'kube_horizontalpodautoscaler_%s_replicas{{namespace="{namespace}",horizontalpodautoscaler="model"}}'
    return {name % "status_current": f"{now}x400", name % "spec_max": f"{most}x400"}


def core(share: float) -> Series:
    return {f"process_cpu_seconds_total{{{where(1)}}}": f"0+{60 * share}x400"} | info()


def feature(
    bins: Bins,
    replica: int = 1,
    edges: tuple[str, str] = ("1.0", "2.0"),
    of: str = 'feature="size"',
    metric: str = "slipway_feature",
) -> Series:
    """Return the series for a number of rows a minute in three bins. Each bin has a hundred training rows."""
    target, up_to = where(replica), np.cumsum(bins).tolist()
    made = {
        f'{metric}_bucket{{{target},{of},le="{edge}"}}': f"0+{n}x400"
        for edge, n in zip([*edges, "+Inf"], up_to, strict=True)
    }
    for above, edge in zip(["", *edges], [*edges, "+Inf"], strict=True):
        lower = f',above="{above}"' if above else ""
        made[f'slipway_training_rows{{{target},{of},bin="{edge}"{lower}}}'] = "100x400"
    if "feature" in of:
        made[f'slipway_training_rows{{{target},{of},bin="(missing)"}}'] = "0x400"
        made[f"slipway_feature_missing_total{{{target},{of}}}"] = "0x400"
    return made


def times(rows: float, shares: Bins) -> Bins:
    first, second, third = shares
    return rows * first, rows * second, rows * third


def category(*rows: float, missing: float = 0) -> Series:
    """Return the series for a number of rows a minute with `a`, `b` and others. Training had as many `a` as `b`."""
    target = f'{where(1)},feature="kind"'
    made = {f"slipway_feature_missing_total{{{target}}}": f"0+{missing}x400"}
    for value, n, known in zip(("a", "b", "(other)"), rows, (500, 500, 0), strict=True):
        made[f'slipway_feature_values_total{{{target},value="{value}"}}'] = f"0+{n}x400"
        made[f'slipway_training_rows{{{target},bin="{value}"}}'] = f"{known}x400"
    return made | {f'slipway_training_rows{{{target},bin="(missing)"}}': "0x400"}


def date(bins: Bins) -> Series:
    """Return the series for rows a minute of a date, for which the server exports no training rows."""
    return {name: rows for name, rows in feature(bins, of='feature="when"').items() if "training" not in name}


def output(bins: Bins) -> Series:
    return feature(bins, of='output="price"', metric="slipway_prediction")


GOOD, SHIFTED = (10, 10, 10), (3, 9, 18)
A_LITTLE, HARDLY = (0.2, 0.33, 0.47), (0.22, 0.335, 0.445)
"""Shares of rows with a PSI of 0.115 and 0.079. The noise is 0.06 with many rows, and 0.12 with 270 rows."""
A_DAY, FIVE_HOURS, THREE_HOURS = 1440, 300, 180

# Alert, its feature or output, the minute in which it fires, and the series.
FIRES: list[tuple[str, str, int, Series]] = [
    ("SlipwayErrors", "", 15, answers(200, 100) | answers(500, 3)),
    ("SlipwayErrors", "", 15, answers(500, 10, "/v2/infer")),
    ("SlipwayRefuses", "", 15, answers(200, 100) | answers(503, 3)),
    ("SlipwaySlow", "", 20, seconds(95, 5)),
    ("SlipwayBusy", "", 20, core(0.95)),
    ("SlipwayQueues", "", 10, {f"slipway_requests_in_flight{{{where(1)}}}": "60x400"}),
    ("SlipwayAtMaximum", "", 20, autoscaler(300, 300) | info()),
    ("SlipwayGone", "", 30, info(values="1x15 stale")),
    ("SlipwayMixed", "", 30, info() | info(2, "b2")),
    ("SlipwayFeatureDrift", "size", THREE_HOURS, info() | feature(SHIFTED) | category(5, 5, 0)),
    ("SlipwayFeatureDrift", "size", THREE_HOURS, info() | feature((0, 0, 30))),
    ("SlipwayFeatureDrift", "kind", THREE_HOURS, info() | feature(GOOD) | category(9, 1, 0)),
    ("SlipwayFeatureDrift", "kind", THREE_HOURS, info() | category(9, 9, 2)),
    ("SlipwayFeatureDrift", "kind", THREE_HOURS, info() | category(9, 9, 0, missing=2)),
    ("SlipwayFeatureDrift", "size", FIVE_HOURS, info() | feature(times(9, A_LITTLE))),
    ("SlipwayPredictionDrift", "price", THREE_HOURS, info() | feature(GOOD) | output(SHIFTED)),
]
# A rollout to a model with other bins, whose feature has drifted.
NEXT = info(2, "b2") | feature(SHIFTED, 2, ("10.0", "20.0"))
FIRES += [("SlipwayFeatureDrift", "size", THREE_HOURS, info() | feature(GOOD) | NEXT)]

# Alert, the reason why it stays quiet, the minute, and the series.
STAYS_QUIET: list[tuple[str, str, int, Series]] = [
    ("SlipwayErrors", "few of many", 15, answers(200, 1000) | answers(500, 5)),
    ("SlipwayErrors", "few at night", 15, answers(200, 0.5) | answers(500, 0.5)),
    ("SlipwayErrors", "not for long", 4, answers(200, 100) | answers(500, 3)),
    ("SlipwayErrors", "mistakes of clients", 15, answers(200, 100) | answers(422, 50)),
    ("SlipwayErrors", "refused, not failed", 15, answers(200, 100) | answers(503, 50)),
    ("SlipwayErrors", "drains", 15, answers(200, 100) | answers(503, 50, "/readyz") | answers(500, 50, "/readyz")),
    ("SlipwayRefuses", "drains", 15, answers(200, 100) | answers(503, 50, "/readyz")),
    ("SlipwayRefuses", "few", 15, answers(200, 1000) | answers(503, 5)),
    ("SlipwaySlow", "fewer than one in a hundred", 20, seconds(999, 1)),
    ("SlipwayBusy", "as meant", 20, core(0.2)),
    ("SlipwayBusy", "another process", 20, {"process_cpu_seconds_total{instance='x'}": "0+60x400"} | info()),
    ("SlipwayQueues", "some", 10, {f"slipway_requests_in_flight{{{where(1)}}}": "5x400"}),
    ("SlipwayAtMaximum", "below", 20, autoscaler(299, 300) | info()),
    ("SlipwayAtMaximum", "not ours", 20, autoscaler(5, 5, "others") | info()),
    ("SlipwayGone", "others answer", 30, info(values="1x15 stale") | info(2)),
    ("SlipwayGone", "since long", 120, info(values="1x15 stale")),
    ("SlipwayMixed", "a rollout", 25, info(values="1x30 stale") | info(2, "b2", "_x9 1x400")),
    ("SlipwayFeatureDrift", "as in the training", A_DAY + 60, info() | feature(GOOD) | category(5, 5, 0)),
    ("SlipwayFeatureDrift", "few rows", THREE_HOURS, info() | feature((0, 0, 0.8))),
    ("SlipwayFeatureDrift", "hardly moved", THREE_HOURS, info() | feature(times(20, HARDLY))),
    ("SlipwayFeatureDrift", "noise", FIVE_HOURS, info() | feature(times(0.9, A_LITTLE))),
    ("SlipwayFeatureDrift", "no rows", THREE_HOURS, info() | feature((0, 0, 0)) | category(0, 0, 0)),
    ("SlipwayFeatureDrift", "dates move on", THREE_HOURS, info() | date((0, 0, 30))),
    ("SlipwayFeatureDrift", "of the prediction", THREE_HOURS, info() | feature(GOOD) | output(SHIFTED)),
    (
        "SlipwayFeatureDrift",
        "other bins, in a rollout",
        THREE_HOURS,
        info() | feature(GOOD) | info(2, "b2") | feature(GOOD, 2, ("10.0", "20.0")),
    ),
    (
        "SlipwayFeatureDrift",
        "replicas differ, their sum does not",
        THREE_HOURS,
        info() | info(2) | feature(SHIFTED) | feature((17, 11, 2), 2),
    ),
    ("SlipwayPredictionDrift", "of a feature", THREE_HOURS, info() | feature(SHIFTED) | output(GOOD)),
]


def promtool(folder: Path, tests: list[dict[str, Any]], every: str = "1m") -> str:
    """Return the failures of promtool's tests of the alerts, or an empty text if all tests pass."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(alerts()))
    (folder / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": every, "tests": tests})
    )
    done = subprocess.run(
        [require("promtool"), "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True
    )
    return done.stdout + done.stderr if done.returncode else ""


def case(
    alert: str, minute: int, series: Series, about: list[str], name: str = "", interval: str = "1m"
) -> dict[str, Any]:
    """Return a test for promtool: the alert fires in that minute for each feature or output in `about`."""
    return {
        "name": name,
        "interval": interval,
        "input_series": [
            {"series": each, "values": values.replace("x400", f"x{max(400, minute)}")}
            for each, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": f'count by (feature, output) (ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": labels(each), "value": 1} for each in about],
            }
        ],
    }


def labels(about: str) -> str:
    return {"": "{}", "price": '{output="price"}'}.get(about, f'{{feature="{about}"}}')


@pytest.mark.parametrize("alert", sorted({alert for alert, *_ in FIRES}))
def test_an_alert_fires(alert: str, tmp_path: Path) -> None:
    cases = [case(name, minute, series, [about]) for name, about, minute, series in FIRES if name == alert]
    assert not promtool(tmp_path, cases, every(alert))


@pytest.mark.parametrize("alert", sorted({alert for alert, *_ in STAYS_QUIET}))
def test_an_alert_stays_quiet(alert: str, tmp_path: Path) -> None:
    cases = [case(name, minute, series, [], why) for name, why, minute, series in STAYS_QUIET if name == alert]
    assert not promtool(tmp_path, cases, every(alert))


def every(alert: str) -> str:
    """Return the evaluation interval. It is long for drift, because promtool would need minutes for a day otherwise."""
    return "5m" if alert.endswith("Drift") else "1m"


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = {rule["alert"] for group in alerts()["groups"] for rule in group["rules"] if "alert" in rule}
    assert {row[0] for row in FIRES} | {"SlipwayStale"} == names
    assert {row[0] for row in STAYS_QUIET} | {"SlipwayStale"} == names


def test_an_alert_describes_the_problem_and_the_next_step(tmp_path: Path) -> None:
    annotations = {
        "summary": "2.913% of the requests in houses fail.",
        "description": "The logs of the replicas show each error. If a release caused it, run `slipway rollback`.",
    }
    expected = {"exp_labels": {"namespace": "houses", "severity": "critical"}, "exp_annotations": annotations}
    test = case("SlipwayErrors", 15, answers(200, 100) | answers(500, 3), [""])
    test["alert_rule_test"] = [{"eval_time": "15m", "alertname": "SlipwayErrors", "exp_alerts": [expected]}]
    assert not promtool(tmp_path, [test])


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerts()))
    command = [require("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("day", "about"), [(199, []), (202, [""])])
def test_the_stale_alert_fires_after_200_days(day: int, about: list[str], tmp_path: Path) -> None:
    """Rules are evaluated twice a day only, because promtool would need minutes otherwise."""
    tests = case("SlipwayStale", 24 * 60 * day, info(values=f"1x{24 * day}"), about, interval="1h")
    assert not promtool(tmp_path, [tests], "12h")


# The dashboard has data.

REPLICAS = 2
AT_ONCE = Timing(every="1s", rate="5s", step=5)
NO_DATA_AFTER = 40


@pytest.fixture(scope="module")
def watched(serve: Serve, served: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with fast rules, and two replicas of the champion that receive valid and invalid requests."""
    drift = load_params(ROOT / PARAMS).drift.model_copy(update={"window": "1m"})
    rules = [{**group, "interval": "1s"} for group in groups(drift, len(model.FEATURES), AT_ONCE)]
    folder = tmp_path_factory.mktemp("prometheus")
    champion = marked(served.path / "champion", folder)
    rows = json.loads((champion / "golden.json").read_text())["rows"]
    with contextlib.ExitStack() as stack:
        logs = [str(folder / f"log-{i}") for i in range(REPLICAS)]
        urls = [stack.enter_context(serve(champion, SLIPWAY_PREDICTION_LOG=log)).url for log in logs]
        targets = {
            url.removeprefix("http://"): {"namespace": "houses", "pod": f"model-{i}"} for i, url in enumerate(urls)
        }
        seen = stack.enter_context(prometheus.running(folder, targets, groups=rules))
        over = threading.Event()
        client = threading.Thread(target=send_requests, args=(urls, rows, over))
        stack.callback(client.join)
        stack.callback(over.set)
        client.start()
        until = time.monotonic() + NO_DATA_AFTER
        while time.monotonic() < until and not seen.query('slipway:drift:psi{output="price"}'):
            time.sleep(0.2)
        yield seen


def send_requests(urls: list[str], rows: list[Any], over: threading.Event) -> None:
    while not over.wait(0.3):
        for url in urls:
            assert httpx.post(f"{url}/predict", json=rows).is_success
            assert httpx.post(f"{url}/predict", json={}).status_code == 422


DASHBOARD = json.loads((ROOT / "kustomize/components/monitoring/dashboard.json").read_text())
CATEGORIES = {"stories", "wall", "garage"}


def choices(watched: Prometheus, name: str) -> set[str]:
    """Return the values that Grafana would offer for a variable of the dashboard."""
    (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == name]
    query = variable["query"].replace("$namespace", "houses")
    if found := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
        return {series["metric"][found[2]] for series in watched.query(found[1])}
    found = re.fullmatch(r"query_result\((.+)\)", query)
    assert found
    return {series["metric"]["feature"] for series in watched.query(found[1])}


def test_the_variables_list_every_feature_once(watched: Prometheus) -> None:
    assert choices(watched, "namespace") == {"houses"}
    assert choices(watched, "date") == {model.TIME}
    assert choices(watched, "category") == CATEGORIES
    assert choices(watched, "number") == {*model.FEATURES} - {model.TIME} - CATEGORIES


def test_every_panel_has_data(watched: Prometheus) -> None:
    for panel in DASHBOARD["panels"]:
        repeated = choices(watched, panel["repeat"]) if "repeat" in panel else {""}
        for target, value in itertools.product(panel.get("targets", ()), repeated):
            query = target["expr"].replace("$namespace", "houses").replace("$__rate_interval", "10s")
            query = query.replace(f"${panel.get('repeat')}", value)
            assert "$" not in query
            found = [float(series["value"][1]) for series in watched.query(query)]
            assert found, f"{panel['title']}: {query}"
            assert np.isfinite(found).all(), f"{panel['title']}: {query}"


def test_prometheus_computes_the_same_psi_as_slipway(watched: Prometheus, served: Repository) -> None:
    """Both use the same counts. Training counts come from the bundle, and dates have none."""
    reference = Reference.model_validate_json((served.path / "champion" / REFERENCE).read_bytes())
    instant = httpx.get(f"{watched.url}/api/v1/query", params={"query": "time()"}).json()["data"]["result"][0]
    found = {
        name: {
            (each["metric"].get("feature"), each["metric"].get("bin", "")): float(each["value"][1])
            for each in watched.query(f"{name} @ {instant}")
        }
        for name in ("slipway:training_rows", "slipway:rows", "slipway:drift:psi")
    }
    training, rows = found["slipway:training_rows"], found["slipway:rows"]
    compared = {feature for feature, _ in found["slipway:drift:psi"]}
    assert compared == {*model.FEATURES, None} - {model.TIME}
    for name in compared:
        bins = [key for key in training if key[0] == name]
        known = reference.features[name] if name else reference.prediction[model.TARGET]
        assert sum(training[key] for key in bins) == sum(known.counts) + known.missing
        before, now = (np.array([counts[key] for key in bins]) for counts in (training, rows))
        assert now.sum() > 0
        psi = found["slipway:drift:psi"][name, ""]
        assert psi == pytest.approx(population_stability(before, now))
