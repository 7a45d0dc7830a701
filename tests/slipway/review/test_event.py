"""The event that started a run, and the commit for which a maintainer's label counts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import Failure, GitHub
from demo.fakes.github_state import Token
from slipway.errors import InputError
from slipway.integrations.github_comments import CommentText
from slipway.review.event import Event, current_event
from slipway.review.report import Override

HEAD, BASE = "a" * 40, "b" * 40
LABELED: dict[str, Any] = {
    "action": "labeled",
    "number": 7,
    "label": {"name": "ship-anyway"},
    "pull_request": {
        "number": 7,
        "title": "`touch pwned`",
        "updated_at": "2026-11-24T05:31:00Z",
        "labels": [{"name": "ship-anyway"}],
        "head": {"sha": HEAD, "ref": "$(touch pwned)", "repo": {"full_name": "team/houses"}},
        "base": {"sha": BASE, "ref": "main", "repo": {"full_name": "team/houses"}},
    },
    "sender": {"login": "ada"},
}
QUEUED = {"merge_group": {"head_sha": HEAD, "head_ref": f"refs/heads/gh-readonly-queue/main/pr-7-{BASE}"}}


@pytest.fixture
def started_by(tmp_path: Path) -> Any:
    """Return the environment of a run that an event started."""

    def write(name: str, document: Any, **variables: str) -> dict[str, str]:
        path = tmp_path / "event.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(path), **variables}

    return write


def payload(**parts: Any) -> dict[str, Any]:
    return LABELED | parts


def with_pull_request(**parts: Any) -> dict[str, Any]:
    return payload(pull_request=LABELED["pull_request"] | parts)


def test_there_is_no_event_outside_of_github_actions() -> None:
    assert current_event({}) is None
    assert current_event({"GITHUB_ACTIONS": "false", "GITHUB_EVENT_NAME": "pull_request"}) is None


PUSHED = LABELED["pull_request"]["updated_at"]


def set_label(github: GitHub, at: str = PUSHED, login: str = "ada", name: str = "ship-anyway") -> None:
    """Add a label to pull request 7."""
    github.state.pulls["7"]["labels"] = [*github.state.pulls["7"].get("labels", []), name]
    github.state.label_events.append({"pull": 7, "event": "labeled", "label": name, "login": login, "at": at})


@pytest.mark.parametrize(
    ("action", "at"),
    [
        ("opened", PUSHED),  # both at once
        ("opened", "2026-11-24T05:31:01Z"),
        ("synchronize", "2026-11-24T05:31:01Z"),
        ("reopened", "2026-11-25T00:00:00Z"),
    ],
)
def test_a_label_that_is_newer_than_the_commit_is_an_override(
    started_by: Any, github: GitHub, action: str, at: str
) -> None:
    """The event is that of the push, also in a rerun, which adding the label starts."""
    set_label(github, at, "grace")
    event = current_event(started_by("pull_request", payload(action=action), **github.variables()))
    assert event == Event("pull_request", 7, HEAD, override=Override(by="grace", at=datetime.fromisoformat(at)))


@pytest.mark.parametrize(
    ("action", "at", "name"),
    [
        ("synchronize", PUSHED, "ship-anyway"),
        ("synchronize", "2026-11-24T05:30:59Z", "ship-anyway"),
        ("opened", "2026-11-24T05:30:59Z", "ship-anyway"),
        ("opened", PUSHED, "documentation"),
        ("opened", PUSHED, "Ship-Anyway"),
        ("opened", PUSHED, "ship-anyway "),
    ],
)
def test_an_older_label_or_another_one_is_not_an_override(
    started_by: Any, github: GitHub, action: str, at: str, name: str
) -> None:
    set_label(github, at, name=name)
    event = current_event(started_by("pull_request", payload(action=action), **github.variables()))
    assert event
    assert (event.pull_request, event.override) == (7, None)


def test_a_removed_label_is_not_an_override(started_by: Any, github: GitHub) -> None:
    set_label(github, "2026-11-25T00:00:00Z")
    github.state.pulls["7"]["labels"] = []
    event = current_event(started_by("pull_request", payload(action="opened"), **github.variables()))
    assert event
    assert event.override is None


@pytest.mark.parametrize("repo", [{"full_name": "mallory/houses"}, None])
def test_a_fork_is_known_even_when_it_is_deleted(started_by: Any, github: GitHub, repo: Any) -> None:
    document = with_pull_request(head=LABELED["pull_request"]["head"] | {"repo": repo})
    event = current_event(started_by("pull_request", document, **github.variables()))
    assert event
    assert event.is_fork


def test_a_branch_of_the_repository_is_not_a_fork(started_by: Any, github: GitHub) -> None:
    event = current_event(started_by("pull_request", LABELED, **github.variables()))
    assert event
    assert not event.is_fork


def test_a_dispatched_run_belongs_to_the_named_pull_request(started_by: Any) -> None:
    event = current_event(started_by("workflow_dispatch", {"inputs": {"pull_request": "12"}}, GITHUB_SHA=HEAD))
    assert event == Event("workflow_dispatch", 12, HEAD, override=None)


@pytest.mark.parametrize("number", ["0", "-7", "7; touch pwned", "7/../8", "", None, 1.5, "9" * 5000])
def test_an_invalid_pull_request_number_is_refused(started_by: Any, number: Any) -> None:
    with pytest.raises(InputError, match=r"^GITHUB_EVENT_PATH: inputs\.pull_request is not valid for the event"):
        current_event(started_by("workflow_dispatch", {"inputs": {"pull_request": number}}))
    with pytest.raises(InputError, match=r"pull_request\.number is not valid for the event 'pull_request'"):
        current_event(started_by("pull_request", with_pull_request(number=number)))


def test_a_push_belongs_to_no_pull_request(started_by: Any) -> None:
    event = current_event(started_by("push", {}, GITHUB_SHA=HEAD))
    assert event == Event("push", None, HEAD, override=None)


@pytest.mark.parametrize(
    "document", ["", "{", "[]", "{}", json.dumps(with_pull_request(head={"sha": "main", "repo": None}))]
)
def test_an_invalid_payload_is_refused(started_by: Any, document: str) -> None:
    with pytest.raises(InputError, match=r"^GITHUB_EVENT_PATH: .* is not valid for the event 'pull_request'"):
        current_event(started_by("pull_request", document))


def test_a_missing_payload_is_refused(tmp_path: Path) -> None:
    for environ in ({}, {"GITHUB_EVENT_PATH": str(tmp_path / "none")}):
        with pytest.raises(InputError, match="GITHUB_EVENT_PATH does not name the file"):
            current_event({"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", **environ})


def report(github: GitHub, at: str = "2026-11-20T00:00:00Z", head: str | None = None) -> None:
    """Post a report on a commit of pull request 7, by default the last one. Its model is held."""
    text = CommentText("HOLD", head or github.state.pulls["7"]["head"], "5" * 32).complete
    github.state.comment(text, login="github-actions[bot]", kind="Bot")["at"] = at


def test_the_merge_queue_reads_the_label_from_github(started_by: Any, github: GitHub) -> None:
    """The last person who added it counts."""
    report(github)
    for number, name in enumerate(("ship-anyway", "ship-anyway", "documentation")):
        set_label(github, f"2026-11-2{number}T00:00:00Z", f"person{number}", name)
    event = current_event(started_by("merge_group", QUEUED, **github.variables()))
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert event == Event("merge_group", 7, HEAD, override=Override(by="person1", at=at))


def test_the_label_is_read_with_the_permissions_of_the_job(started_by: Any, github: GitHub) -> None:
    """The job cannot read issues, and GitHub answers 403 for the issue of a pull request in a private repository."""
    set_label(github)
    report(github)
    github.state.tokens["job"] = Token("github-actions[bot]", "Bot", {"pull-requests": "read"})
    event = current_event(started_by("merge_group", QUEUED, **github.variables() | {"GITHUB_TOKEN": "job"}))
    assert event
    assert event.override


@pytest.mark.parametrize(("at", "head"), [("2026-11-25T00:00:00Z", None), ("2026-11-20T00:00:00Z", "9" * 40)])
def test_a_label_for_an_earlier_commit_does_not_count_in_the_merge_queue(
    started_by: Any, github: GitHub, at: str, head: str | None
) -> None:
    set_label(github)
    report(github, at, head)
    event = current_event(started_by("merge_group", QUEUED, **github.variables()))
    assert event
    assert event.override is None


def test_a_removed_label_does_not_count_in_the_merge_queue(started_by: Any, github: GitHub) -> None:
    set_label(github)
    github.state.pulls["7"]["labels"] = ["documentation"]
    event = current_event(started_by("merge_group", QUEUED, **github.variables()))
    assert event
    assert event.override is None


def test_the_merge_queue_fails_if_github_does_not_answer(started_by: Any, github: GitHub) -> None:
    github.state.failures.append(Failure(403))
    with pytest.raises(InputError, match=r"^GitHub does not return the labels of #7 \(403 .*run the job"):
        current_event(started_by("merge_group", QUEUED, **github.variables()))
    with pytest.raises(InputError, match="GITHUB_TOKEN is not set"):
        current_event(started_by("merge_group", QUEUED))


@pytest.mark.parametrize(
    "ref",
    ["refs/heads/main", f"refs/heads/pr-7-{BASE}", f"refs/heads/gh-readonly-queue/main/pr-7-{BASE}\n", "a/pr-7-b"],
)
def test_a_branch_of_another_form_is_not_the_merge_queue(started_by: Any, ref: str) -> None:
    with pytest.raises(InputError, match="is not a branch of the merge queue"):
        current_event(started_by("merge_group", {"merge_group": {"head_sha": HEAD, "head_ref": ref}}))
