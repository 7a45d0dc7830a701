"""With the Gateway API, a canary gets a share of the requests by the weights of the HTTPRoute."""

import pytest

from tests.slipway.manifests.rendering import AGENTS, OVERLAYS, agent, of, value_at

SPLIT = ("canary", "ingress", "traffic-split", "monitoring")


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_rollout_sets_weights_of_the_route_in_its_namespace(name: str) -> None:
    objects = of(name, SPLIT)
    canary = objects["Rollout"]["spec"]["strategy"]["canary"]
    services = [canary["stableService"], canary["canaryService"]]
    assert canary["trafficRouting"]["plugins"] == {
        "argoproj-labs/gatewayAPI": {
            "httpRoute": objects["HTTPRoute"]["metadata"]["name"],
            "namespace": objects["Namespace"]["metadata"]["name"],
        }
    }
    backends = value_at(objects["HTTPRoute"], "spec.rules.0.backendRefs")
    assert [each["name"] for each in backends] == services
    assert backends[1]["weight"] == 0
    assert [objects[f"{part} Service"]["metadata"]["name"] for part in ("stable", "canary")] == services
    for part in ("stable", "canary"):
        assert objects[f"{part} Service"]["spec"] == objects["Service"]["spec"]


def test_prometheus_does_not_scrape_a_pod_twice() -> None:
    objects = of("production", SPLIT)
    selected = objects["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    services = [each for name, each in objects.items() if name.endswith("Service")]
    assert len(services) == 3
    assert [each["metadata"]["name"] for each in services if selected <= each["metadata"]["labels"].items()] == [
        "model"
    ]


def test_without_the_component_a_canary_gets_a_share_of_the_replicas() -> None:
    objects = of("production", ("canary", "ingress"))
    assert "trafficRouting" not in objects["Rollout"]["spec"]["strategy"]["canary"]
    assert value_at(objects["HTTPRoute"], "spec.rules.0.backendRefs") == [{"name": "model", "port": 80}]


def test_agents_do_not_reset_the_weights() -> None:
    assert of("production", SPLIT)["HTTPRoute"]["metadata"]["annotations"] == {
        "kustomize.toolkit.fluxcd.io/ssa": "IfNotPresent"
    }
    assert "argocd" in AGENTS
    for application in (each for each in agent("argocd") if each["kind"] == "Application"):
        (ignored,) = application["spec"]["ignoreDifferences"]
        assert (ignored["kind"], ignored["jqPathExpressions"]) == ("HTTPRoute", [".spec.rules[].backendRefs[].weight"])
        assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
