"""Promises of the manifests: no dropped request, room for a spike, minimal rights. Each promise can fail."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml

from slipway.provenance import Provenance
from slipway.release.component import REGISTRY_VERSION
from slipway.serving.prediction_log import LAST_WRITE, SEGMENT_BYTES
from slipway.serving.server import LAST_ANSWERS
from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import (
    CHOICES,
    COMPONENTS,
    OVERLAYS,
    RELEASED,
    Manifest,
    Objects,
    changed,
    of,
    value_at,
)

POD = "spec.template.spec"
SERVER = f"{POD}.containers.0"
SHIPPER = f"{POD}.initContainers.0"
SCALER, BUDGET, POLICY = "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"
NAME = {"app.kubernetes.io/name": "model"}


def server(objects: Objects) -> Manifest:
    (container,) = value_at(objects["Deployment"], f"{POD}.containers")
    assert container["name"] == "server"
    return dict(container)


def environment(objects: Objects) -> dict[str, str]:
    return {each["name"]: each["value"] for each in server(objects)["env"] if "value" in each}


def shipper(objects: Objects) -> Manifest | None:
    """Return the sidecar that ships the prediction log, if the component is used."""
    return next(iter(value_at(objects["Deployment"], POD).get("initContainers", [])), None)


# The promises: each function returns whether the objects keep it.


def it_drains_before_it_is_killed(objects: Objects) -> bool:
    sleep: int = server(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(environment(objects)["SLIPWAY_GRACE"])
    grace: int = value_at(objects["Deployment"], f"{POD}.terminationGracePeriodSeconds")
    return sleep >= 5 and drain >= 5 and grace >= sleep + drain + LAST_ANSWERS + LAST_WRITE + 5


def a_release_never_lowers_capacity(objects: Objects) -> bool:
    spec = objects["Deployment"]["spec"]
    rolling = spec["strategy"]["rollingUpdate"]
    return rolling["maxUnavailable"] == 0 and rolling["maxSurge"] not in (0, "0%") and spec["minReadySeconds"] > 0


def probes_ask_different_things(objects: Objects) -> bool:
    container = server(objects)
    start, ready, live = (container[f"{each}Probe"] for each in ("startup", "readiness", "liveness"))
    until = {id(each): each["periodSeconds"] * each["failureThreshold"] for each in (start, ready, live)}
    paths = [each["httpGet"]["path"] for each in (start, ready, live)]
    return paths == ["/healthz", "/readyz", "/healthz"] and until[id(ready)] <= 15 < 60 <= min(
        until[id(start)], until[id(live)]
    )


def nodes_can_be_drained_and_most_stay(objects: Objects) -> bool:
    spec, share = objects[SCALER]["spec"], objects[BUDGET]["spec"]["maxUnavailable"]
    gone = [math.ceil(n * int(share.removesuffix("%")) / 100) for n in (spec["minReplicas"], spec["maxReplicas"])]
    return gone[0] == 1 and gone[1] * 5 <= max(spec["maxReplicas"], 5)


def a_spike_is_met(objects: Objects) -> bool:
    """Check that it reaches full size within 90 seconds, and scales down slowly."""
    spec, up = objects[SCALER]["spec"], objects[SCALER]["spec"]["behavior"]["scaleUp"]
    by = {each["type"]: each["value"] for each in up["policies"] if each["periodSeconds"] == 15}
    replicas, seconds = spec["minReplicas"], 0
    while replicas < spec["maxReplicas"] and seconds < 600:
        replicas = max(math.ceil(replicas * (1 + by.get("Percent", 0) / 100)), replicas + by.get("Pods", 0))
        seconds += up["stabilizationWindowSeconds"] + 15
    down = spec["behavior"]["scaleDown"]
    (slow,) = down["policies"]
    gentle = slow["type"] == "Percent" and slow["value"] <= 10 and slow["periodSeconds"] >= 60
    return seconds <= 90 and gentle and down["stabilizationWindowSeconds"] >= 300


def the_autoscaler_owns_the_replicas(objects: Objects) -> bool:
    target = objects[SCALER]["spec"]["scaleTargetRef"]
    workload = objects[target["kind"]]
    told = any("replicas" in objects[kind]["spec"] for kind in ("Deployment", "Rollout") if kind in objects)
    return not told and (target["apiVersion"], target["name"]) == (workload["apiVersion"], workload["metadata"]["name"])


def a_full_node_can_give_what_is_counted_on(objects: Objects) -> bool:
    resources = server(objects)["resources"]
    (metric,) = objects[SCALER]["spec"]["metrics"]
    asked, most = resources["requests"], resources["limits"]
    return (
        {"cpu", "memory", "ephemeral-storage"} == set(asked)
        and metric["resource"]["target"]["averageUtilization"] < 100
        and asked["memory"] == most["memory"]
        and "cpu" not in most
    )


def pods_are_restricted(objects: Objects) -> bool:
    pod, sidecar = value_at(objects["Deployment"], POD), shipper(objects)
    containers = [each["securityContext"] for each in (server(objects), sidecar) if each]
    return (
        pod["securityContext"]["runAsNonRoot"] is True
        and pod["securityContext"]["runAsUser"] >= 10_000
        and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and all(
            each["allowPrivilegeEscalation"] is False
            and each["readOnlyRootFilesystem"] is True
            and each["capabilities"] == {"drop": ["ALL"]}
            and "privileged" not in each
            and "runAsUser" not in each
            for each in containers
        )
        and pod["automountServiceAccountToken"] is objects["ServiceAccount"]["automountServiceAccountToken"] is False
        and pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
        and objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    )


def only_the_shipper_goes_out_and_one_port_is_open(objects: Objects) -> bool:
    """Check that the shipper can reach hosts by HTTPS and their names, and that nothing else goes out."""
    spec, ports = objects[POLICY]["spec"], server(objects)["ports"]
    out = [port["port"] for rule in spec["egress"] for port in rule.get("ports", [{"port": "any"}])]
    opened = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
    return (
        spec["policyTypes"] == ["Ingress", "Egress"]
        and set(out) == ({53, 443} if shipper(objects) else set())
        and opened == [8080] == [each["containerPort"] for each in ports]
        and objects["Service"]["spec"]["ports"][0]["targetPort"] in [each["name"] for each in ports]
    )


def the_log_fits_its_volume(objects: Objects) -> bool:
    """Check that the server drops rows before the pod would be evicted, and that the last segments are shipped."""
    sidecar = shipper(objects)
    if sidecar is None:
        return "SLIPWAY_PREDICTION_LOG" not in environment(objects)
    pod, variables = value_at(objects["Deployment"], POD), environment(objects)
    (volume,) = pod["volumes"]
    size, limit = (
        int(each.removesuffix("Mi")) * 2**20
        for each in (volume["emptyDir"]["sizeLimit"], server(objects)["resources"]["limits"]["ephemeral-storage"])
    )
    mounts = [each["volumeMounts"] for each in (server(objects), sidecar)]
    folder = variables["SLIPWAY_PREDICTION_LOG"]
    return (
        int(variables["SLIPWAY_PREDICTION_LOG_MAX_BYTES"]) + 2 * SEGMENT_BYTES < size < limit
        and all(mount == [{"name": volume["name"], "mountPath": folder}] for mount in mounts)
        and sidecar["args"][-1] == folder
        and sidecar["restartPolicy"] == "Always"  # such a container ends after the server
        and sidecar["resources"]["requests"]["memory"] == sidecar["resources"]["limits"]["memory"]
    )


def selectors_are_one_label_and_match(objects: Objects) -> bool:
    spec = objects["Deployment"]["spec"]
    spread = {
        each["topologyKey"]: each["labelSelector"]["matchLabels"]
        for each in value_at(spec, "template.spec")["topologySpreadConstraints"]
    }
    selectors = [
        spec["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects[BUDGET]["spec"]["selector"]["matchLabels"],
        objects[POLICY]["spec"]["podSelector"]["matchLabels"],
        *spread.values(),
    ]
    return (
        all(selector == NAME for selector in selectors)
        and NAME.items() <= spec["template"]["metadata"]["labels"].items()
        and set(spread) == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
    )


def everything_has_the_recommended_labels(objects: Objects) -> bool:
    wanted = {f"app.kubernetes.io/{label}" for label in ("name", "component", "instance", "part-of")}
    described = [each["metadata"] for each in objects.values() if each["kind"] != "Namespace"]
    return all(
        wanted <= set(each["labels"])
        for each in [*described, value_at(objects["Deployment"], "spec.template.metadata")]
    )


def pods_are_annotated_with_their_provenance(objects: Objects) -> bool:
    """Check pods and Deployment. New annotations of the pods replace the pods, even for the same image."""
    metadata = objects["Deployment"]["metadata"], value_at(objects["Deployment"], "spec.template.metadata")
    wanted = RELEASED.provenance.annotations() | {REGISTRY_VERSION: RELEASED.registry_version}
    return all(wanted.items() <= each["annotations"].items() for each in metadata)


def it_listens_to_the_cluster(objects: Objects) -> bool:
    image = "SLIPWAY_HOST=0.0.0.0" in (ROOT / "Dockerfile").read_text()
    return environment(objects).get("SLIPWAY_HOST", "0.0.0.0" if image else None) == "0.0.0.0"


def a_canary_is_as_careful(objects: Objects) -> bool:
    if "Rollout" not in objects:
        return True
    deployment, rollout = objects["Deployment"]["spec"], objects["Rollout"]["spec"]
    same = ("minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit")
    pauses = [step["pause"]["duration"] for step in rollout["strategy"]["canary"]["steps"] if "pause" in step]
    patience = yaml.safe_load((ROOT / "params.yaml").read_text())["release"]["timeout_seconds"]
    return (
        rollout["workloadRef"]["name"] == objects["Deployment"]["metadata"]["name"]
        and all(rollout[name] == deployment[name] for name in same)
        and deployment["strategy"]["rollingUpdate"].items() <= rollout["strategy"]["canary"].items()
        and sum(int(each.removesuffix("m")) * 60 for each in pauses) < patience - deployment["progressDeadlineSeconds"]
    )


def the_outside_reaches_predictions_only(objects: Objects) -> bool:
    if "HTTPRoute" not in objects:
        return True
    (rule,) = objects["HTTPRoute"]["spec"]["rules"]
    routes = [(each["path"]["type"], each["path"]["value"]) for each in rule["matches"]]

    def is_routed(path: str) -> bool:
        below = [value.rstrip("/") + "/" for kind, value in routes if kind == "PathPrefix"]
        return path in [value for _, value in routes] or f"{path}/".startswith(tuple(below))

    served = ["/", "/predict", "/invocations", "/v2", "/v2/models/model/infer", "/version", "/static-offline-docs/a"]
    kept = ["/metrics", "/healthz", "/readyz", "/v2/health/ready", "/docsx"]
    return [path for path in served + kept if is_routed(path)] == served


def prometheus_reads_the_service(objects: Objects) -> bool:
    if "ServiceMonitor" not in objects:
        return True
    spec, service = objects["ServiceMonitor"]["spec"], objects["Service"]
    (endpoint,) = spec["endpoints"]
    return (
        spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        and endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
        and endpoint["path"] == "/metrics"
    )


Promise = Callable[[Objects], bool]
PROMISES: list[Promise] = [
    value for value in list(globals().values()) if getattr(value, "__annotations__", {}).get("return") is bool
]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise_is_kept_with_all_components(promise: Promise, name: str) -> None:
    for choice in CHOICES:
        assert promise(of(name, choice)), choice


@pytest.mark.parametrize(
    ("promise", "kind", "path", "value"),
    [
        (it_drains_before_it_is_killed, "Deployment", f"{POD}.terminationGracePeriodSeconds", 30),
        (it_drains_before_it_is_killed, "Deployment", f"{SERVER}.lifecycle.preStop.sleep.seconds", 0),
        (it_drains_before_it_is_killed, "Deployment", f"{SERVER}.env.1.value", "25"),
        (a_release_never_lowers_capacity, "Deployment", "spec.strategy.rollingUpdate.maxUnavailable", "25%"),
        (a_release_never_lowers_capacity, "Deployment", "spec.minReadySeconds", 0),
        (probes_ask_different_things, "Deployment", f"{SERVER}.readinessProbe.httpGet.path", "/healthz"),
        (probes_ask_different_things, "Deployment", f"{SERVER}.livenessProbe.httpGet.path", "/readyz"),
        (probes_ask_different_things, "Deployment", f"{SERVER}.livenessProbe.failureThreshold", 1),
        (probes_ask_different_things, "Deployment", f"{SERVER}.startupProbe.failureThreshold", 5),
        (nodes_can_be_drained_and_most_stay, BUDGET, "spec.maxUnavailable", "0%"),
        (nodes_can_be_drained_and_most_stay, BUDGET, "spec.maxUnavailable", "50%"),
        (a_spike_is_met, SCALER, "spec.behavior.scaleUp.policies", [{"type": "Pods", "value": 4, "periodSeconds": 15}]),
        (a_spike_is_met, SCALER, "spec.behavior.scaleUp.stabilizationWindowSeconds", 60),
        (a_spike_is_met, SCALER, "spec.behavior.scaleDown.stabilizationWindowSeconds", 0),
        (a_spike_is_met, SCALER, "spec.behavior.scaleDown.policies.0.value", 100),
        (the_autoscaler_owns_the_replicas, "Deployment", "spec.replicas", 3),
        (the_autoscaler_owns_the_replicas, SCALER, "spec.scaleTargetRef.name", "other"),
        (a_full_node_can_give_what_is_counted_on, SCALER, "spec.metrics.0.resource.target.averageUtilization", 200),
        (a_full_node_can_give_what_is_counted_on, "Deployment", f"{SERVER}.resources.limits.memory", "1Gi"),
        (a_full_node_can_give_what_is_counted_on, "Deployment", f"{SERVER}.resources.limits.cpu", "1"),
        (pods_are_restricted, "Deployment", f"{POD}.securityContext.runAsNonRoot", False),
        (pods_are_restricted, "Deployment", f"{POD}.securityContext.seccompProfile", {"type": "Unconfined"}),
        (pods_are_restricted, "Deployment", f"{POD}.automountServiceAccountToken", True),
        (pods_are_restricted, "Deployment", f"{SERVER}.securityContext.capabilities", {"drop": ["CHOWN"]}),
        (pods_are_restricted, "Deployment", f"{SERVER}.securityContext.allowPrivilegeEscalation", True),
        (pods_are_restricted, "Namespace", "metadata.labels", {"pod-security.kubernetes.io/enforce": "baseline"}),
        (pods_are_restricted, "Deployment", f"{SHIPPER}.securityContext.readOnlyRootFilesystem", False),
        (pods_are_restricted, "Deployment", f"{SHIPPER}.securityContext.capabilities", {}),
        (only_the_shipper_goes_out_and_one_port_is_open, POLICY, "spec.egress", [{}]),
        (only_the_shipper_goes_out_and_one_port_is_open, POLICY, "spec.egress.0.ports.0.port", 80),
        (only_the_shipper_goes_out_and_one_port_is_open, POLICY, "spec.policyTypes", ["Ingress"]),
        (only_the_shipper_goes_out_and_one_port_is_open, POLICY, "spec.ingress.0.ports.0.port", 9090),
        (the_log_fits_its_volume, "Deployment", f"{POD}.volumes.0.emptyDir.sizeLimit", "512Mi"),
        (the_log_fits_its_volume, "Deployment", f"{SERVER}.resources.limits.ephemeral-storage", "128Mi"),
        (the_log_fits_its_volume, "Deployment", f"{SHIPPER}.restartPolicy", "Never"),
        (the_log_fits_its_volume, "Deployment", f"{SHIPPER}.volumeMounts.0.mountPath", "/other"),
        (selectors_are_one_label_and_match, "Deployment", "spec.template.metadata.labels", {"app": "model"}),
        (selectors_are_one_label_and_match, "Service", "spec.selector", {"app": "model"}),
        (selectors_are_one_label_and_match, "Deployment", f"{POD}.topologySpreadConstraints", []),
        (everything_has_the_recommended_labels, "Service", "metadata.labels", NAME),
        (pods_are_annotated_with_their_provenance, "Deployment", "spec.template.metadata.annotations", {}),
        (it_listens_to_the_cluster, "Deployment", f"{SERVER}.env.0", {"name": "SLIPWAY_HOST", "value": "127.0.0.1"}),
        (a_canary_is_as_careful, "Rollout", "spec.strategy.canary.maxUnavailable", 1),
        (a_canary_is_as_careful, "Rollout", "spec.minReadySeconds", 0),
        (a_canary_is_as_careful, "Rollout", "spec.strategy.canary.steps.1.pause.duration", "10m"),
        (the_outside_reaches_predictions_only, "HTTPRoute", "spec.rules.0.matches.0.path.value", "/metrics"),
        (the_outside_reaches_predictions_only, "HTTPRoute", "spec.rules.0.matches.5.path.type", "PathPrefix"),
        (prometheus_reads_the_service, "ServiceMonitor", "spec.endpoints.0.port", "metrics"),
        (prometheus_reads_the_service, "ServiceMonitor", "spec.selector.matchLabels", {"app": "model"}),
    ],
)
def test_each_promise_can_fail(promise: Promise, kind: str, path: str, value: Any) -> None:
    objects = of("production", tuple(COMPONENTS))
    assert not promise({**objects, kind: changed(objects[kind], path, value)})


def test_every_promise_is_tested() -> None:
    (tried,) = [mark for mark in test_each_promise_can_fail.pytestmark if mark.name == "parametrize"]
    assert {row[0] for row in tried.args[1]} == set(PROMISES)


def test_production_scales_from_3_to_300() -> None:
    spec = of("production")[SCALER]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 300)


@pytest.mark.parametrize("name", OVERLAYS)
def test_release_component_sets_image_by_tag_and_digest(name: str) -> None:
    assert server(of(name))["image"] == f"ghcr.io/team/houses:sha-0123456789ab@sha256:{'0a' * 32}"


@pytest.mark.parametrize(("components", "secrets"), [((), None), (("pull-secret",), [{"name": "registry"}])])
def test_component_pull_secret_lets_pods_pull_a_private_image(
    components: tuple[str, ...], secrets: list[dict[str, str]] | None
) -> None:
    objects = of("production", components)
    account = objects["ServiceAccount"]
    assert account.get("imagePullSecrets") == secrets
    assert account["automountServiceAccountToken"] is False
    assert objects["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_renders_before_the_first_release(name: str) -> None:
    assert server(of(name, deployed=None))["image"] == "model:unreleased"


def test_another_release_changes_only_image_and_annotations() -> None:
    other = replace(RELEASED, image=replace(RELEASED.image, tag="sha-b"), provenance=Provenance(bundle="b"))
    changes = differences(of("production"), of("production", deployed=other))
    annotation = r"\.\w+(\.spec\.template)?\.metadata\.annotations\.slipway/.*"
    assert f".Deployment.{SERVER}.image" in changes
    assert [path for path in changes if not re.fullmatch(annotation, path)] == [f".Deployment.{SERVER}.image"]


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """Return the paths at which two objects differ."""
    if not isinstance(one, dict | list) or type(one) is not type(other):
        return set() if one == other else {path}
    parts = [dict(enumerate(each)) if isinstance(each, list) else each for each in (one, other)]
    return {
        found
        for key in {*parts[0], *parts[1]}
        for found in differences(parts[0].get(key), parts[1].get(key), f"{path}.{key}")
    }


def unintended(staging: Objects, production: Objects) -> list[str]:
    """Return the unintended differences of staging: all except its name, its size and its release."""
    intended = (
        r"\.Namespace\.metadata\.name|.*\.metadata\.namespace|.*\.app\.kubernetes\.io/instance"
        rf"|\.{SCALER}\.spec\.(min|max)Replicas|\.Deployment\.{SERVER}\.image|.*\.annotations\.slipway/.*"
    )
    return sorted(path for path in differences(staging, production) if not re.fullmatch(intended, path))


def test_staging_is_production_but_smaller() -> None:
    staging, production = of("staging"), of("production")
    assert unintended(staging, production) == []
    assert staging[SCALER]["spec"]["maxReplicas"] < production[SCALER]["spec"]["maxReplicas"]
    other = {**staging, "Deployment": changed(staging["Deployment"], "spec.minReadySeconds", 0)}
    assert unintended(other, production) == [".Deployment.spec.minReadySeconds"]
