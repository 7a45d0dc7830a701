"""The autoscaler adds replicas up to its limit, if their metrics require it.

KWOK simulates the nodes, the pods and their use of the processor, so 300 replicas need no machines. The autoscaler, the
scheduler and metrics-server are real. `make kwok` installs KWOK, and SLIPWAY_KWOK=1 enables this file.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.slipway.cluster.conftest import KUSTOMIZE
from tests.slipway.cluster.kubectl import Cluster, Production, image, wait
from tests.slipway.conftest import edit

NAMESPACE = "slipway-autoscaler"
NODES, ZONES = 30, 3
MINIMUM, MAXIMUM = 3, 300
REQUEST = 0.25
"""Cores that each replica requests."""
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
BOUND = 900
"""Seconds in which all replicas must be ready."""


def node(number: int) -> dict[str, Any]:
    """Return a node that KWOK simulates. The taint keeps away pods that have to run."""
    name = f"slipway-{number}"
    annotations = {
        "kwok.x-k8s.io/node": "fake",
        "metrics.k8s.io/resource-metrics-path": f"/metrics/nodes/{name}/metrics/resource",
    }
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": f"zone-{number % ZONES}",
        "type": "kwok",
    }
    size = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "50Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "annotations": annotations, "labels": labels},
        "spec": {"taints": [TAINT]},
        "status": {"allocatable": size, "capacity": size},
    }


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Iterator[None]:
    every = [node(number) for number in range(NODES)]
    try:
        cluster.must("create", "--filename=-", manifest={"apiVersion": "v1", "kind": "List", "items": every})
        yield
    finally:
        cluster.must("delete", "node", "--ignore-not-found", *(each["metadata"]["name"] for each in every))


@pytest.fixture
def simulated(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """The overlay of production in a namespace of its own and on the simulated nodes."""
    copy = tmp_path_factory.mktemp("simulated") / "kustomize"
    shutil.copytree(KUSTOMIZE, copy)
    overlay = copy / "overlays/production"
    edit(overlay / "namespace.yaml", "name: house-prices\n", f"name: {NAMESPACE}\n")
    edit(overlay / "kustomization.yaml", "namespace: house-prices\n", f"namespace: {NAMESPACE}\n")
    place = "      nodeSelector: {type: kwok}\n      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]\n"
    spec = "    spec:\n      serviceAccountName: model\n"
    edit(copy / "base/deployment.yaml", spec, spec + place)
    try:
        yield Production(cluster, NAMESPACE, overlay, {"A": image("SLIPWAY_IMAGE_A")})
    finally:
        cluster.must("delete", "--ignore-not-found", "namespace", NAMESPACE)
        cluster.must("delete", "--ignore-not-found", "clusterresourceusages.kwok.x-k8s.io", NAMESPACE)


def use(cluster: Cluster, cores: float) -> None:
    """Let each replica use so many cores."""
    usage = {"cpu": {"value": f"{cores * 1000:.0f}m"}, "memory": {"value": "107Mi"}}
    resource_usage = {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterResourceUsage",
        "metadata": {"name": NAMESPACE},
        "spec": {"selector": {"matchNamespaces": [NAMESPACE]}, "usages": [{"usage": usage}]},
    }
    cluster.must("apply", "--filename=-", manifest=resource_usage)


def ready(production: Production) -> int:
    return int(production.read("deployment", "model")["status"].get("readyReplicas", 0))


def utilization(production: Production) -> int | None:
    """Return the average CPU use in percent of the request, as the autoscaler sees it. None if it has no metrics."""
    metrics = production.read("horizontalpodautoscaler", "model")["status"].get("currentMetrics") or [{}]
    current = metrics[0].get("resource", {}).get("current", {}).get("averageUtilization")
    return None if current is None else int(current)


def zones(cluster: Cluster, pods: list[dict[str, Any]]) -> Counter[str]:
    found = {each["metadata"]["name"]: each["metadata"]["labels"] for each in cluster.read("nodes")["items"]}
    return Counter(found[pod["spec"]["nodeName"]]["topology.kubernetes.io/zone"] for pod in pods)


@pytest.mark.usefixtures("nodes")
def test_metrics_scale_from_3_to_300_replicas(cluster: Cluster, simulated: Production) -> None:
    use(cluster, cores=0.4 * REQUEST)
    simulated.release("A")
    wait(lambda: ready(simulated) == MINIMUM, "The autoscaler does not start the minimum of replicas")
    wait(lambda: 30 < (utilization(simulated) or 0) < 50, "The autoscaler does not see the metrics of KWOK")
    assert ready(simulated) == MINIMUM
    use(cluster, cores=1)
    began = time.monotonic()
    wait(lambda: ready(simulated) == MAXIMUM, "The autoscaler does not start the maximum of replicas", BOUND)
    print(f"{MAXIMUM} replicas were ready after {time.monotonic() - began:.0f} s")
    spread = zones(cluster, simulated.pods())
    print(f"replicas by zone: {dict(spread)}")
    assert len(spread) == ZONES
