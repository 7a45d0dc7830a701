"""The manifests as a cluster gets them."""

import copy
import functools
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.slipway.conftest import ROOT
from tests.slipway.tools import require

Manifest = dict[str, Any]
Objects = dict[str, Manifest]
"""By their kinds: an overlay has one of each."""
OVERLAYS = sorted(folder.name for folder in (ROOT / "kustomize/overlays").iterdir())
AGENTS = sorted(folder.name for folder in (ROOT / "kustomize/agents").iterdir())
COMPONENTS = sorted(folder.name for folder in (ROOT / "kustomize/components").iterdir())
CHOICES = [choice for n in range(len(COMPONENTS) + 1) for choice in itertools.combinations(COMPONENTS, n)]


def overlay(name: str, components: tuple[str, ...] | None = None, **image: str) -> list[Manifest]:
    """The objects of an overlay as it is, or with other components, or with another image; a copy for each caller."""
    return list(yaml.load_all(_overlay(name, components, tuple(image.items())), yaml.CSafeLoader))


def of(name: str, components: tuple[str, ...] | None = (), **image: str) -> Objects:
    return {each["kind"]: each for each in overlay(name, components, **image)}


@functools.cache
def _overlay(name: str, components: tuple[str, ...] | None, image: tuple[tuple[str, str], ...]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "kustomize", folder, dirs_exist_ok=True)
        file = Path(folder, "overlays", name, "kustomization.yaml")
        said = yaml.safe_load(file.read_text())
        if components is not None:
            said["components"] = [f"../../components/{each}" for each in components]
        said["images"][0].update(image)
        file.write_text(yaml.safe_dump(said))
        return kustomize(file.parent)


def agent(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all(kustomize(ROOT / "kustomize/agents" / name)))


def kustomize(folder: Path) -> str:
    done = subprocess.run([require("kustomize"), "build", str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # it warns of what is deprecated
    return done.stdout


def value_at(manifest: Any, path: str) -> Any:
    """What a path leads to, as `spec.template.spec.containers.0.image`."""
    for step in path.split("."):
        manifest = manifest[int(step) if isinstance(manifest, list) else step]
    return manifest


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """The same object with another value."""
    made = copy.deepcopy(manifest)
    way, _, last = path.rpartition(".")
    inside = value_at(made, way)
    inside[int(last) if isinstance(inside, list) else last] = value
    return made
