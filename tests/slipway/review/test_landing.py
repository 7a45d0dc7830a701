"""Only the delivery of a bot lands without its model. Anything else waits for a person."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import GitHub
from slipway.errors import InputError
from slipway.review.landing import why_it_waits
from slipway.review.report import Report
from tests.slipway.conftest import ROOT, Repository


@pytest.fixture
def delivery(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    """A pull request of a bot that changes only data, in a repository with an embedded DVC remote."""
    files = [
        {"status": "modified", "filename": "data.dvc"},
        {"status": "added", "filename": "sample/remote/files/md5/00/00"},
    ]
    github.state.pulls["7"] |= {"branch": "delivery/1997H2", "kind": "Bot", "files": files}
    repository = Repository(tmp_path / "r")
    (repository.path / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc/config", repository.path / ".dvc/config")
    repository.must("git", "init", "--quiet")
    monkeypatch.chdir(repository.path)
    return github


def test_a_delivery_of_a_bot_lands(delivery: GitHub, report: Report) -> None:
    assert why_it_waits(report.changes, 7, delivery.variables()) is None


def changed(*paths: str, status: str = "modified") -> dict[str, Any]:
    return {"files": [{"status": status, "filename": path} for path in paths]}


@pytest.mark.parametrize(
    ("pull", "words"),
    [
        (changed("data.dvc", "params.yaml"), "pull request 7 changes params.yaml"),
        (changed("data.dvc", "src/model/train.py"), "pull request 7 changes src/model/train.py"),
        (changed("data.dvc", "src/slipway/new.py", status="added"), "pull request 7 changes src/slipway/new.py"),
        (changed("data.dvc", "sample/remote/files/md5/00/00"), "pull request 7 changes sample/remote/files/md5/00/00"),
        (changed("data.dvc") | {"changed_files": 3001}, "pull request 7 changes more files than GitHub lists"),
        ({"kind": "User"}, "no bot opened pull request 7 for a delivery"),
        ({"branch": "fewer-features"}, "no bot opened pull request 7 for a delivery"),
        ({"from": "mallory/houses"}, "no bot opened pull request 7 for a delivery"),
        ({"from": None}, "no bot opened pull request 7 for a delivery"),
    ],
)
def test_anything_but_a_delivery_waits(delivery: GitHub, report: Report, pull: dict[str, Any], words: str) -> None:
    delivery.state.pulls["7"] |= pull
    assert why_it_waits(report.changes, 7, delivery.variables()) == words


@pytest.mark.parametrize("change", ["changed", "removed", None])
def test_data_that_is_not_only_added_waits(delivery: GitHub, report: Report, change: str | None) -> None:
    deliveries = tuple(each.model_copy(update={"change": change}) for each in report.changes.deliveries or ())
    changes = report.changes.model_copy(update={"deliveries": deliveries if change else None})
    assert why_it_waits(changes, 7, delivery.variables()) == "it does not only add deliveries"


def test_a_change_without_a_pull_request_waits(report: Report) -> None:
    assert why_it_waits(report.changes, None, {}) == "it has no pull request"


def test_an_error_of_github_stops_the_report(delivery: GitHub, report: Report) -> None:
    broken = delivery.variables() | {"GITHUB_API_URL": "https://localhost:1"}
    with pytest.raises(InputError, match="GitHub does not return the files of #7"):
        why_it_waits(report.changes, 7, broken)
