"""The issue about a failed release states what is live now, and what to do."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import GitHub, State
from slipway.release.candidate import Candidate
from slipway.release.history import PRODUCTION, STAGING
from tests.slipway.conftest import Repository, Result
from tests.slipway.release.conftest import flags

Offer = Callable[[str], Candidate]
Run = Callable[..., Result]


@pytest.fixture
def github(tmp_path: Path, work: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    assert work.path.is_dir()
    with GitHub(State(), tmp_path).serving() as github:
        for name, value in github.variables().items():
            monkeypatch.setenv(name, value)
        yield github


def released(slipway: Run, offer: Offer, environment: str, *numbers: int) -> None:
    for number in numbers:
        offer(f"model {number}")
        assert slipway("promote", environment, *flags(number)).code == 0


def issue(slipway: Run, github: GitHub, environment: str) -> dict[str, Any]:
    result = slipway("report-failure", environment)
    assert result.code == 0, result.err
    (found,) = github.state.issues
    return dict(found)


def test_issue_describes_a_release_that_was_rolled_back(slipway: Run, offer: Offer, github: GitHub) -> None:
    released(slipway, offer, STAGING, 1, 2)
    assert slipway("rollback", STAGING).code == 0
    found = issue(slipway, github, STAGING)
    assert found["title"] == "A release to staging failed, and was rolled back"
    assert "staging is back at sha-000000000001" in found["body"]
    assert "run the workflow `Ship` again" in found["body"]


def test_issue_describes_a_first_release_that_cannot_be_rolled_back(slipway: Run, offer: Offer, github: GitHub) -> None:
    released(slipway, offer, PRODUCTION, 1)
    assert slipway("rollback", PRODUCTION).code == 1
    found = issue(slipway, github, PRODUCTION)
    assert found["title"] == "A release to production failed, and there is no earlier one"
    assert "`main` still has the release sha-000000000001" in found["body"]


def test_issue_describes_a_release_whose_rollback_failed(slipway: Run, offer: Offer, github: GitHub) -> None:
    released(slipway, offer, STAGING, 1, 2)
    found = issue(slipway, github, STAGING)
    assert found["title"] == "A release to staging failed, and was not rolled back"
    assert "`slipway rollback staging`" in found["body"]


def test_open_issue_gets_a_comment(slipway: Run, offer: Offer, github: GitHub) -> None:
    released(slipway, offer, PRODUCTION, 1)
    first = issue(slipway, github, PRODUCTION)
    assert issue(slipway, github, PRODUCTION) == first
    assert len(github.state.bodies(first["number"])) == 1
