"""Imports go one way, and dvc.yaml names the code that each stage runs."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

SRC = ROOT / "src"
ROOMS = {  # room → the rooms it may import from
    "pipeline": set(),
    "review": {"pipeline"},
    "release": {"review", "serving"},
    "serving": set(),
    "watch": {"pipeline", "review", "release", "serving"},
    "demo": {"pipeline", "review", "release"},
    "doctor": {"review", "release", "watch"},  # looks at what each of them needs; none imports it
}
SERVING_MODULES = (
    "slipway.bundle",
    "slipway.errors",
    *sorted(f"slipway.serving.{path.stem}" for path in (SRC / "slipway/serving").glob("[!_]*.py")),
    "slipway.serving.__main__",
)
SERVING_PACKAGES = {
    re.split(r"[^\w-]", line)[0].replace("-", "_")
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
} | {"starlette"}  # FastAPI's own foundation
# What these define reaches a stage's output only through its own module: the types of files, errors, the contract, and
# the reading of params, whose values dvc.yaml follows. Naming them would train again at every update of the machinery.
NO_OUTPUT = {"slipway", "slipway.artifacts", "slipway.atomic", "slipway.config", "slipway.contract", "slipway.errors"}
NO_OUTPUT |= {"slipway.pipeline"}


def module_path(module: str) -> Path | None:
    path = SRC.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def imported(path: Path) -> set[str]:
    """The modules that a file imports, at its top or inside."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if module_path(name)} or {node.module}
    return found


def closure(module: str) -> set[str]:
    todo, seen = {module}, set()
    while todo:
        current = todo.pop()
        path = module_path(current)
        if path is None or current in seen:
            continue
        seen.add(current)
        todo |= {name for name in imported(path) if name.split(".")[0] == "slipway"}
    return seen


def files(folder: str) -> list[Path]:
    return sorted((SRC / folder).rglob("*.py"))


def test_the_model_imports_nothing_of_slipway() -> None:
    for path in files("model"):
        assert not [name for name in imported(path) if name.split(".")[0] == "slipway"], path


def test_only_the_contract_imports_the_model() -> None:
    importers = {path.name for path in files("slipway") if {"model"} & {n.split(".")[0] for n in imported(path)}}
    assert importers == {"contract.py"}


@pytest.mark.parametrize("path", files("slipway"), ids=lambda path: str(path.relative_to(SRC)))
def test_rooms_import_along_the_arrows(path: Path) -> None:
    room = path.relative_to(SRC / "slipway").parts[0]
    if room not in ROOMS:
        if room not in ("cli", "__main__.py"):
            assert not {name.split(".")[1] for name in imported(path) if name.startswith("slipway.")} & set(ROOMS)
        return
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("slipway.")} & set(ROOMS)
    assert rooms <= ROOMS[room] | {room}


def test_every_room_is_known() -> None:
    assert {path.parent.name for path in (SRC / "slipway").glob("*/__init__.py")} == set(ROOMS) | {"cli"}


@pytest.mark.parametrize("module", SERVING_MODULES)
def test_a_bundle_needs_only_what_serving_has(module: str) -> None:
    path = module_path(module)
    assert path
    packages = {name.split(".")[0] for name in imported(path)}
    import sys

    assert packages - sys.stdlib_module_names - {"slipway"} <= SERVING_PACKAGES
    assert {name for name in imported(path) if name.startswith("slipway.")} <= set(SERVING_MODULES)


@pytest.mark.parametrize("stage", ["validate", "split", "train", "evaluate", "gate"])
def test_dvc_follows_the_code_of_each_stage(stage: str) -> None:
    """A stage runs again when code changes that can change what it writes."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    needed = closure(f"slipway.pipeline.{stage}") - NO_OUTPUT
    missing = {str(module_path(name).relative_to(ROOT)) for name in needed} - set(declared)  # type: ignore[union-attr]
    assert not missing
