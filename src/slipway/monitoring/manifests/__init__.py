"""Compile the Prometheus alerts and the canary analysis with python-kustomize. `make manifests` runs this module.

This folder, `canary_manifests` and `canary_loss_manifests` are the sources that python-kustomize reads. Their files
`kustomization.py` list modules and the objects in them.
"""

from pathlib import Path
from typing import Any

from slipway import atomic

COMPONENTS = Path("kustomize/components")
SOURCES = {
    "monitoring/compiled": Path(__file__).parent,
    "canary-analysis/compiled": Path(__file__).parents[1] / "canary_manifests",
    "canary-loss/compiled": Path(__file__).parents[1] / "canary_loss_manifests",
}
"""Folder below COMPONENTS that is compiled → the source folder that it is compiled from."""
HEADER = "# Written by `make manifests` from params.yaml and src/model/. Do not edit.\n"


def compile_to(components: Path) -> None:
    """Replace the compiled folders of `components`. Raises InputError if src/model or params.yaml is invalid."""
    from kustomize import generators

    generators.yaml.SafeDumper.add_representer(str, _represent_text)
    for folder, source in SOURCES.items():
        with atomic.replacing(components / folder) as fresh:
            generators.generate(source, fresh)
            for file in fresh.rglob("*.yaml"):
                file.write_text(HEADER + file.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")


def _represent_text(dumper: Any, text: str) -> Any:
    """Write text with several lines as a YAML block, so that queries are readable."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
