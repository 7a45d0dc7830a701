"""Data, models and their record: real DVC remotes, real folders, servers that are down."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slipway.conftest import Repository
from tests.slipway.doctor.answers import Answer, answering
from tests.slipway.doctor.conftest import Find, edited, mended


@pytest.fixture
def answer() -> Answer:
    return Answer(200, {"experiments": []})


@pytest.fixture
def mlflow(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with answering(answer) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        yield url


def test_it_holds(find: Find) -> None:
    for name in ("params.yaml", "DVC remote", "data", "champion", "source", "MLflow"):
        assert find(name).state == "holds", find(name)


def test_params_that_are_not_valid(fork: Repository, find: Find) -> None:
    edited(fork, "params.yaml", "max_invalid_share", "most_at_falt")
    found = find("params.yaml")
    assert (found.state, found.command) == ("missing", "${EDITOR:-vi} +11 params.yaml")
    assert find("source").state == "unknown"  # which they would name


def test_the_folder_of_the_remote_is_gone(fork: Repository, find: Find) -> None:
    (fork.path / "sample/remote").rename(fork.path / "sample/elsewhere")
    found = find("DVC remote")
    assert (found.state, "which is not there" in found.sentence) == ("missing", True)
    assert find("data").state == find("champion").state == "unknown"
    fork.must("sh", "-c", found.command.replace("ADDRESS", str(fork.path / "sample/elsewhere")))
    assert find("DVC remote").state == find("data").state == "holds"


def test_no_remote(fork: Repository, find: Find) -> None:
    fork.must("dvc", "config", "--unset", "core.remote")
    found = find("DVC remote")
    assert (found.state, found.command.split()[:3]) == ("missing", ["dvc", "remote", "add"])
    assert find("data").state == "unknown"


@pytest.mark.parametrize(
    ("url", "words", "command"),
    [
        ("gs://deliveries/houses", "needs a package", 's|"dvc>=|"dvc[gs]>=|'),
        ("http://127.0.0.1:9/houses", "cannot be listed", "dvc remote modify sample url ADDRESS"),
    ],
)
def test_a_remote_out_of_reach(fork: Repository, find: Find, url: str, words: str, command: str) -> None:
    fork.must("dvc", "remote", "modify", "sample", "url", url)
    found = find("DVC remote")
    assert found.state == "missing"
    assert words in found.sentence
    assert command in found.command
    assert find("data").state == "unknown"


def test_a_file_was_not_pushed(fork: Repository, find: Find) -> None:
    """Neither one of those in the folder, nor the list of them."""
    remote = fork.path / "sample/remote/files/md5"
    fork.must("dvc", "pull", "--quiet", "champion.dvc")
    one = fork.must("md5sum", "champion/model.onnx").split()[0]
    (remote / one[:2] / one[2:]).unlink()
    assert find("champion").sentence == "The remote sample lacks 1 of 5 files of champion.dvc."
    assert mended(fork, find, "champion").state == "holds"
    shutil.rmtree(remote)
    assert "does not have what data.dvc names" in find("data").sentence
    assert (find("champion").state, find("champion").command) == ("missing", "dvc push champion.dvc")
    assert mended(fork, find, "champion").state == "holds"


def test_nothing_is_tracked(fork: Repository, find: Find) -> None:
    for name in ("data", "champion"):
        (fork.path / f"{name}.dvc").write_text("outs: []")
        assert (find(name).state, f"dvc add {name}" in find(name).command) == ("missing", True)


def test_the_source_is_gone(fork: Repository, find: Find) -> None:
    edited(fork, "params.yaml", "source: sample/source", "source: build/arrivals")
    assert find("source").state == "missing"
    assert mended(fork, find, "source").state == "holds"
    edited(fork, "params.yaml", "source: build/arrivals", "source: s3://deliveries/houses")
    found = find("source")
    assert (found.state, found.command.startswith("${EDITOR:-vi} +")) == ("missing", True)


def test_mlflow_answers(find: Find, mlflow: str, answer: Answer) -> None:
    assert find("MLflow").sentence == f"MLflow at {mlflow} answers."
    answer.status = 401
    assert "does not take these credentials" in find("MLflow").sentence
    answer.status = 404
    assert (find("MLflow").state, "as MLflow does not" in find("MLflow").sentence) == ("missing", True)


def test_mlflow_is_down(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    found = find("MLflow")
    assert (found.state, "does not answer" in found.sentence) == ("missing", True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd()}/mlflow.db")
    assert find("MLflow").state == "unknown"
