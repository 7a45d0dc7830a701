"""The scheduler and the workers run the image of the batch with its restrictions, and only each other reach them."""

import pytest

from slipway.release.history import overlay_file
from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import OVERLAYS, RELEASED, Objects, of, value_at

POD = "spec.template.spec"
BATCH = "batch CronJob"
BATCH_POD = f"spec.jobTemplate.{POD}"
PARTS = ("dask-scheduler", "dask-worker")
PORTS = {"dask-scheduler": 8786, "dask-worker": 8790}
MAY_CONNECT = {("batch", "dask-scheduler"), ("dask-worker", "dask-scheduler")} | {
    (each, "dask-worker") for each in PARTS
}
"""The pairs of parts of which the first one connects to the second one."""


@pytest.fixture(scope="module", params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return of(request.param, ("batch", "dask"))


@pytest.mark.parametrize("part", PARTS)
def test_the_pods_are_restricted_like_the_batch_and_run_its_image(part: str, objects: Objects) -> None:
    pod, batch = value_at(objects[f"{part} Deployment"], POD), value_at(objects[BATCH], BATCH_POD)
    for name in ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "securityContext"):
        assert pod[name] == batch[name]
    (container,), (other,) = pod["containers"], batch["containers"]
    assert RELEASED.batch
    assert container["image"] == other["image"]
    assert RELEASED.batch.tag in container["image"]
    assert container["securityContext"] == other["securityContext"]
    limits = container["resources"]["limits"]
    assert set(limits) == {"cpu", "memory", "ephemeral-storage"}
    assert limits["memory"] == container["resources"]["requests"]["memory"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_the_batch_and_the_workers_use_the_address_of_the_service(objects: Objects) -> None:
    service, scheduler = objects["dask-scheduler Service"], objects["dask-scheduler Deployment"]
    assert service["spec"]["selector"].items() <= value_at(scheduler, "spec.template.metadata.labels").items()
    (port,) = service["spec"]["ports"]
    address = f"tcp://{service['metadata']['name']}:{port['port']}"
    assert port["port"] == PORTS["dask-scheduler"]
    assert value_at(objects["dask-worker Deployment"], f"{POD}.containers.0.args.0") == address
    assert value_at(objects[BATCH], f"{BATCH_POD}.containers.0.args") == [
        "/data/input",
        "/data/output",
        f"--dask={address}",
    ]


def test_workers_have_the_files_of_the_batch(objects: Objects) -> None:
    worker, batch = value_at(objects["dask-worker Deployment"], POD), value_at(objects[BATCH], BATCH_POD)
    (data,) = [each for each in batch["volumes"] if each["name"] == "data"]
    assert data in worker["volumes"]
    (mount,) = [each for each in batch["containers"][0]["volumeMounts"] if each["name"] == "data"]
    assert mount in worker["containers"][0]["volumeMounts"]
    assert value_at(objects["batch PersistentVolumeClaim"], "spec.accessModes") == ["ReadWriteMany"]


def test_only_the_batch_and_dask_reach_the_scheduler_and_the_workers(objects: Objects) -> None:
    """A network policy for both ends allows each connection that Dask needs, and no other one."""
    pods = {part: value_at(objects[f"{part} Deployment"], "spec.template.metadata.labels") for part in PARTS}
    pods["batch"] = value_at(objects[BATCH], "spec.jobTemplate.spec.template.metadata.labels")
    pods["server"] = value_at(objects["Deployment"], "spec.template.metadata.labels")
    policies = {part: objects[f"{part} NetworkPolicy"]["spec"] for part in (*PARTS, "batch")}
    for part, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert [each for each, has in pods.items() if policy["podSelector"]["matchLabels"].items() <= has.items()] == [
            part
        ]
    into = {(sender, part) for part in PARTS for sender in allowed(policies[part]["ingress"], "from", part, pods)}
    out = {
        (part, to) for part in policies for port in PARTS for to in allowed(policies[part]["egress"], "to", port, pods)
    }
    assert into == MAY_CONNECT
    assert out == MAY_CONNECT


def allowed(rules: list[Objects], direction: str, part: str, pods: dict[str, dict[str, str]]) -> set[str]:
    """Return the parts that rules allow for the port of a part. Rules without pods are for names of hosts."""
    found = set()
    for rule in rules:
        ports = [each["port"] for each in rule["ports"]]
        if direction not in rule:
            assert set(ports) == {53}
        elif ports == [PORTS[part]]:
            selectors = [each["podSelector"]["matchLabels"] for each in rule[direction]]
            found |= {name for name, has in pods.items() if any(each.items() <= has.items() for each in selectors)}
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_component_is_between_the_batch_and_the_release_in_each_overlay(overlay: str) -> None:
    text = (ROOT / overlay_file(overlay)).read_text()
    assert text.index("components/batch") < text.index("components/dask") < text.index("  - release")
