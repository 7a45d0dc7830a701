"""Argo Rollouts judges canaries by a real Prometheus, and `slipway deploy` sees what it has decided.

`make rollouts` installs its controller. SLIPWAY_ROLLOUTS_HOST is an address of this machine to which the controller can
connect. KWOK simulates the pods (`make kwok`), and this process serves their metrics. A canary is good, failing, slow,
shifted or silent.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION
from tests.slipway import prometheus
from tests.slipway.cluster.kubectl import NAMED, Cluster, wait
from tests.slipway.cluster.test_to_300_replicas import node
from tests.slipway.conftest import Repository
from tests.slipway.manifests.test_analysis import (
    ABORTED,
    HASH,
    INCONCLUSIVE,
    PROMOTED,
    Replica,
    canaries,
    exported,
    prices,
    wait_for,
)
from tests.slipway.release.conftest import bare, flags, image, offer, work

__all__ = ["bare", "offer", "work"]  # fixtures
HOST = "SLIPWAY_ROLLOUTS_HOST"
NAMESPACE = "slipway-canary"
TIMEOUT = 120
"""The setting `release.timeout_seconds`, after which an inconclusive canary is given up."""
PAUSE = 20
"""Seconds of each pause of the canary, in which Prometheus scrapes the replicas."""
ENDS = {"failing": ABORTED, "slow": ABORTED, "shifted": ABORTED, "silent": INCONCLUSIVE, "good": PROMOTED}
"""The end of each canary, in the order of the releases."""
EDITS = {
    "params.yaml": [("deploy: agent", "deploy: kubectl"), ("timeout_seconds: 600", f"timeout_seconds: {TIMEOUT}")],
    "kustomize/overlays/production/namespace.yaml": [("name: house-prices\n", f"name: {NAMESPACE}\n")],
    "kustomize/overlays/production/kustomization.yaml": [
        ("namespace: house-prices\n", f"namespace: {NAMESPACE}\n"),
        ("# - ../../components/canary #", "- ../../components/canary #"),
        ("# - ../../components/canary-analysis #", "- ../../components/canary-analysis #"),
    ],
    "kustomize/components/canary/rollout.yaml": [
        (
            f"setWeight: {weight}\n        - pause: {{duration: 2m}}",
            f"setWeight: {weight}\n        - pause: {{duration: {PAUSE}s}}",
        )
        for weight in (10, 50)
    ],
    "kustomize/base/deployment.yaml": [
        (
            "    spec:\n      serviceAccountName: model\n",
            "    spec:\n      serviceAccountName: model\n      nodeSelector: {type: kwok}\n"
            "      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]\n",
        )
    ],
}


@dataclass(eq=False)  # hashable
class Pods(Collector):
    """The metrics of a replica, with the label that Prometheus takes from the pods of a ReplicaSet."""

    replica: Replica
    hash: str = "none"

    def collect(self) -> Iterator[Metric]:
        for metric in self.replica.collect():
            metric.samples = [each._replace(labels={**each.labels, HASH: self.hash}) for each in metric.samples]
            yield metric


@dataclass
class Judged:
    """The end of a canary, and the seconds until `slipway deploy` reported it and until its rollback was complete."""

    end: str
    seconds: float
    said: str
    rolled_back: float | None = field(default=None)


@pytest.fixture
def simulated_nodes(cluster: Cluster) -> Iterator[None]:
    every = [node(number) for number in range(2)]
    try:
        cluster.must("create", "--filename=-", manifest={"apiVersion": "v1", "kind": "List", "items": every})
        yield
    finally:
        cluster.must("delete", "--ignore-not-found", "namespace", NAMESPACE)
        cluster.must("delete", "node", "--ignore-not-found", *(each["metadata"]["name"] for each in every))


def slipway(work: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = work.run("slipway", *arguments, KUBECONFIG=os.environ[NAMED])
    return subprocess.CompletedProcess(arguments, found.code, found.out, found.err)


def status(cluster: Cluster) -> dict[str, Any]:
    found = cluster.read("rollouts.argoproj.io", "model", f"--namespace={NAMESPACE}")
    return dict(found.get("status", {}))


def promote(work: Repository, number: int) -> None:
    done = slipway(work, "promote", PRODUCTION, *flags(number))
    assert done.returncode == 0, done.stderr
    work.must("git", "pull", "--quiet", "--rebase", "--autostash", "origin", "main")


def is_canary(cluster: Cluster, stable: str) -> bool:
    found = status(cluster)
    return found.get("stableRS") == stable and found.get("currentPodHash") not in (None, stable)


def end_of(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode == 0:
        return PROMOTED
    return ABORTED if "has aborted the canary" in done.stderr else INCONCLUSIVE


@pytest.mark.usefixtures("simulated_nodes")
def test_canaries_are_promoted_or_end_as_a_rollback_commit(
    cluster: Cluster, work: Repository, offer: Callable[[str], Candidate], tmp_path: Path
) -> None:
    stable, canary = Pods(Replica(prices(1000))), Pods(Replica(prices(1000)))
    targets = {}
    replicas, judged = canaries(), {}
    (tmp_path / "prometheus").mkdir()
    with ThreadPoolExecutor() as threads, exported(of(stable)) as first, exported(of(canary)) as second:
        targets = {each: {"namespace": NAMESPACE, "pod": each} for each in (first, second)}
        with prometheus.running(tmp_path / "prometheus", targets, host=os.environ[HOST]) as seen:
            address = "http://prometheus-operated.monitoring.svc:9090"
            edits = {**EDITS, "kustomize/components/canary-analysis/steps.yaml": [(address, seen.url)]}
            for file, changes in edits.items():
                for old, new in changes:
                    work.edit(file, old, new)
            work.commit("Follow the canary of a test")
            work.must("git", "push", "--quiet", "origin", "HEAD:main")
            stable.replica.answer(prices(10), failed=0.1)  # so that Prometheus sees each counter rise
            offer("stable")
            promote(work, 1)
            done = slipway(work, "deploy", PRODUCTION)
            assert done.returncode == 0, done.stderr
            print(f"the first release: {done.stdout.strip().splitlines()[-1]}")
            for number, scenario in enumerate(ENDS, start=2):
                stable.hash, canary.replica, canary.hash = status(cluster)["stableRS"], Replica(prices(1000)), "none"
                offer(scenario)
                promote(work, number)
                began = time.monotonic()
                deploying = threads.submit(slipway, work, "deploy", PRODUCTION)
                wait(lambda: is_canary(cluster, stable.hash), "Argo Rollouts does not start the canary")
                canary.hash, canary.replica = status(cluster)["currentPodHash"], replicas[scenario]
                wait_for(seen, f'slipway_requests_total{{{HASH}="{stable.hash}"}}')
                stable.replica.answer(prices(2000, seed=number))
                wait_for(seen, f'slipway_model_info{{{HASH}="{canary.hash}"}}')
                done = deploying.result()
                judged[scenario] = Judged(end_of(done), time.monotonic() - began, (done.stdout + done.stderr).strip())
                if done.returncode:
                    judged[scenario].rolled_back = roll_back(work)
                print(scenario, judged[scenario])
    assert {scenario: each.end for scenario, each in judged.items()} == ENDS


def of(pods: Pods) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(pods)
    return registry


def roll_back(work: Repository) -> float:
    """Roll back, and return the seconds until all replicas run the first release again."""
    began = time.monotonic()
    assert slipway(work, "rollback", PRODUCTION).returncode == 0
    work.must("git", "pull", "--quiet", "--rebase", "--autostash", "origin", "main")
    subject = work.must("git", "log", "--format=%s", "-1", "origin/main").strip()
    assert subject == f"Roll production back to {image(1).tag}"
    done = slipway(work, "deploy", PRODUCTION)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began
