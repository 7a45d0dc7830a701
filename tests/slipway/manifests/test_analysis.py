"""The analysis of a canary: judged by the code of Argo Rollouts, with a real Prometheus and the metrics of the server.

Argo Rollouts aborts a canary if a metric has failed. If a metric is inconclusive, it pauses the canary for a person.
It continues only if all metrics are successful.
"""

import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import prometheus_client
import pytest
from numpy.typing import NDArray
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from slipway.bundle import Column, FeatureReference, Reference, Schema
from slipway.monitoring.live_performance import Collected, performance
from slipway.monitoring.loss_gauges import loss_gauges
from slipway.serving.metrics import Metrics, scale
from slipway.statistics.bins import decile_edges
from tests.slipway import prometheus
from tests.slipway.conftest import ROOT, locked
from tests.slipway.manifests.rendering import of, overlay, value_at
from tests.slipway.manifests.schemas import DEFINITIONS
from tests.slipway.prometheus import Prometheus
from tests.slipway.tools import require

COMPONENTS = ("canary", "canary-analysis", "monitoring")
LOSS_COMPONENTS = ("canary", "canary-loss", "monitoring")
HASH = "rollouts_pod_template_hash"
SCRAPED_WITHIN = 60
SCHEMA = Schema(
    kind="regression",
    key=("size",),
    target="price",
    classes=None,
    columns=(Column(name="size", type="number", required=True),),
)


def prices(rows: int, seed: int = 0, factor: float = 1) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).lognormal(11.3, 0.5, rows) * factor).astype(np.float32)


