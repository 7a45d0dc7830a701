"""What is installed is what was locked: every version with its hashes, and no address of where it came from."""

import re
import tomllib

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
}


def locked(name: str) -> list[Requirement]:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return [Requirement(line.removesuffix("\\").strip()) for line in text.splitlines() if re.match(r"\w", line)]


@pytest.mark.parametrize("name", DECLARED)
def test_every_requirement_is_locked_as_pyproject_asks(name: str) -> None:
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
