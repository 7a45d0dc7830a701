"""Rendered manifests, as a cluster gets them."""

import copy
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from slipway.config import PredictionLog
from slipway.monitoring.manifests import PREDICTION_LOG
from slipway.monitoring.manifests.prediction_log import component, settings_patch
from slipway.provenance import Provenance
from slipway.release.component import Deployed, Image, render
from slipway.release.history import overlay_file, release_file
from tests.slipway.conftest import ROOT
from tests.slipway.tools import require

Manifest = dict[str, Any]
Objects = dict[str, Manifest]
"""Objects by kind, of which each part has one."""
OVERLAYS = sorted(folder.name for folder in (ROOT / "kustomize/overlays").iterdir())
AGENTS = sorted(folder.name for folder in (ROOT / "kustomize/agents").iterdir())
COMPONENTS = sorted(folder.name for folder in (ROOT / "kustomize/components").iterdir())
LOGGED = PredictionLog(address="s3://logs/houses/", image="ghcr.io/team/log-shipper:1", share=0.1, keep_days=90)
"""The settings of the prediction log, if its component is among the chosen ones."""
PARTS = ("batch", "dask-scheduler", "dask-worker", "stable", "canary")
"""The parts of the model besides its server, and the Services of a traffic split. Their objects have these names in the
label `component`."""
RELEASED = Deployed(
    Image("ghcr.io/team/houses", "sha-0123456789ab", f"sha256:{'0a' * 32}"),
    Provenance(bundle="1e5", data="012", commit="0123", created="2026-11-24", verdict="ship", reason='it is: "better"'),
    "3",
    Image("ghcr.io/team/houses", "sha-0123456789ab-batch", f"sha256:{'0b' * 32}"),
)
"""A release whose values other readers of YAML would take for numbers and dates."""
CHOICES = [choice for n in (0, 1, 2, len(COMPONENTS)) for choice in itertools.combinations(COMPONENTS, n)]
"""Sets of components: each alone, each pair, and all."""


def overlay(name: str, components: tuple[str, ...] = (), deployed: Deployed | None = RELEASED) -> list[Manifest]:
    """Render an overlay with components and a release, or without a release as in this repository."""
    return list(yaml.load_all(_overlay(name, components, deployed), yaml.CSafeLoader))


def of(name: str, components: tuple[str, ...] = (), deployed: Deployed | None = RELEASED) -> Objects:
    """Render an overlay, and return its objects by kind. Keys of objects of other parts start with their part."""
    return {_key(each): each for each in overlay(name, components, deployed)}


def _key(manifest: Manifest) -> str:
    part = manifest["metadata"].get("labels", {}).get("app.kubernetes.io/component")
    return f"{part} {manifest['kind']}" if part in PARTS else str(manifest["kind"])


@functools.cache
def _overlay(name: str, components: tuple[str, ...], deployed: Deployed | None) -> str:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "kustomize", Path(folder, "kustomize"))
        file = Path(folder, overlay_file(name))
        content = yaml.safe_load(file.read_text())
        paths = {each: f"../../components/{each}" for each in components}
        # The release sets the images of those before it.
        first = [paths.pop(each) for each in ("batch", "dask") if each in paths]
        log = paths.pop("prediction-log", None)  # each overlay has it, without settings
        if log:
            _write_settings(Path(folder, "kustomize/components", PREDICTION_LOG))
        content["components"] = [*first, *content["components"], *paths.values()]
        file.write_text(yaml.safe_dump(content))
        if deployed:
            Path(folder, release_file(name)).write_bytes(render(deployed))
        return kustomize(file.parent)


def _write_settings(compiled: Path) -> None:
    (compiled / "kustomization.yaml").write_text(yaml.safe_dump(component(LOGGED)))
    (compiled / "settings.yaml").write_text(yaml.safe_dump(settings_patch(LOGGED)))


def agent(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all(kustomize(ROOT / "kustomize/agents" / name)))


def runner() -> list[Manifest]:
    return list(yaml.safe_load_all(kustomize(ROOT / "kustomize/runner")))


def kustomize(folder: Path) -> str:
    done = subprocess.run([require("kustomize"), "build", str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # kustomize warns about deprecated fields
    return done.stdout


def value_at(manifest: Any, path: str) -> Any:
    """Return the value at a path like `spec.template.spec.containers.0.image`."""
    for step in path.split("."):
        manifest = manifest[int(step) if isinstance(manifest, list) else step]
    return manifest


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """Return a copy of an object with another value at a path."""
    made = copy.deepcopy(manifest)
    way, _, last = path.rpartition(".")
    inside = value_at(made, way)
    inside[int(last) if isinstance(inside, list) else last] = value
    return made
