"""What a run is told of itself, and for which commit a maintainer's label counts."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo.fakes.github_server import Failure, GitHub
from slipway.errors import InputError
from slipway.review.event import Event, read_event
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
def told(tmp_path: Path) -> Any:
    """The environment of a run that an event has started."""

    def write(name: str, document: Any, **variables: str) -> dict[str, str]:
        path = tmp_path / "event.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return {"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": name, "GITHUB_EVENT_PATH": str(path), **variables}

    return write


def changed(**parts: Any) -> dict[str, Any]:
    return LABELED | parts


def of(**parts: Any) -> dict[str, Any]:
    return changed(pull_request=LABELED["pull_request"] | parts)


def test_outside_of_actions_there_is_no_event() -> None:
    assert read_event({}) is None
    assert read_event({"GITHUB_ACTIONS": "false", "GITHUB_EVENT_NAME": "pull_request"}) is None


def test_the_run_that_the_label_starts_has_an_override(told: Any) -> None:
    at = datetime(2026, 11, 24, 5, 31, tzinfo=UTC)
    event = read_event(told("pull_request", LABELED))
    assert event == Event("pull_request", 7, HEAD, from_fork=False, override=Override(by="ada", at=at))


@pytest.mark.parametrize(
    "document",
    [
        changed(action="synchronize"),  # a push: the label is still there, and was put on another commit
        changed(action="unlabeled"),
        changed(label={"name": "documentation"}),
        changed(label={"name": "Ship-Anyway"}),
        changed(label={"name": "ship-anyway "}),
        {key: value for key, value in LABELED.items() if key != "label"},
    ],
)
def test_no_other_run_has_one(told: Any, document: dict[str, Any]) -> None:
    event = read_event(told("pull_request", document))
    assert event
    assert (event.pull_request, event.override) == (7, None)


@pytest.mark.parametrize("repo", [{"full_name": "mallory/houses"}, None])
def test_a_fork_is_known_even_when_it_is_deleted(told: Any, repo: Any) -> None:
    event = read_event(told("pull_request", of(head=LABELED["pull_request"]["head"] | {"repo": repo})))
    assert event
    assert event.from_fork


def test_a_run_that_is_asked_for_is_of_the_pull_request_that_is_named(told: Any) -> None:
    event = read_event(told("workflow_dispatch", {"inputs": {"pull_request": "12"}}, GITHUB_SHA=HEAD))
    assert event == Event("workflow_dispatch", 12, HEAD, from_fork=False, override=None)


@pytest.mark.parametrize("number", ["0", "-7", "7; touch pwned", "7/../8", "", None, 1.5, "9" * 5000])
def test_what_is_no_number_is_refused(told: Any, number: Any) -> None:
    with pytest.raises(InputError, match=r"^GITHUB_EVENT_PATH: inputs\.pull_request is not as an event"):
        read_event(told("workflow_dispatch", {"inputs": {"pull_request": number}}))
    with pytest.raises(InputError, match=r"pull_request\.number is not as an event 'pull_request' has it"):
        read_event(told("pull_request", of(number=number)))


def test_another_event_is_of_no_pull_request(told: Any) -> None:
    event = read_event(told("push", {}, GITHUB_SHA=HEAD))
    assert event == Event("push", None, HEAD, from_fork=False, override=None)


@pytest.mark.parametrize("document", ["", "{", "[]", "{}", json.dumps(of(head={"sha": "main", "repo": None}))])
def test_an_event_that_cannot_be_read_is_refused(told: Any, document: str) -> None:
    with pytest.raises(InputError, match=r"^GITHUB_EVENT_PATH: .* is not as an event 'pull_request' has it"):
        read_event(told("pull_request", document))


def test_a_run_without_an_event_is_refused(tmp_path: Path) -> None:
    for environ in ({}, {"GITHUB_EVENT_PATH": str(tmp_path / "none")}):
        with pytest.raises(InputError, match="GITHUB_EVENT_PATH names no file"):
            read_event({"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": "pull_request", **environ})


def label_events(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "event": "labeled",
            "actor": {"login": f"person{number}"},
            "label": {"name": name},
            "created_at": f"2026-11-2{number}T00:00:00Z",
        }
        for number, name in enumerate(names)
    ]


def know(github: GitHub, labels: list[str], events: list[dict[str, Any]]) -> None:
    address = f"{github.api}/repos/{github.state.repository}/issues/7"
    github.state.documents["/issues/7"] = {"number": 7, "url": address, "labels": [{"name": each} for each in labels]}
    github.state.documents["/issues/7/events"] = events


def test_the_queue_asks_for_the_label(told: Any, github: GitHub) -> None:
    """Who has put it on last, and when."""
    know(github, ["ship-anyway"], label_events("ship-anyway", "ship-anyway", "documentation"))
    event = read_event(told("merge_group", QUEUED, **github.variables()))
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert event == Event("merge_group", 7, HEAD, from_fork=False, override=Override(by="person1", at=at))


def test_a_label_that_was_taken_off_does_not_count_in_the_queue(told: Any, github: GitHub) -> None:
    know(github, ["documentation"], label_events("ship-anyway"))
    event = read_event(told("merge_group", QUEUED, **github.variables()))
    assert event
    assert event.override is None


def test_a_queue_without_an_answer_is_refused(told: Any, github: GitHub) -> None:
    github.state.failures.append(Failure(403))
    with pytest.raises(
        InputError, match=r"^GitHub does not say whether #7 has the label ship-anyway \(403 .*run the job"
    ):
        read_event(told("merge_group", QUEUED, **github.variables()))
    with pytest.raises(InputError, match="GITHUB_TOKEN is not set"):
        read_event(told("merge_group", QUEUED))


@pytest.mark.parametrize(
    "ref",
    ["refs/heads/main", f"refs/heads/pr-7-{BASE}", f"refs/heads/gh-readonly-queue/main/pr-7-{BASE}\n", "a/pr-7-b"],
)
def test_a_branch_that_no_queue_made_is_refused(told: Any, ref: str) -> None:
    with pytest.raises(InputError, match="is no branch of a merge queue's"):
        read_event(told("merge_group", {"merge_group": {"head_sha": HEAD, "head_ref": ref}}))
