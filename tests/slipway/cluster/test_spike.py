"""The autoscaler. It needs metrics-server; SLIPWAY_WITHOUT_METRICS=1 says that a cluster has none, and leaves this out.

Last, by the name of this file: the autoscaler keeps for ten minutes what it has added.
"""

from tests.slipway.cluster.kubectl import CLIENTS, Cluster, Load, Production, wait


def test_load_brings_replicas(cluster: Cluster, production: Production, load: Load) -> None:
    asked = cluster.run("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert asked.returncode == 0, "The cluster has no metrics-server; install it, or say SLIPWAY_WITHOUT_METRICS=1"

    def ready() -> int:
        return int(production.read("deployment", "model")["status"].get("readyReplicas", 0))

    production.scale(3)
    load.go_on(20)
    assert ready() == 3, "The usual load is enough to bring replicas, so that a spike shows nothing"
    with load.watched("more load, and replicas for it") as seen, production.load("spike", CLIENTS, 0, 200):
        wait(lambda: ready() > 3, "The autoscaler adds no replica")
    assert seen.failed == 0
