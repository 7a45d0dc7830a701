"""What started a run of the workflow, and whether a maintainer says that the model ships though it is held."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from slipway.errors import InputError
from slipway.integrations import github
from slipway.review.report import Override, Sha

LABEL = "ship-anyway"
QUEUED = re.compile(r"refs/heads/gh-readonly-queue/.+/pr-([1-9][0-9]*)-[0-9a-f]{40}")

Number = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Event:
    """`name` is GitHub's; `head` is the last commit of the pull request, or of the queue's branch."""

    name: str
    pull_request: int | None
    head: str | None
    from_fork: bool
    override: Override | None


class _Repository(BaseModel):
    full_name: str


class _Branch(BaseModel):
    sha: Sha
    repo: _Repository | None
    """None once a fork is deleted."""


class _PullRequest(BaseModel):
    number: Number
    head: _Branch
    base: _Branch
    updated_at: datetime


class _Named(BaseModel):
    name: str


class _Sender(BaseModel):
    login: str


class _OfPullRequest(BaseModel):
    action: str
    pull_request: _PullRequest
    label: _Named | None = None
    sender: _Sender


class _Group(BaseModel):
    head_ref: str
    head_sha: Sha


class _OfMergeGroup(BaseModel):
    merge_group: _Group


class _Inputs(BaseModel):
    pull_request: Number


class _OfDispatch(BaseModel):
    inputs: _Inputs


def read_event(environ: Mapping[str, str]) -> Event | None:
    """What GitHub Actions says of the run; None outside of it.

    The label counts only for the commit that it was put on: in the run that putting it on starts, or in the merge
    queue, which a push takes a pull request out of. Raises InputError where GitHub's words cannot be read, or where it
    does not answer when the queue asks for the label.
    """
    if environ.get("GITHUB_ACTIONS") != "true":
        return None
    name = environ.get("GITHUB_EVENT_NAME", "")
    try:
        told = Path(environ["GITHUB_EVENT_PATH"]).read_bytes()
        if name == "pull_request":
            return _of_pull_request(_OfPullRequest.model_validate_json(told))
        if name == "merge_group":
            return _of_merge_group(_OfMergeGroup.model_validate_json(told).merge_group, environ)
        asked = _OfDispatch.model_validate_json(told).inputs.pull_request if name == "workflow_dispatch" else None
    except (KeyError, OSError):
        raise InputError("GITHUB_EVENT_PATH names no file; outside of a workflow, unset GITHUB_ACTIONS.") from None
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise InputError(f"GITHUB_EVENT_PATH: {where} is not as an event {name!a} has it.") from None
    return Event(name, asked, environ.get("GITHUB_SHA"), from_fork=False, override=None)


def _of_pull_request(told: _OfPullRequest) -> Event:
    request = told.pull_request
    put = told.action == "labeled" and told.label is not None and told.label.name == LABEL
    return Event(
        name="pull_request",
        pull_request=request.number,
        head=request.head.sha,
        from_fork=request.head.repo is None or request.head.repo != request.base.repo,
        override=Override(by=told.sender.login, at=request.updated_at) if put else None,
    )


def _of_merge_group(group: _Group, environ: Mapping[str, str]) -> Event:
    named = QUEUED.fullmatch(group.head_ref)
    if named is None:
        raise InputError(f"{group.head_ref!a} is no branch of a merge queue's; run this on a pull request.")
    number = int(named[1])
    return Event("merge_group", number, group.head_sha, from_fork=False, override=label_now(number, environ))


def label_now(number: int, environ: Mapping[str, str]) -> Override | None:
    """Who has put the label on the pull request, and when, if it is there now."""
    try:
        issue = github.connect(environ).get_issue(number)
        if LABEL not in {label.name for label in issue.labels}:
            return None
        put: list[Any] = [each for each in issue.get_events() if each.event == "labeled" and each.label.name == LABEL]
    except github.ERRORS as error:
        raise InputError(
            f"GitHub does not say whether #{number} has the label {LABEL} ({github.reason(error)}); run the job again."
        ) from None
    return Override(by=put[-1].actor.login, at=put[-1].created_at) if put else None
