"""kube-score finds nothing in the overlays, except for the checks that are turned off with a reason."""

import json
import re
import subprocess
from typing import Any

import pytest

from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import OVERLAYS, Manifest, changed, overlay
from tests.slipway.tools import require

BEYOND = ("container-memory-requests-equal-limits", "container-seccomp-profile", "container-ports-check")
CONTAINER = "spec.template.spec.containers.0"


def findings(manifests: list[Manifest]) -> list[str]:
    optional = [word for check in BEYOND for word in ("--enable-optional-test", check)]
    command = [require("kube-score"), "score", "--exit-one-on-warning", "--output-format", "ci", *optional, "-"]
    # As JSON, because PyYAML writes the text 1e5 without quotes, which Go reads as a number.
    text = "\n---\n".join(map(json.dumps, manifests))
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert any(line.startswith("[OK]") for line in lines), done.stderr
    found = [line for line in lines if not line.startswith(("[OK]", "[SKIPPED]"))]
    assert done.returncode == bool(found)
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_kube_score_finds_nothing(name: str) -> None:
    assert findings(overlay(name, ())) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "says"),
    [
        ("Deployment", f"{CONTAINER}.securityContext.readOnlyRootFilesystem", False, "writable root filesystem"),
        ("Deployment", f"{CONTAINER}.readinessProbe.httpGet.path", "/healthz", "same readiness"),
        ("Deployment", f"{CONTAINER}.image", "model:latest", "latest"),
        ("Deployment", f"{CONTAINER}.resources.limits.memory", "1Gi", "Memory requests"),
        ("Deployment", "spec.template.spec.securityContext.runAsUser", 1000, "user ID"),
        ("Deployment", "spec.replicas", 3, "HPA"),
        ("Deployment", "metadata.annotations", {}, "CPU limit"),
        ("PodDisruptionBudget", "spec.selector.matchLabels", {"a": "b"}, "PodDisruptionBudget"),
        ("NetworkPolicy", "spec.podSelector.matchLabels", {"a": "b"}, "NetworkPolicy"),
        ("Service", "spec.selector", {"a": "b"}, "selector"),
        ("HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "other", "HPA target"),
    ],
)
def test_kube_score_finds_a_faulty_manifest(kind: str, path: str, value: Any, says: str) -> None:
    wrong = [changed(each, path, value) if each["kind"] == kind else each for each in overlay("production", ())]
    assert says in "\n".join(findings(wrong))


def unexplained(text: str) -> list[str]:
    """Return the exceptions without a reason above them."""
    ignored = [check for line in re.findall("kube-score/ignore: (.*)", text) for check in line.split(",")]
    return [check for check in ignored if not re.search(rf"# {check}: \w+ \w+ \w+", text)]


def test_each_exception_has_a_reason() -> None:
    texts = [file.read_text() for file in (ROOT / "kustomize").rglob("*.yaml")]
    assert [unexplained(text) for text in texts if unexplained(text)] == []
    (excepted,) = [text for text in texts if "kube-score/ignore" in text]
    assert unexplained(excepted.replace("container-resources: no CPU limit", "container-resources:"))
