"""Checks of the local machine: each program missing, or in another version than the repository was made with."""

from pathlib import Path

import pytest

from slipway.doctor import context
from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import Find, edited


def program(folder: Path, name: str, says: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: Repository) -> Path:
    """The only folder on the path; nothing is in it."""
    assert fork
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_it_holds(find: Find) -> None:
    for name in ("Python", "locked packages", "git", "make"):
        assert find(name).state == "holds", find(name)


def test_another_python(fork: Repository, find: Find) -> None:
    edited(fork, "pyproject.toml", '">=3.11,<3.15"', '">=3.8,<3.10"')
    found = find("Python")
    assert (found.state, found.command) == ("missing", "make --always-make setup PYTHON=python3.9")
    assert "asks for 3.8 to 3.9" in found.sentence


def test_another_dvc(fork: Repository, find: Find) -> None:
    edited(fork, "requirements/dev.txt", "\ndvc==3", "\ndvc==2")
    found = find("locked packages")
    assert found.state == "missing"
    assert "dvc is 3." in found.sentence
    assert found.command == "make --always-make setup"


@pytest.mark.parametrize(
    ("name", "state"), [("git", "missing"), ("make", "missing"), ("kubectl", "unknown"), ("gh", "unknown")]
)
def test_a_program_is_not_there(find: Find, path: Path, name: str, state: str) -> None:
    assert list(path.iterdir()) == []
    found = find(name)
    assert (found.state, found.command.split()[-1]) == (state, name)
    assert "is not on the path" in found.sentence


def test_an_old_git(find: Find, path: Path) -> None:
    program(path, "git", "git version 2.30.9")
    assert find("git").sentence == "git version 2.30.9, and 2.31 or newer is needed."


@pytest.mark.parametrize("name", ["kubectl", "gh"])
def test_a_program_is_there(find: Find, path: Path, name: str) -> None:
    program(path, name, f"{name} 1.2")
    assert find(name).state == "holds"


def test_a_program_that_hangs(find: Find, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path / "make").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (path / "make").chmod(0o755)
    monkeypatch.setattr(context, "ANSWER_TIMEOUT_SECONDS", 0.2)
    assert find("make").state == "missing"


def test_no_engine(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    assert find("image engine").state == "unknown"
