"""Checks of data and models, with real DVC remotes, real folders, and servers that do not answer."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slipway.conftest import Repository
from tests.slipway.doctor.conftest import Answer, Find, answering, fixed


@pytest.fixture
def answer() -> Answer:
    return Answer(200, {"experiments": []})


@pytest.fixture
def mlflow(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with answering(answer) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        yield url


def test_invalid_params_are_reported_with_their_line(fork: Repository, find: Find) -> None:
    fork.edit("params.yaml", "max_invalid_share", "most_at_falt")
    lines = (fork.path / "params.yaml").read_text().splitlines()
    line = next(i for i, each in enumerate(lines, 1) if "most_at_falt" in each)
    found = find("params.yaml")
    assert (found.state, found.sentence.startswith(f"params.yaml, line {line}: ")) == ("missing", True)
    assert find("source").sentence == "Not checked, because params.yaml is invalid."


def test_a_missing_folder_of_the_remote_is_reported(fork: Repository, find: Find) -> None:
    (fork.path / "sample/remote").rename(fork.path / "sample/elsewhere")
    found = find("DVC remote")
    assert (found.state, "does not exist" in found.sentence) == ("missing", True)
    assert (find("pushed data").state, find("pushed data").command) == ("unknown", found.command)
    fork.must("sh", "-c", found.command.replace("ADDRESS", str(fork.path / "sample/elsewhere")))
    assert find("DVC remote").state == find("pushed data").state == "ok"


def test_a_remote_in_the_repository_of_a_fork_is_reported(fork: Repository, find: Find, tmp_path: Path) -> None:
    assert find("DVC remote").state == "ok"  # in the template, the remote has only the sample
    shutil.rmtree(fork.path / "sample/source")
    found = find("DVC remote")
    assert (found.state, "adds data and models to git" in found.sentence) == ("optional", True)
    assert find("pushed data").state == "ok"
    shutil.copytree(fork.path / "sample/remote", tmp_path / "remote")
    fork.must("sh", "-c", found.command.replace("s3://BUCKET/FOLDER", str(tmp_path / "remote")))
    assert find("DVC remote").state == find("pushed data").state == "ok"


def test_a_missing_default_remote_is_reported(fork: Repository, find: Find) -> None:
    fork.must("dvc", "config", "--unset", "core.remote")
    found = find("DVC remote")
    assert (found.state, found.command.split()[:3]) == ("missing", ["dvc", "remote", "add"])
    assert find("pushed data").state == "unknown"


@pytest.mark.parametrize(
    ("url", "words", "fix"),
    [
        (
            "gs://deliveries/houses",
            "package for the remote sample is not installed",
            "Add `dvc-gs` to requirements/model.in",
        ),
        ("http://127.0.0.1:9/houses", "cannot be listed", "dvc remote modify sample url ADDRESS"),
    ],
)
def test_a_remote_that_cannot_be_listed_is_reported(
    fork: Repository, find: Find, url: str, words: str, fix: str
) -> None:
    fork.must("dvc", "remote", "modify", "sample", "url", url)
    found = find("DVC remote")
    assert (found.state, words in found.sentence) == ("missing", True), found
    assert (found.command or found.place).startswith(fix)


def test_a_file_that_was_not_pushed_is_reported(fork: Repository, find: Find) -> None:
    """The remote first lacks a file of the champion, then the list of its files."""
    remote = fork.path / "sample/remote/files/md5"
    fork.must("dvc", "pull", "--quiet", "champion.dvc")
    one = fork.must("md5sum", "champion/model.onnx").split()[0]
    (remote / one[:2] / one[2:]).unlink()
    found = find("pushed data")
    assert found.sentence == "The remote sample lacks 1 of 5 files of champion.dvc."
    listing = found.place.removeprefix("Before that, delete ").removesuffix(" in the remote.")
    Path(listing).unlink()
    assert find("pushed data").sentence == "The remote sample does not have the files of champion.dvc."
    assert fixed(fork, find, "pushed data").state == "ok"
    shutil.rmtree(remote)
    assert "does not have the files of data.dvc" in find("pushed data").sentence


@pytest.mark.parametrize("name", ["data", "champion"])
def test_a_folder_that_is_not_tracked_is_reported(fork: Repository, find: Find, name: str) -> None:
    (fork.path / f"{name}.dvc").write_text("outs: []")
    assert (find("pushed data").state, f"dvc add {name}" in find("pushed data").command) == ("missing", True)


def test_a_missing_source_is_reported(fork: Repository, find: Find) -> None:
    fork.edit("params.yaml", "source: sample/source", "source: build/arrivals")
    assert find("source").state == "missing"
    assert fixed(fork, find, "source").state == "ok"
    fork.edit("params.yaml", "source: build/arrivals", "source: s3://deliveries/houses")
    found = find("source")
    assert (found.state, found.place.startswith("Edit `source` in params.yaml, line ")) == ("missing", True)
    fork.edit("params.yaml", "source: s3://deliveries/houses", "source: ''")
    assert (find("source").state, find("source").command) == ("optional", "")


def test_the_answer_of_mlflow_is_checked(find: Find, mlflow: str, answer: Answer) -> None:
    assert find("MLflow").sentence == f"MLflow at {mlflow} answers."
    answer.status = 401
    assert "the credentials are invalid" in find("MLflow").sentence
    answer.status = 404
    assert (find("MLflow").state, "is not an MLflow server" in find("MLflow").sentence) == ("missing", True)


def test_an_mlflow_that_does_not_answer_is_reported(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = find("MLflow")
    assert (found.state, "does not answer" in found.sentence) == ("missing", True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/mlflow.db")
    assert "is not a server" in find("MLflow").sentence
