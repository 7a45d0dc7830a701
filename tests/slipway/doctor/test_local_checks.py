"""Checks of this machine, with a program that is missing or has another version than required."""

from pathlib import Path

import pytest

from slipway.doctor import context
from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import Find

FOUND = {"git": "git version 2.39.5", "make": "GNU Make 4.3", "gh": "gh version 2.1", "kubectl": "Client Version: v1.3"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: Repository) -> Path:
    """The only folder on the PATH. It has every program, and there is no image engine."""
    assert fork
    (tmp_path / "bin").mkdir()
    for name, version in FOUND.items():
        program(tmp_path / "bin" / name, f"echo '{version}'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    return tmp_path / "bin"


def program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_another_python_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("pyproject.toml", '">=3.11,<3.15"', '">=3.8,<3.10"')
    found = find("environment")
    assert (found.state, found.command) == ("missing", "make --always-make setup PYTHON=python3.9")
    assert "requires 3.8 to 3.9" in found.sentence


def test_a_package_with_another_version_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("requirements/dev.txt", "\ndvc==3", "\ndvc==2")
    found = find("environment")
    assert (found.state, found.command) == ("missing", "make --always-make setup")
    assert "dvc is 3." in found.sentence


@pytest.mark.parametrize("name", ["git", "make"])
def test_a_missing_required_program_is_reported(find: Find, path: Path, name: str) -> None:
    (path / name).unlink()
    found = find("programs")
    assert (found.state, found.command.split()[-1]) == ("missing", name)
    assert f"{name} is not on the PATH" in found.sentence


def test_an_old_git_is_reported(find: Find, path: Path) -> None:
    program(path / "git", "echo 'git version 2.30.9'")
    assert find("programs").sentence == "git 2.31 or newer is required. Found: git version 2.30.9."


def test_a_missing_optional_program_is_reported(find: Find, path: Path) -> None:
    (path / "gh").unlink()
    found = find("programs")
    assert (found.state, found.place.split()[2]) == ("optional", "https://cli.github.com,")
    assert found.sentence.startswith("Not found: gh (to set up GitHub), Docker or Podman")
    assert "kubectl" not in found.sentence


def test_a_program_that_hangs_counts_as_missing(find: Find, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(path / "make", "exec /bin/sleep 60")
    monkeypatch.setattr(context, "ANSWER_TIMEOUT_SECONDS", 0.2)
    assert find("programs").state == "missing"
