"""Packages import only the packages that the table allows, and dvc.yaml lists the code that each stage runs."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from slipway.artifacts import BATCH_SOURCES, SOURCES
from tests.slipway.conftest import ROOT

SRC = ROOT / "src"
SHARED = {"integrations", "statistics"}
"""The packages that every package may import. They import the shared modules and nothing else."""
PACKAGES = {
    package: {*re.findall(r"`(\w+)`", others)}
    for package, others in re.findall(
        r"^\| `(\w+)` \| (none|`.+`) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
}
"""The other packages that each package may import, from the table in docs/architecture.md."""
SERVING_MODULES = (
    "slipway.bundle",
    "slipway.errors",
    "slipway.images",
    "slipway.provenance",
    "slipway.statistics.bins",
    *sorted(f"slipway.serving.{path.stem}" for path in (SRC / "slipway/serving").glob("[!_]*.py")),
    "slipway.serving.__main__",
)
SERVING_PACKAGES = {
    re.split(r"[^\w-]", line)[0].replace("-", "_")
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
} | {"starlette", "PIL"}  # FastAPI's own foundation, and requirements/images.in
# These modules define the types of files, errors, the contract, and the reading of params, whose values dvc.yaml lists.
# They cannot change the output of a stage by themselves. Listing them would cause a training at every update.
NO_OUTPUT = {"slipway", "slipway.artifacts", "slipway.atomic", "slipway.config", "slipway.contract", "slipway.errors"}
NO_OUTPUT |= {"slipway.pipeline", "slipway.statistics", "slipway.integrations", "slipway.integrations.compute"}


def module_path(module: str) -> Path | None:
    path = SRC.joinpath(*module.split("."))
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, at its top or in functions."""
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


def packages_imported(path: Path) -> set[str]:
    """Return the packages of `slipway` that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("slipway.")}
    return {name for name in names if (SRC / "slipway" / name).is_dir()}


@pytest.mark.parametrize("path", files("slipway"), ids=lambda path: str(path.relative_to(SRC)))
def test_packages_import_only_what_the_table_allows(path: Path) -> None:
    package = path.relative_to(SRC / "slipway").parts[0]
    if package == "cli":
        allowed = {"cli", *PACKAGES, *SHARED}
    elif package == "__main__.py":
        allowed = {"cli"}
    elif package in PACKAGES:
        allowed = {package, *PACKAGES[package], *SHARED}
    else:
        allowed = {package} & SHARED
    assert packages_imported(path) <= allowed


def test_the_table_lists_every_package() -> None:
    assert {path.parent.name for path in (SRC / "slipway").glob("*/__init__.py")} == {*PACKAGES, *SHARED, "cli"}


READS_ENVIRONMENT = {
    "slipway/__init__.py",  # disables telemetry
    "slipway/integrations/process.py",  # passes the environment on to programs
    "slipway/serving/__main__.py",  # the entry point of the image
}


def reads_environment(path: Path) -> bool:
    nodes = ast.walk(ast.parse(path.read_text()))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os"}
    return bool(names & {"environ", "environb", "getenv", "putenv"})


def test_only_entry_points_read_the_environment() -> None:
    """Other modules get variables as arguments, so that they are visible in signatures and tests."""
    readers = {str(path.relative_to(SRC)) for path in files("slipway") if reads_environment(path)}
    assert {path for path in readers if not path.startswith("slipway/cli/")} == READS_ENVIRONMENT


def test_one_module_runs_programs() -> None:
    importers = {path.name for path in files("slipway") if "subprocess" in imported(path)}
    assert importers == {"process.py"}


def test_one_module_reads_and_writes_the_files_of_github_actions() -> None:
    variables = ("GITHUB_EVENT_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_RUN_ID")
    users = {path.name for path in files("slipway") if any(f'"{name}"' in path.read_text() for name in variables)}
    assert users == {"actions.py"}


def test_the_framework_does_not_import_the_demo() -> None:
    for path in files("slipway"):
        assert not [name for name in imported(path) if name.split(".")[0] == "demo"], path


@pytest.mark.parametrize("module", SERVING_MODULES)
def test_serving_modules_import_only_packages_of_the_image(module: str) -> None:
    path = module_path(module)
    assert path
    packages = {name.split(".")[0] for name in imported(path)}
    import sys

    assert packages - sys.stdlib_module_names - {"slipway"} <= SERVING_PACKAGES
    assert {name for name in imported(path) if name.startswith("slipway.")} <= set(SERVING_MODULES)


@pytest.mark.parametrize("stage", ["validate", "split", "train", "evaluate", "gate"])
def test_dvc_yaml_lists_the_code_of_each_stage(stage: str) -> None:
    """DVC runs a stage again if code changes that can change its output."""
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    needed = closure(f"slipway.pipeline.{stage}") - NO_OUTPUT
    missing = {str(module_path(name).relative_to(ROOT)) for name in needed} - set(declared)  # type: ignore[union-attr]
    assert not missing


@pytest.mark.parametrize(
    ("entry", "sources"),
    [("slipway.serving", SOURCES), ("slipway.scoring", (*SOURCES, *BATCH_SOURCES))],
)
def test_an_image_contains_every_module_that_it_imports(entry: str, sources: tuple[str, ...]) -> None:
    needed = {str(path.relative_to(ROOT)) for name in closure(f"{entry}.__main__") if (path := module_path(name))}
    assert not [path for path in sorted(needed) if not path.startswith(sources)]
