"""Validation of objects by the schemas of Kubernetes or the definition of their kind. Unknown fields are errors."""

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.slipway.manifests.rendering import Manifest
from tests.slipway.tools import require

OLDEST = "1.30"  # as kustomize/base/deployment.yaml requires
NEWEST = kubernetes_validate.latest_version()
ARGO_CD = "github.com/argoproj/argo-cd/v3@v3.5.7"
MONITORING = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
DEFINITIONS = {  # the projects publish them in these Go modules
    "HTTPRoute": ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    "ServiceMonitor": (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml"),
    "PrometheusRule": (MONITORING, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"),
    "Rollout": ("github.com/argoproj/argo-rollouts@v1.10.1", "manifests/crds/rollout-crd.yaml"),
    "AnalysisTemplate": ("github.com/argoproj/argo-rollouts@v1.10.1", "manifests/crds/analysis-template-crd.yaml"),
    "Application": (ARGO_CD, "manifests/crds/application-crd.yaml"),
    "AppProject": (ARGO_CD, "manifests/crds/appproject-crd.yaml"),
    "GitRepository": (
        "github.com/fluxcd/source-controller@v1.9.6",
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
    "OCIRepository": (
        "github.com/fluxcd/source-controller@v1.9.6",
        "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml",
    ),
    "HelmRelease": (
        "github.com/fluxcd/helm-controller@v1.6.1",
        "config/crd/bases/helm.toolkit.fluxcd.io_helmreleases.yaml",
    ),
    "Kustomization": (
        "github.com/fluxcd/kustomize-controller@v1.9.6",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
}


def faults(manifest: Manifest, kubernetes: str) -> str | None:
    """Return the first error in an object, or None."""
    if manifest["kind"] not in DEFINITIONS:
        return _fault_by_kubernetes(json.dumps(manifest), kubernetes)
    # The definition of a kind does not describe metadata, which are equal for all kinds.
    described = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]}
    error = next(_definition(manifest["kind"], manifest["apiVersion"]).iter_errors(manifest), None)
    return error.message if error else _fault_by_kubernetes(json.dumps(described), kubernetes)


@functools.cache
def _fault_by_kubernetes(manifest: str, kubernetes: str) -> str | None:
    try:
        kubernetes_validate.validate(json.loads(manifest), kubernetes, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


@functools.cache
def _definition(kind: str, api: str) -> jsonschema.Draft202012Validator:
    module, path = DEFINITIONS[kind]
    with tempfile.TemporaryDirectory() as outside_of_any_module:
        command = [require("go"), "mod", "download", "-json", module]
        done = subprocess.run(command, cwd=outside_of_any_module, capture_output=True, text=True, check=True)
    defined = yaml.load((Path(json.loads(done.stdout)["Dir"]) / path).read_text(), yaml.CSafeLoader)["spec"]
    group, name = api.split("/")
    assert (defined["group"], defined["names"]["kind"]) == (group, kind)
    (version,) = [each for each in defined["versions"] if each["name"] == name and each["served"]]
    return jsonschema.Draft202012Validator(_closed(version["schema"]["openAPIV3Schema"]))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Convert an OpenAPI schema to JSON Schema that rejects unknown fields."""
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {name: _closed(each) for name, each in made["properties"].items()}
        made.setdefault("additionalProperties", made.get("x-kubernetes-preserve-unknown-fields", False))
    for key in ("items", "additionalProperties"):
        if isinstance(made.get(key), dict):
            made[key] = _closed(made[key])
    if made.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made
