"""What Prometheus and Grafana get of this model. `make manifests` compiles it, by python-kustomize, to `COMPILED`.

This folder is the source that python-kustomize reads: `kustomization.py` names modules beside it and their objects.
"""

from pathlib import Path
from typing import Any

from slipway import atomic
from slipway.artifacts import PARAMS
from slipway.bundle import Column
from slipway.config import Params, load_params
from slipway.contract import load_model
from slipway.pipeline.tensors import describe

SOURCE = Path(__file__).parent
COMPILED = Path("kustomize/components/monitoring/compiled")
HEADER = """\
# Made by `make manifests` from src/slipway/monitoring/monitoring/, params.yaml and src/model/: edit those, not this.
"""


def compile_to(folder: Path) -> None:
    """Write the manifests, whole or not at all; raises InputError where src/model or params.yaml is wrong."""
    from kustomize import generators

    generators.yaml.SafeDumper.add_representer(str, _text)
    with atomic.replacing(folder) as fresh:
        generators.generate(SOURCE, fresh)
        for file in fresh.rglob("*.yaml"):
            file.write_text(HEADER + file.read_text(encoding="utf-8"), encoding="utf-8", newline="\n")


def read() -> tuple[Params, tuple[Column, ...]]:
    """What people tune, and the features that the next model looks at; raises InputError where either is wrong."""
    params = load_params(PARAMS)
    return params, describe(load_model(), params.task.kind, None).columns


def _text(dumper: Any, text: str) -> Any:
    """Queries stay on the lines that they were written on."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
