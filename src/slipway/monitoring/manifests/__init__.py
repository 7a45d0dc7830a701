"""Compile the Prometheus alerts of this model with python-kustomize. `make manifests` runs it.

This folder is the source that python-kustomize reads: `kustomization.py` lists modules and the objects in them.
"""

from pathlib import Path
from typing import Any

from slipway import atomic

SOURCE = Path(__file__).parent
COMPILED = Path("kustomize/components/monitoring/compiled")
HEADER = "# Written by `make manifests` from params.yaml and src/model/. Do not edit.\n"


def compile_to(folder: Path) -> None:
    """Replace `folder` with the compiled manifests. Raises InputError if src/model or params.yaml is invalid."""
    from kustomize import generators

    generators.yaml.SafeDumper.add_representer(str, _represent_text)
    with atomic.replacing(folder) as fresh:
        generators.generate(SOURCE, fresh)
        for file in fresh.rglob("*.yaml"):
            file.write_text(HEADER + file.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")


def _represent_text(dumper: Any, text: str) -> Any:
    """Write text with several lines as a YAML block, so that queries are readable."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
