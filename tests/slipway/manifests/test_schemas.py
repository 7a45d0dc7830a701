"""All overlays and agents render, and match the schemas of the oldest and the newest Kubernetes."""

from typing import Any

import pytest

from tests.slipway.manifests.rendering import (
    AGENTS,
    CHOICES,
    COMPONENTS,
    OVERLAYS,
    Manifest,
    agent,
    changed,
    overlay,
    runner,
)
from tests.slipway.manifests.schemas import DEFINITIONS, NEWEST, OLDEST, faults

EVERYTHING = [
    *((name, choice) for name in OVERLAYS for choice in CHOICES),
    *((name, ()) for name in (*AGENTS, "runner")),
]
BUILT_IN = ("Namespace", "ServiceAccount", "Service", "Deployment", "NetworkPolicy")
BUDGET, AUTOSCALER = "PodDisruptionBudget", "HorizontalPodAutoscaler"


def objects(name: str, choice: tuple[str, ...]) -> list[Manifest]:
    if name == "runner":
        return runner()
    return overlay(name, choice) if name in OVERLAYS else agent(name)


def one(kind: str) -> Manifest:
    everything = [each for name in (*OVERLAYS, *AGENTS, "runner") for each in objects(name, tuple(COMPONENTS))]
    return next(each for each in everything if each["kind"] == kind)


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize(("name", "choice"), EVERYTHING, ids=["+".join([name, *more]) for name, more in EVERYTHING])
def test_manifests_match_the_schemas(name: str, choice: tuple[str, ...], kubernetes: str) -> None:
    found = objects(name, choice)
    assert len(found) > 2
    assert [(each["kind"], fault) for each in found if (fault := faults(each, kubernetes))] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_all_objects_of_an_overlay_are_in_its_namespace(name: str) -> None:
    (namespace, *others) = sorted(overlay(name, tuple(COMPONENTS)), key=lambda each: each["kind"] != "Namespace")
    assert {each["metadata"]["namespace"] for each in others} == {namespace["metadata"]["name"]}


@pytest.mark.parametrize("kind", [*BUILT_IN, BUDGET, AUTOSCALER, *DEFINITIONS])
def test_unknown_field_is_an_error(kind: str) -> None:
    for place in {"metadata", "spec"} & one(kind).keys():
        assert "surprise" in str(faults(changed(one(kind), f"{place}.surprise", 1), NEWEST))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec.template.spec.containers.0.readinessProbe.httpGet.url", "/readyz"),
        ("Deployment", "spec.template.spec.terminationGracePeriodSeconds", "45"),
        ("HTTPRoute", "spec.rules.0.matches.0.path.type", "Prefix"),
        ("Rollout", "spec.strategy.canary.steps.0.setWeight", "10%"),
        ("ServiceMonitor", "spec.endpoints.0.interval", "15"),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "5 minutes"),
        ("ConfigMap", "data.more", {}),
        ("Application", "spec.syncPolicy.automated.selfheal", True),
        ("AppProject", "spec.destinations.0", "house-prices"),
        ("GitRepository", "spec.interval", "a minute"),
        ("Kustomization", "spec.sourceRef.kind", "Git"),
        ("OCIRepository", "spec.layerSelector.operation", "keep"),
        ("HelmRelease", "spec.chartRef.kind", "HelmRepository"),
    ],
)
def test_wrong_value_is_an_error(kind: str, path: str, value: Any) -> None:
    assert faults(changed(one(kind), path, value), NEWEST)


def test_older_kubernetes_has_no_sleep_action() -> None:
    assert "sleep" in str(faults(one("Deployment"), "1.28"))
