"""params.yaml switches the prediction log of a cluster on. Without the section, the manifests are unchanged."""

import shutil
from pathlib import Path

import pytest
import yaml

from slipway.monitoring.manifests import PREDICTION_LOG, compile_to
from tests.slipway.conftest import ROOT
from tests.slipway.manifests.rendering import LOGGED, OVERLAYS, kustomize, of, value_at

POD = "spec.template.spec"
SECTION = """
prediction_log:
  address: s3://logs/houses/
  image: ghcr.io/team/log-shipper:1
  share: 0.1
  keep_days: 90
"""


@pytest.mark.parametrize("environment", OVERLAYS)
def test_without_the_section_nothing_is_logged(environment: str) -> None:
    objects = of(environment)
    assert "initContainers" not in value_at(objects["Deployment"], POD)
    assert "PREDICTION_LOG" not in str(objects)


@pytest.mark.parametrize("environment", OVERLAYS)
def test_the_section_sets_share_retention_address_and_image(environment: str) -> None:
    deployment = of(environment, ("prediction-log",))["Deployment"]
    (server,), (shipper,) = (value_at(deployment, f"{POD}.{kind}") for kind in ("containers", "initContainers"))
    assert {"name": "SLIPWAY_PREDICTION_LOG_SHARE", "value": "0.1"} in server["env"]
    assert shipper["image"] == LOGGED.image
    first, address, keep = shipper["env"]  # Kubernetes only replaces variables that are defined before
    assert value_at(deployment, "spec.template.metadata.labels")["app.kubernetes.io/instance"] == environment
    assert first["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['app.kubernetes.io/instance']"
    assert address == {
        "name": "SLIPWAY_PREDICTION_LOG_ADDRESS",
        "value": f"s3://logs/houses/$({first['name']})",
    }
    assert keep == {"name": "SLIPWAY_PREDICTION_LOG_KEEP_DAYS", "value": "90"}


def test_make_manifests_compiles_the_section_and_its_removal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "kustomize", "kustomize")
    compiled, params = tmp_path / "kustomize/components" / PREDICTION_LOG, (ROOT / "params.yaml").read_text()
    before = kustomize(tmp_path / "kustomize/overlays/production")
    Path("params.yaml").write_text(params + SECTION)
    compile_to(Path("kustomize/components"))
    rendered = list(yaml.safe_load_all(kustomize(tmp_path / "kustomize/overlays/production")))
    (deployment,) = [each for each in rendered if each["kind"] == "Deployment"]
    assert deployment == of("production", ("prediction-log",), deployed=None)["Deployment"]
    Path("params.yaml").write_text(params)
    compile_to(Path("kustomize/components"))
    assert [file.name for file in compiled.iterdir()] == ["kustomization.yaml"]
    assert kustomize(tmp_path / "kustomize/overlays/production") == before
