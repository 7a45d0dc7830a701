"""A change of the label `ship-anyway` runs the checks of the pull request again, as the same run."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import GitHub
from demo.fakes.github_state import Token
from slipway.errors import CheckFailed
from slipway.review import rerun_checks
from slipway.review.rerun_checks import rerun
from tests.slipway.review.conftest import HEAD

CANCEL, RERUN = "/repos/team/houses/actions/runs/42/cancel", "/repos/team/houses/actions/runs/42/rerun"


@pytest.fixture
def environ(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a run that a label on pull request 7 has started."""
    monkeypatch.setattr(rerun_checks, "POLL_SECONDS", 0.01)
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"action": "labeled", "pull_request": {"number": 7, "head": {"sha": HEAD}}}))
    return github.variables() | {"GITHUB_EVENT_PATH": str(event)}


def add_run(github: GitHub, number: int = 42, status: str = "completed", **parts: Any) -> None:
    run = {"id": number, "path": ".github/workflows/pull-request.yml", "event": "pull_request", "head_sha": HEAD}
    github.state.runs[number] = run | {"status": status, "conclusion": "failure"} | parts


class Cancelling:
    """A repository in which a cancelled run ends."""

    def __init__(self, github: GitHub) -> None:
        self.github = github

    def cancel_run(self, number: int) -> None:
        self.github.state.runs[number]["status"] = "completed"

    def rerun(self, number: int) -> None:
        self.github.state.runs[number]["status"] = "queued"


def test_the_last_run_on_the_commit_runs_again(github: GitHub, environ: dict[str, str]) -> None:
    add_run(github, 41)
    add_run(github)
    add_run(github, 43, head_sha="b" * 40)
    add_run(github, 44, event="workflow_dispatch")
    add_run(github, 45, conclusion="action_required")
    assert rerun(environ).startswith("the checks of pull request 7 run again: https://")
    assert github.state.asked("POST") == [RERUN]


def test_a_run_that_may_have_read_the_label_is_cancelled_first(github: GitHub, environ: dict[str, str]) -> None:
    add_run(github, status="in_progress", conclusion=None)
    github.state.host = Cancelling(github)  # type: ignore[assignment]
    rerun(environ)
    assert github.state.asked("POST") == [CANCEL, RERUN]


def test_checks_that_have_not_begun_are_left_to_read_the_label(github: GitHub, environ: dict[str, str]) -> None:
    assert "has no checks on a1a1a1a1a1a1 yet" in rerun(environ)
    assert github.state.asked("POST") == []


def test_the_token_of_a_fork_cannot_run_checks_again(github: GitHub, environ: dict[str, str]) -> None:
    add_run(github)
    github.state.tokens["read"] = Token("github-actions[bot]", "Bot", {"actions": "read"})
    with pytest.raises(CheckFailed, match=r'\(403 Resource not accessible by integration\); choose "Re-run all jobs"'):
        rerun(environ | {"GITHUB_TOKEN": "read"})
