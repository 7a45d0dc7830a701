"""Compile the alerts, the canary analysis and the settings of the prediction log. `make manifests` runs this module.

This folder, `canary_manifests` and `canary_loss_manifests` are the sources that python-kustomize reads. In each folder,
`kustomization.py` lists the objects to compile.
"""

from pathlib import Path
from typing import Any

from slipway import atomic
from slipway.artifacts import PARAMS
from slipway.config import load_params
from slipway.monitoring.manifests.prediction_log import component, settings_patch

COMPONENTS = Path("kustomize/components")
SOURCES = {
    "monitoring/compiled": Path(__file__).parent,
    "canary-analysis/compiled": Path(__file__).parents[1] / "canary_manifests",
    "canary-loss/compiled": Path(__file__).parents[1] / "canary_loss_manifests",
}
"""Maps each compiled folder below COMPONENTS to the source folder that it is compiled from."""
PREDICTION_LOG = "prediction-log/compiled"
"""Folder below COMPONENTS with the settings of the prediction log. python-kustomize cannot compile its patches."""
HEADER = "# Written by `make manifests` from params.yaml and src/model/. Do not edit.\n"


def compile_to(components: Path) -> None:
    """Replace the compiled folders of `components`. Raises InputError if src/model or params.yaml is invalid."""
    from kustomize import generators

    generators.yaml.SafeDumper.add_representer(str, _represent_text)
    for folder, source in SOURCES.items():
        with atomic.replacing(components / folder) as fresh:
            generators.generate(source, fresh)
            for file in fresh.rglob("*.yaml"):
                _write(file, file.read_text(encoding="utf-8"))
    settings = load_params(PARAMS).prediction_log
    with atomic.replacing(components / PREDICTION_LOG) as fresh:
        fresh.mkdir()
        _write(fresh / "kustomization.yaml", generators.yaml.safe_dump(component(settings)))
        if settings:
            _write(fresh / "settings.yaml", generators.yaml.safe_dump(settings_patch(settings)))


def _write(file: Path, text: str) -> None:
    file.write_text(HEADER + text, encoding="utf-8", newline="\n")


def _represent_text(dumper: Any, text: str) -> Any:
    """Write text with several lines as a YAML block, so that queries are readable."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
