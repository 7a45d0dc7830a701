"""The scale set of runners gives each job a new Pod with one GPU, without rights in the cluster."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import Manifest, changed, runner
from tests.slipway.manifests.schemas import NEWEST, OLDEST, faults

POD = "spec.values.template.spec"
CONTAINER = f"{POD}.containers.0"


def release() -> Manifest:
    return next(each for each in runner() if each["kind"] == "HelmRelease")


def pod(release: Manifest) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job"}, **release["spec"]["values"]["template"]}


def wrong(release: Manifest) -> list[str]:
    return [what for what, holds in checks(release) if not holds]


def checks(release: Manifest) -> Iterator[tuple[str, bool]]:
    values, spec = release["spec"]["values"], pod(release)["spec"]
    (container,) = spec["containers"]
    yield "is a Pod", faults(pod(release), OLDEST) is None and faults(pod(release), NEWEST) is None
    yield "is the container that the chart starts", container["name"] == "runner" and bool(container["command"])
    yield "has one GPU", container["resources"]["limits"].get("nvidia.com/gpu") == 1
    yield "has no rights in the cluster", spec["automountServiceAccountToken"] is False
    yield "costs nothing without a job", values["minRunners"] == 0
    yield "has its secret in the cluster", isinstance(values["githubConfigSecret"], str)


def test_each_job_gets_a_pod_with_a_gpu_and_no_rights() -> None:
    assert wrong(release()) == []


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (f"{CONTAINER}.commands", [], "is a Pod"),
        (f"{CONTAINER}.name", "job", "is the container that the chart starts"),
        (f"{CONTAINER}.resources.limits", {}, "has one GPU"),
        (f"{POD}.automountServiceAccountToken", True, "has no rights in the cluster"),
        ("spec.values.minRunners", 1, "costs nothing without a job"),
        ("spec.values.githubConfigSecret", {"github_token": "x"}, "has its secret in the cluster"),
    ],
)
def test_each_check_fails(path: str, value: Any, what: str) -> None:
    assert wrong(changed(release(), path, value)) == [what]


def test_the_page_has_the_version_and_the_name_of_the_scale_set() -> None:
    (source,) = [each["spec"] for each in runner() if each["kind"] == "OCIRepository"]
    page = (ROOT / "docs/runners.md").read_text()
    assert f"--version {source['ref']['tag']}" in page
    assert f"SLIPWAY_RUNNER --body {release()['spec']['releaseName']}" in page
