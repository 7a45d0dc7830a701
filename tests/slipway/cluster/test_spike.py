"""The autoscaler adds replicas under load. It needs metrics-server; SLIPWAY_WITHOUT_METRICS=1 skips this file.

The file runs after the other tests of production, by its name: the autoscaler keeps added replicas for ten minutes.
"""

from tests.slipway.cluster.kubectl import CLIENTS, Cluster, Load, Production, wait


def test_load_adds_replicas(cluster: Cluster, production: Production, load: Load) -> None:
    asked = cluster.run("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert asked.returncode == 0, "The cluster has no metrics-server; install it, or set SLIPWAY_WITHOUT_METRICS=1"

    def ready() -> int:
        return int(production.read("deployment", "model")["status"].get("readyReplicas", 0))

    production.scale(3)
    load.go_on(20)
    assert ready() == 3, "The usual load already adds replicas, so a spike would show nothing"
    with load.watched("more load, and replicas for it") as seen, production.load("spike", CLIENTS, 0, 200):
        wait(lambda: ready() > 3, "The autoscaler adds no replica")
    assert seen.failed == 0
