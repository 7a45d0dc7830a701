"""Which pull request a run is about, and whether a maintainer overruled the gate with the label `ship-anyway`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from slipway.errors import InputError
from slipway.integrations import actions, github
from slipway.integrations.actions import Sha
from slipway.review.report import Override

LABEL = "ship-anyway"
QUEUE_BRANCH = re.compile(r"refs/heads/gh-readonly-queue/.+/pr-([1-9][0-9]*)-[0-9a-f]{40}")

Number = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Event:
    """The event that started a run.

    `name` is GitHub's name for it. `head` is the last commit of the pull request, or of the merge queue's branch.
    """

    name: str
    pull_request: int | None
    head: str | None
    override: Override | None


class _Branch(BaseModel):
    sha: Sha


class _PullRequest(BaseModel):
    number: Number
    head: _Branch
    updated_at: datetime


class _Label(BaseModel):
    name: str


class _Sender(BaseModel):
    login: str


class _PullRequestEvent(BaseModel):
    action: str
    pull_request: _PullRequest
    label: _Label | None = None
    sender: _Sender


class _MergeGroup(BaseModel):
    head_ref: str
    head_sha: Sha


class _MergeGroupEvent(BaseModel):
    merge_group: _MergeGroup


class _Inputs(BaseModel):
    pull_request: Number


class _DispatchEvent(BaseModel):
    inputs: _Inputs


def current_event(environ: Mapping[str, str]) -> Event | None:
    """Return the event that started this run, or None outside of GitHub Actions.

    The label counts for one commit only: in the run that adding it starts, or in the merge queue, which a pull request
    leaves when it gets new commits. Raises InputError if the payload is not valid, or if GitHub does not answer.
    """
    if not actions.in_actions(environ):
        return None
    name = environ.get("GITHUB_EVENT_NAME", "")
    match name:
        case "pull_request":
            return _from_pull_request(actions.read_event(environ, name, _PullRequestEvent))
        case "merge_group":
            return _from_merge_group(actions.read_event(environ, name, _MergeGroupEvent).merge_group, environ)
        case "workflow_dispatch":
            number = actions.read_event(environ, name, _DispatchEvent).inputs.pull_request
            return Event(name, number, environ.get("GITHUB_SHA"), override=None)
        case _:
            return Event(name, None, environ.get("GITHUB_SHA"), override=None)


def _from_pull_request(payload: _PullRequestEvent) -> Event:
    request = payload.pull_request
    added = payload.action == "labeled" and payload.label is not None and payload.label.name == LABEL
    override = Override(by=payload.sender.login, at=request.updated_at) if added else None
    return Event("pull_request", request.number, request.head.sha, override)


def _from_merge_group(group: _MergeGroup, environ: Mapping[str, str]) -> Event:
    found = QUEUE_BRANCH.fullmatch(group.head_ref)
    if found is None:
        raise InputError(f"{group.head_ref!a} is not a branch of the merge queue; run this on a pull request.")
    number = int(found[1])
    return Event("merge_group", number, group.head_sha, override=current_override(number, environ))


def current_override(number: int, environ: Mapping[str, str]) -> Override | None:
    """Return who added the label to a pull request, and when. Return None if it has no such label now."""
    try:
        issue = github.connect(environ).get_issue(number)
        if LABEL not in {label.name for label in issue.labels}:
            return None
        added: list[Any] = [each for each in issue.get_events() if each.event == "labeled" and each.label.name == LABEL]
    except github.ERRORS as error:
        raise InputError(
            f"GitHub does not return the labels of #{number} ({github.reason(error)}); run the job again."
        ) from None
    return Override(by=added[-1].actor.login, at=added[-1].created_at) if added else None
