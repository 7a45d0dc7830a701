"""Admission: the API server accepts the manifests, and rejects pods with more rights."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.slipway.cluster.conftest import KUSTOMIZE, OVERLAYS
from tests.slipway.cluster.kubectl import Cluster, Production

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.usefixtures("namespaces")
def test_cluster_accepts_the_overlay(cluster: Cluster, name: str) -> None:
    overlay = KUSTOMIZE / "overlays" / name
    cluster.must("apply", "--dry-run=server", "--warnings-as-errors", f"--kustomize={overlay}")


def pod(production: Production, change: Change) -> dict[str, Any]:
    """Return a pod of the Deployment with a change."""
    rendered = yaml.safe_load_all(production.cluster.must("kustomize", str(KUSTOMIZE / "overlays/production")))
    (template,) = [each["spec"]["template"] for each in rendered if each["kind"] == "Deployment"]
    change(template["spec"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": template["spec"]}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("runAsNonRoot", lambda spec: spec["securityContext"].update(runAsNonRoot=False, runAsUser=0)),
        ("seccompProfile", lambda spec: spec["securityContext"].pop("seccompProfile")),
        ("allowPrivilegeEscalation", lambda spec: spec["containers"][0]["securityContext"].clear()),
        ("hostNetwork", lambda spec: spec.update(hostNetwork=True)),
    ],
)
def test_cluster_rejects_a_pod_with_more_rights(production: Production, what: str, change: Change) -> None:
    trial = ("create", "--dry-run=server", "--filename=-", f"--namespace={production.namespace}")
    assert production.cluster.run(*trial, manifest=pod(production, lambda spec: spec)).returncode == 0
    refused = production.cluster.run(*trial, manifest=pod(production, change))
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr
    assert what in refused.stderr
