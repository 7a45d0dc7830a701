"""Find the pull request of a workflow run, and whether a maintainer overruled the gate with the label `ship-anyway`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AliasPath, BaseModel, Field

from slipway.errors import InputError
from slipway.integrations import actions, github
from slipway.integrations.actions import Sha
from slipway.integrations.github_comments import ShownModel, shown_on
from slipway.review.report import Override

LABEL = "ship-anyway"
QUEUE_BRANCH = re.compile(r"refs/heads/gh-readonly-queue/.+/pr-([1-9][0-9]*)-[0-9a-f]{40}")

Number = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class Event:
    """The event that started a workflow run.

    `name` is GitHub's name for the event. `head` is the last commit of the pull request or of the merge queue's branch.
    """

    name: str
    pull_request: int | None
    head: str | None
    override: Override | None
    is_fork: bool = False
    """True if the pull request comes from a fork of the repository."""


class _PullRequestEvent(BaseModel):
    action: str
    number: Number = Field(validation_alias=AliasPath("pull_request", "number"))
    head: Sha = Field(validation_alias=AliasPath("pull_request", "head", "sha"))
    updated_at: datetime = Field(validation_alias=AliasPath("pull_request", "updated_at"))
    source: str | None = Field(default=None, validation_alias=AliasPath("pull_request", "head", "repo", "full_name"))
    """The repository that contains the pull request's branch, or None if the fork was deleted."""


class _MergeGroupEvent(BaseModel):
    head: Sha = Field(validation_alias=AliasPath("merge_group", "head_sha"))
    branch: str = Field(validation_alias=AliasPath("merge_group", "head_ref"))


class _DispatchEvent(BaseModel):
    number: Number = Field(validation_alias=AliasPath("inputs", "pull_request"))


def current_event(environ: Mapping[str, str]) -> Event | None:
    """Return the event that started this workflow run, or None outside of GitHub Actions.

    The label `ship-anyway` is valid for one commit only: it must have been added after the push of that commit. The
    event of the merge queue does not contain the time of that push, so the report on the commit is read instead. Raises
    InputError if the payload is not valid, or if GitHub does not answer.
    """
    if not actions.in_actions(environ):
        return None
    name = environ.get("GITHUB_EVENT_NAME", "")
    match name:
        case "pull_request":
            request = actions.read_event(environ, name, _PullRequestEvent)
            override = current_override(request.number, environ)
            if override and not _is_for_this_commit(override, request):
                override = None
            is_fork = request.source != environ.get("GITHUB_REPOSITORY")
            return Event(name, request.number, request.head, override, is_fork)
        case "merge_group":
            group = actions.read_event(environ, name, _MergeGroupEvent)
            found = QUEUE_BRANCH.fullmatch(group.branch)
            if found is None:
                raise InputError(f"{group.branch!a} is not a branch of the merge queue; run this on a pull request.")
            return Event(name, int(found[1]), group.head, override=_override_in_queue(int(found[1]), environ))
        case "workflow_dispatch":
            number = actions.read_event(environ, name, _DispatchEvent).number
            return Event(name, number, environ.get("GITHUB_SHA"), override=None)
        case _:
            return Event(name, None, environ.get("GITHUB_SHA"), override=None)


def _is_for_this_commit(override: Override, request: _PullRequestEvent) -> bool:
    """Return True if the label is newer than the push that caused the event.

    A repeated run has the event of the first run, so the time of the push stays the same. If a pull request is opened
    with the label, the push and the label can have the same time.
    """
    return override.at > request.updated_at or (override.at == request.updated_at and request.action == "opened")


def _override_in_queue(number: int, environ: Mapping[str, str]) -> Override | None:
    """Return who overruled the gate for the last commit of a pull request. Return None if it has no report."""
    if current_override(number, environ) is None:
        return None
    repository = github.connect(environ)
    try:
        shown = shown_on(repository.get_pull(number), github.login(repository))
    except github.ERRORS as error:
        raise InputError(
            f"GitHub does not return the report on #{number} ({github.reason(error)}); run the job again."
        ) from None
    return override_on(shown, number, environ) if shown else None


def override_on(shown: ShownModel, number: int, environ: Mapping[str, str]) -> Override | None:
    """Return who overruled the gate for the commit of the report `shown` on a pull request, or None.

    The label is valid if it is set now, and if the report shows it or is older than the label. A label that was added
    for an earlier commit is not valid.
    """
    found = current_override(number, environ)
    return found if found and (shown.is_overruled or found.at >= shown.at) else None


def current_override(number: int, environ: Mapping[str, str]) -> Override | None:
    """Return who added `ship-anyway` to a pull request, and when. Return None if the label is not set now."""
    try:
        # The token of the job can read pull requests, but not issues.
        pull = github.connect(environ).get_pull(number)
        if LABEL not in {label.name for label in pull.labels}:
            return None
        events: Iterable[Any] = pull.get_issue_events()
        added = [each for each in events if each.event == "labeled" and each.label.name == LABEL]
    except github.ERRORS as error:
        raise InputError(
            f"GitHub does not return the labels of #{number} ({github.reason(error)}); run the job again."
        ) from None
    return Override(by=added[-1].actor.login, at=added[-1].created_at) if added else None
