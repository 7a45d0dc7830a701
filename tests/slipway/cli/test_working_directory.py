"""Verbs run from any directory of the repository. Paths that the user gives are relative to that directory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slipway.conftest import Repository, Result
from tests.slipway.monitoring.test_prediction_log import write_log
from tests.slipway.serving.odd import ROW, write_bundle
from tests.slipway.serving.test_prediction_log import marked

Run = Callable[..., Result]


@pytest.fixture
def below(clone: Callable[[str], Repository], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory below the top of a repository. It is the working directory."""
    directory = clone("repository").path / "src/slipway"
    monkeypatch.chdir(directory)
    return directory


def test_a_verb_below_the_top_does_what_it_does_at_the_top(
    slipway: Run, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = slipway("verdict")
    monkeypatch.chdir(below.parents[1])
    assert found.code == 0, found.err
    assert slipway("verdict") == found


@pytest.mark.parametrize("verb", ["status", "changes", "releases"])
@pytest.mark.usefixtures("below")
def test_verbs_that_read_git_run_below_the_top(slipway: Run, verb: str) -> None:
    result = slipway(verb)
    assert result.code == 0, result.err


def test_a_stage_below_the_top_writes_to_build_at_the_top(clone: Callable[[str], Repository]) -> None:
    repository = clone("repository")
    repository.must("dvc", "pull", "--quiet", "data.dvc")
    result = repository.run("sh", "-c", "cd src && slipway validate")
    assert result.code == 0, result.err
    assert (repository.path / "build/validation.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), "champion/ is not in this clone"),  # the default is relative to the top
        (("nothing",), "src/slipway/nothing/schema.json is missing"),
        (("../nothing",), "src/nothing/schema.json is missing"),
        (("/nothing",), "/nothing/schema.json is missing"),
    ],
)
@pytest.mark.usefixtures("below")
def test_a_given_path_is_relative_to_the_directory_of_the_user(
    slipway: Run, arguments: tuple[str, ...], shown: str
) -> None:
    assert slipway("serve", *arguments).err.startswith(f"slipway: {shown}")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("join", "nothing", "labels.csv"), "src/slipway/nothing has no file of a prediction log"),
        (("join", "../log", "labels.csv"), "src/log has no file of a prediction log"),
        (("erase-log", "nothing", "customer=1"), "src/slipway/nothing has no file of a prediction log"),
    ],
)
@pytest.mark.usefixtures("below")
def test_an_address_is_relative_to_the_directory_of_the_user(
    slipway: Run, arguments: tuple[str, ...], shown: str
) -> None:
    assert shown in slipway(*arguments).err


def test_a_log_is_shipped_to_the_directory_of_the_user(slipway: Run, below: Path, tmp_path: Path) -> None:
    write_log(below / "log", marked(write_bundle(tmp_path), tmp_path), [ROW])
    assert slipway("ship-log", "log", "shipped").code == 0
    assert [*(below / "shipped").rglob("*.parquet")]


def test_a_verb_outside_of_a_repository_is_an_error(
    slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = slipway("verdict")
    assert result.code == 2
    assert result.err.startswith(f"slipway: {tmp_path} is not in a git repository (fatal: not a git repository")
    assert "change to your clone" in result.err
    assert result.err.count("\n") == 1


def test_help_and_serve_need_no_repository(slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert slipway("verdict", "--help").code == 0
    assert "nothing/schema.json is missing" in slipway("serve", "nothing").err


def test_another_git_repository_lacks_params_yaml(
    slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Repository(tmp_path).must("git", "init", "--quiet")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    result = slipway("validate")
    assert result.code == 2
    assert f"params.yaml is missing in {tmp_path}" in result.err
