"""The job that scores files has the released model and no more rights than the server, and never runs twice at once."""

import pytest

from slipway.errors import CheckFailed
from slipway.release.history import overlay_file
from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import OVERLAYS, RELEASED, Manifest, of, value_at

JOB = "spec.jobTemplate.spec"
POD = f"{JOB}.template.spec"
NAME = "app.kubernetes.io/name"


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    return of(request.param, ("batch",))


def container(objects: dict[str, Manifest]) -> Manifest:
    (only,) = value_at(objects["batch CronJob"], f"{POD}.containers")
    return dict(only)


def test_the_job_runs_the_batch_image_of_the_release(objects: dict[str, Manifest]) -> None:
    assert RELEASED.batch
    image = RELEASED.batch
    assert container(objects)["image"] == f"{image.name}:{image.tag}@{image.digest}"
    metadata = value_at(objects["batch CronJob"], f"{JOB}.template.metadata")
    assert RELEASED.provenance.annotations().items() <= metadata["annotations"].items()


def test_the_pod_is_restricted_like_the_server(objects: dict[str, Manifest]) -> None:
    pod, server = value_at(objects["batch CronJob"], POD), value_at(objects["Deployment"], "spec.template.spec")
    for name in ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"):
        assert pod[name] == server[name]
    assert server["securityContext"].items() <= pod["securityContext"].items()
    assert container(objects)["securityContext"] == server["containers"][0]["securityContext"]
    limits = container(objects)["resources"]["limits"]
    assert set(limits) == {"cpu", "memory", "ephemeral-storage"}
    assert limits["memory"] == container(objects)["resources"]["requests"]["memory"]


def test_the_service_sends_no_requests_to_the_job(objects: dict[str, Manifest]) -> None:
    labels = value_at(objects["batch CronJob"], f"{JOB}.template.metadata.labels")
    for selector in (
        objects["Service"]["spec"]["selector"],
        objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert not selector.items() <= labels.items()
    policy = objects["batch NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert (policy["policyTypes"], policy["ingress"], policy["egress"]) == (["Ingress", "Egress"], [], [])


def test_one_job_runs_at_a_time_and_a_bad_file_is_not_retried(objects: dict[str, Manifest]) -> None:
    job = objects["batch CronJob"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    first = value_at(job, "jobTemplate.spec.podFailurePolicy.rules.0")
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [CheckFailed.exit_code])
    assert first["onExitCodes"]["containerName"] == container(objects)["name"]
    assert value_at(job, "jobTemplate.spec.template.spec.restartPolicy") == "Never"


def test_input_and_output_are_in_the_volume(objects: dict[str, Manifest]) -> None:
    (data,) = [each for each in container(objects)["volumeMounts"] if each["name"] == "data"]
    source, output = container(objects)["args"]
    assert source.startswith(f"{data['mountPath']}/")
    assert output.startswith(f"{data['mountPath']}/")
    assert not output.startswith(source)
    claims = {
        each["name"]: each.get("persistentVolumeClaim") for each in value_at(objects["batch CronJob"], POD)["volumes"]
    }
    assert claims["data"] == {"claimName": objects["batch PersistentVolumeClaim"]["metadata"]["name"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_component_is_above_the_release_in_each_overlay(overlay: str) -> None:
    """A release sets only the images of components above it."""
    lines = (ROOT / overlay_file(overlay)).read_text().splitlines()
    (batch,) = [number for number, line in enumerate(lines) if "components/batch" in line]
    (release,) = [number for number, line in enumerate(lines) if line.startswith("  - release")]
    assert batch < release
