"""Without an App, New data starts the checks of a delivery, waits for them, and starts Comment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import Failure, GitHub, State
from slipway.errors import CheckFailed
from slipway.integrations.github_comments import MARKER
from slipway.monitoring import follow_data_prs
from slipway.monitoring.follow_data_prs import follow

HEAD = "a" * 40
DELIVERY = {"head": HEAD, "from": "team/houses", "branch": "delivery/1997H2", "login": "github-actions[bot]"}


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """Serve GitHub with the open pull request 1 of a delivery. Time limits are short."""
    monkeypatch.setattr(follow_data_prs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(follow_data_prs, "TIMEOUT_SECONDS", 0.0)
    with GitHub(State(pulls={"1": DELIVERY | {"kind": "Bot"}}), tmp_path).serving() as github:
        yield github


def add_run(github: GitHub, number: int, status: str, conclusion: str | None, head: str = HEAD) -> None:
    path = ".github/workflows/pull-request.yml"
    run = {"id": number, "path": path, "status": status, "conclusion": conclusion, "head_sha": head}
    github.state.runs[number] = run


def started(github: GitHub) -> list[tuple[str, dict[str, Any]]]:
    return [(each["workflow"], each["inputs"]) for each in github.state.dispatched]


@pytest.mark.parametrize("conclusion", ["success", "failure"])
def test_comment_starts_when_the_checks_have_ended(github: GitHub, conclusion: str) -> None:
    add_run(github, 41, "completed", "failure", head="b" * 40)  # an earlier commit
    add_run(github, 42, "completed", conclusion)
    add_run(github, 43, "completed", "action_required")  # it waits for a person, and has checked nothing
    (done,) = follow(github.variables())
    assert done.startswith(f"pull request 1 is checked ({conclusion}), and comment.yml is started: https://")
    assert started(github) == [("comment.yml", {"run": "42"})]


@pytest.mark.parametrize("conclusion", [None, "action_required", "cancelled"])
def test_checks_start_if_no_checks_have_run(github: GitHub, conclusion: str | None) -> None:
    if conclusion:
        add_run(github, 42, "completed", conclusion)
    with pytest.raises(CheckFailed, match="The checks of pull request 1 take more than 0 minutes; start New data"):
        list(follow(github.variables()))
    assert started(github) == [("pull-request.yml", {"pull_request": "1"})]


def test_running_checks_are_not_started_again(github: GitHub) -> None:
    add_run(github, 42, "in_progress", None)
    with pytest.raises(CheckFailed, match="take more than 0 minutes"):
        list(follow(github.variables()))
    assert started(github) == []


def test_a_delivery_that_has_its_report_is_not_checked_again(github: GitHub) -> None:
    github.state.comment(f"{MARKER} {HEAD} none {'0' * 64} -->\nheld", *github.state.writer, pull=1)
    assert list(follow(github.variables())) == ["each open delivery has its report"]
    assert started(github) == []


@pytest.mark.parametrize(
    "change", [{"login": "ada", "kind": "User"}, {"branch": "words"}, {"from": "mallory/houses"}, {"state": "closed"}]
)
def test_only_open_deliveries_of_a_bot_are_followed(github: GitHub, change: dict[str, str]) -> None:
    github.state.pulls["1"] |= change
    assert list(follow(github.variables())) == ["each open delivery has its report"]
    assert started(github) == []


@pytest.mark.parametrize("workflow", ["pull-request.yml", "comment.yml"])
def test_a_workflow_that_cannot_be_started_is_an_error(github: GitHub, workflow: str) -> None:
    github.state.disabled = {workflow}
    if workflow == "comment.yml":
        add_run(github, 42, "completed", "success")
    with pytest.raises(CheckFailed, match=r"\(422 Cannot trigger a 'workflow_dispatch' on a disabled workflow\)"):
        list(follow(github.variables()))


def test_a_refused_request_is_an_error(github: GitHub) -> None:
    github.state.failures.append(Failure(403, path=".*/runs"))
    with pytest.raises(CheckFailed, match=r"cannot be started or read \(403 .*; start New data again"):
        list(follow(github.variables()))