class Replica(Collector):
    """The metrics of a server that has answered some requests. Prometheus scrapes it in another thread."""

    def __init__(self, trained_on: NDArray[np.float32], bundle: str | None = None) -> None:
        edges = tuple(decile_edges(trained_on).tolist())
        reference = FeatureReference(edges=edges, counts=(len(trained_on) // 10,) * (len(edges) + 1), missing=0)
        training = Reference(features={"size": reference}, prediction={"price": reference})
        self.metrics = Metrics(SCHEMA, training, {"name": "model", "bundle": bundle or str(len(trained_on))})
        self._lock = threading.Lock()

    def answer(
        self, predictions: NDArray[np.float32], seconds: float = 0.002, failed: float = 0, status: int = 500
    ) -> None:
        """Answer requests of one record each. The share `failed` of them gets `status` and no prediction."""
        with self._lock:
            errors = round(len(predictions) * failed)
            for value in predictions[errors:].reshape(-1, 1, 1):
                self.metrics.predicted({"numbers": value}, value)
            for i in range(len(predictions)):
                self.metrics.answered("/predict", status if i < errors else 200, seconds)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            yield from [*self.metrics.collect()]


def canaries() -> dict[str, Replica]:
    """Return a canary for each scenario, after its requests."""
    trained = prices(1000)
    made = {name: Replica(trained) for name in SCENARIOS}
    made["another model"] = Replica(prices(900, seed=5, factor=1.1))
    made["good"].answer(prices(300, 1))
    made["another model"].answer(prices(300, 2))
    made["some errors"].answer(prices(300, 3), failed=0.01)
    made["overloaded"].answer(prices(400, 4), failed=0.3, status=503)
    made["slow"].answer(prices(300, 1), seconds=0.2)
    made["failing"].answer(prices(300, 1), failed=0.2)
    made["refusing"].answer(prices(300, 1), failed=0.2, status=422)
    made["shifted"].answer(prices(300, 1, factor=1.5))
    made["few requests"].answer(prices(90, 1, factor=1.5))
    return made


PROMOTED, ABORTED, INCONCLUSIVE = "promoted", "aborted", "inconclusive"
SCENARIOS: dict[str, tuple[str, set[str]]] = {
    "good": (PROMOTED, set()),
    "another model": (PROMOTED, set()),
    "some errors": (PROMOTED, set()),
    "overloaded": (PROMOTED, set()),
    "slow": (ABORTED, {"latency"}),
    "failing": (ABORTED, {"errors"}),
    "refusing": (ABORTED, {"errors"}),
    "shifted": (ABORTED, {"predictions"}),
    "few requests": (INCONCLUSIVE, set()),
    "silent": (INCONCLUSIVE, set()),
}
"""The end of the canary, and the metrics that fail, by scenario."""


START = 20_000
"""The first day with a known truth, in days since 1970."""
LOSSES = {
    "a good loss": (0, 400, 1.0),
    "a little worse": (0, 400, 1.05),
    "much worse": (0, 400, 1.4),
    "a hard day": (1, 400, 3.0),
    "few truths": (0, 90, 2.0),
    "other days": (2, 400, 2.0),
}
"""The day of the known truths of a canary, their number, and their mean loss."""
LOSS_PHASES = {
    "a good loss": "Successful",
    "a little worse": "Successful",
    "much worse": "Failed",
    "a hard day": "Successful",
    "few truths": "Inconclusive",
    "other days": "Inconclusive",
    "no truth": "Inconclusive",
}
"""The phase of the metric `loss`. On the hard day, the stable replicas also have a mean loss of 3."""


def losses(*days: tuple[int, int, float]) -> Collected:
    """Return requests with known truths: for each day, their number and mean loss. Twenty more have no truth."""
    found, random = Collected(), np.random.default_rng(len(days))
    for day, rows, mean in days:
        values = np.concatenate([random.exponential(mean, rows), np.full(20, np.nan)])
        values[:rows] *= mean / values[:rows].mean()
        numbers = np.full(len(values), START + day, dtype=np.int32)
        found.add(values, numbers, np.zeros(len(values), dtype=np.int32), pd.DataFrame(index=range(len(values))))
    return found


def pushed() -> CollectorRegistry:
    """Return what `slipway join` pushes. The stable replicas serve the bundle 1000."""
    collected = {name: losses(day) for name, day in LOSSES.items()} | {"1000": losses((0, 2000, 1.0), (1, 2000, 3.0))}
    return loss_gauges(tuple(performance(name, each, (), START, 0.95) for name, each in collected.items()))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the stable replicas, idle ones, and a canary for each scenario."""
    stable, replicas = Replica(prices(1000)), canaries()
    replicas |= {"stable": stable, "idle": Replica(prices(1000))}
    replicas |= {name: Replica(prices(1000), bundle=name) for name in LOSS_PHASES}
    stable.answer(prices(10, 6), failed=0.1)
    with ExitStack() as stack:
        targets = {}
        for name, replica in replicas.items():
            registry = CollectorRegistry()
            registry.register(replica)
            targets[stack.enter_context(exported(registry))] = {"namespace": "houses", HASH: name, "pod": name}
        targets[stack.enter_context(exported(pushed()))] = {"namespace": "monitoring", "pod": "pushgateway"}
        seen = stack.enter_context(prometheus.running(tmp_path_factory.mktemp("prometheus"), targets))
        wait_for(seen, f'slipway_prediction_scale_count{{{HASH}="stable"}} == 9')
        stable.answer(prices(2000, 7))
        wait_for(seen, f'increase(slipway_requests_total{{{HASH}="stable", status="200"}}[1m]) > 1900')
        wait_for(seen, f"count(slipway_model_info) == {len(replicas)}")
        yield seen


@contextmanager
def exported(registry: CollectorRegistry) -> Iterator[str]:
    """Serve metrics on this machine. Yield `host:port`."""
    server, thread = prometheus_client.start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def wait_for(seen: Prometheus, query: str) -> None:
    until = time.monotonic() + SCRAPED_WITHIN
    while not seen.query(query):
        assert time.monotonic() < until, query
        time.sleep(0.2)


@pytest.fixture(scope="session")
def judge(of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in the folder `analysis`, which measures metrics by the code of Argo Rollouts."""
    program = of_all_workers / "judge"
    with locked(program.with_suffix(".lock")):
        if not program.exists():
            source = tmp_path_factory.mktemp("analysis") / "source"
            shutil.copytree(Path(__file__).with_name("analysis"), source)
            command = [require("go"), "build", "-mod=mod", "-o", str(program), "."]
            subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return program


def template(components: tuple[str, ...] = COMPONENTS) -> dict[str, Any]:
    return dict(of("production", components)["AnalysisTemplate"]["spec"])


def phases(
    judge: Path, seen: Prometheus, canary: str, stable: str, components: tuple[str, ...] = COMPONENTS
) -> dict[str, str]:
    """Return the phase of each metric of the rendered template."""
    arguments = {"namespace": "houses", "canary": canary, "stable": stable, "prometheus": seen.url, "window": "1m"}
    text = json.dumps(template(components)["metrics"])
    for name, value in arguments.items():
        text = text.replace(f"{{{{args.{name}}}}}", value)
    assert "{{" not in text
    done = subprocess.run([str(judge), seen.url], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: measured["phase"] for name, measured in json.loads(done.stdout).items()}


def outcome(phases: dict[str, str]) -> str:
    """Return what Argo Rollouts does: its worst phase counts, and the limits of failures are 0."""
    if "Failed" in phases.values():
        return ABORTED
    return PROMOTED if set(phases.values()) == {"Successful"} else INCONCLUSIVE


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_canary_is_judged(scenario: str, judge: Path, watched: Prometheus) -> None:
    found = phases(judge, watched, scenario, "stable")
    assert set(found.values()) <= {"Successful", "Failed", "Inconclusive"}
    assert (outcome(found), {name for name, phase in found.items() if phase == "Failed"}) == SCENARIOS[scenario]


def test_nothing_is_concluded_without_requests_to_the_stable_replicas(judge: Path, watched: Prometheus) -> None:
    assert set(phases(judge, watched, "slow", "idle").values()) == {"Inconclusive"}
    assert set(phases(judge, watched, "failing", "gone").values()) == {"Inconclusive"}


@pytest.mark.parametrize("scenario", LOSS_PHASES)
def test_the_canary_is_judged_by_its_loss(scenario: str, judge: Path, watched: Prometheus) -> None:
    found = phases(judge, watched, scenario, "stable", LOSS_COMPONENTS)
    assert found == {"loss": LOSS_PHASES[scenario]}


def test_the_loss_is_inconclusive_without_truths_of_the_stable_replicas(judge: Path, watched: Prometheus) -> None:
    assert phases(judge, watched, "much worse", "no truth", LOSS_COMPONENTS) == {"loss": "Inconclusive"}
    assert phases(judge, watched, "much worse", "few truths", LOSS_COMPONENTS) == {"loss": "Inconclusive"}


def test_the_loss_is_judged_once_before_the_promotion() -> None:
    every = ("canary", "canary-analysis", "canary-loss", "monitoring")
    for components, before in ((LOSS_COMPONENTS, 4), (every, 6)):
        steps = value_at(of("production", components)["Rollout"], "spec.strategy.canary.steps")
        assert [list(each) for each in steps[before:]] == [["analysis"]]
        assert steps[before]["analysis"]["templates"] == [{"templateName": "model-loss"}]
        given = {each["name"] for each in steps[before]["analysis"]["args"]}
        assert given == {each["name"] for each in template(LOSS_COMPONENTS)["args"]}


@pytest.mark.parametrize("name", ["staging", "production"])
def test_the_canary_is_judged_after_each_pause(name: str) -> None:
    steps = value_at(of(name, COMPONENTS)["Rollout"], "spec.strategy.canary.steps")
    assert [next(iter(step)) for step in steps] == ["setWeight", "pause", "analysis"] * 2
    given = {each["name"] for each in steps[2]["analysis"]["args"]}
    needed = {each["name"] for each in template()["args"] if "value" not in each}
    assert needed <= given <= {each["name"] for each in template()["args"]}
    assert steps[2] == steps[5]
    (templates,) = steps[2]["analysis"]["templates"]
    assert templates["templateName"] == of(name, COMPONENTS)["AnalysisTemplate"]["metadata"]["name"]


def test_series_have_the_pod_template_hash_as_a_label() -> None:
    label = "rollouts-pod-template-hash"
    assert label in of("production", COMPONENTS)["ServiceMonitor"]["spec"]["podTargetLabels"]
    assert label.replace("-", "_") == HASH
    assert HASH in json.dumps(template())


def test_the_canary_is_not_judged_without_the_component() -> None:
    assert "nalysis" not in json.dumps(overlay("production", ("canary", "monitoring")))


@pytest.mark.parametrize("components", [COMPONENTS, LOSS_COMPONENTS])
def test_every_argument_of_the_template_is_used(components: tuple[str, ...]) -> None:
    found = template(components)
    assert set(re.findall(r"\{\{args\.(\w+)\}\}", json.dumps(found))) == {each["name"] for each in found["args"]}


@pytest.mark.parametrize("factor", [1.0, 1.3, 0.01, -1.0])
def test_two_models_have_edges_in_common(factor: float) -> None:
    """The edges that both have divide the predictions of each into at least ten bins."""
    first, second = (
        FeatureReference(edges=tuple(decile_edges(values).tolist()), counts=(1,) * 10, missing=0)
        for values in (prices(1000, factor=factor), prices(1000, seed=1, factor=factor * 1.2))
    )
    common = sorted({*scale(first, False)} & {*scale(second, False)})
    assert len(common) < 80
    assert len(np.unique(np.digitize(prices(1000, factor=factor), common))) >= 10
    assert scale(first, True) == scale(second, True) == [i / 20 for i in range(1, 20)]


def test_the_judging_program_has_the_version_of_the_validated_schemas() -> None:
    module, _, version = DEFINITIONS["Rollout"][0].partition("@")
    assert f"{module} {version}\n" in (ROOT / "tests/slipway/manifests/analysis/go.mod").read_text()
