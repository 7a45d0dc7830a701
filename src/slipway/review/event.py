"""Which pull request a run is about, and whether a maintainer overruled the gate with the label `ship-anyway`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, Field

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


class _PullRequestEvent(BaseModel):
    action: str
    number: Number = Field(validation_alias=AliasPath("pull_request", "number"))
    head: Sha = Field(validation_alias=AliasPath("pull_request", "head", "sha"))
    updated_at: datetime = Field(validation_alias=AliasPath("pull_request", "updated_at"))
    label: str | None = Field(None, validation_alias=AliasPath("label", "name"))
    sender: str = Field(validation_alias=AliasPath("sender", "login"))


class _MergeGroupEvent(BaseModel):
    head: Sha = Field(validation_alias=AliasPath("merge_group", "head_sha"))
    branch: str = Field(validation_alias=AliasPath("merge_group", "head_ref"))


class _DispatchEvent(BaseModel):
    number: Number = Field(validation_alias=AliasPath("inputs", "pull_request"))


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
            request = actions.read_event(environ, name, _PullRequestEvent)
            added = request.action == "labeled" and request.label == LABEL
            override = Override(by=request.sender, at=request.updated_at) if added else None
            return Event(name, request.number, request.head, override)
        case "merge_group":
            group = actions.read_event(environ, name, _MergeGroupEvent)
            found = QUEUE_BRANCH.fullmatch(group.branch)
            if found is None:
                raise InputError(f"{group.branch!a} is not a branch of the merge queue; run this on a pull request.")
            return Event(name, int(found[1]), group.head, override=current_override(int(found[1]), environ))
        case "workflow_dispatch":
            number = actions.read_event(environ, name, _DispatchEvent).number
            return Event(name, number, environ.get("GITHUB_SHA"), override=None)
        case _:
            return Event(name, None, environ.get("GITHUB_SHA"), override=None)


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
