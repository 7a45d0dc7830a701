"""The report of a run that anybody can start, posted to the pull request that it is of, and to no other."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from github import UnknownObjectException
from github.PullRequest import PullRequest
from pydantic import BaseModel, Field, ValidationError

from slipway.errors import CheckFailed, InputError
from slipway.integrations import github_comments
from slipway.integrations.github import ERRORS, connect, login, reason
from slipway.integrations.github_comments import Text
from slipway.review import chart_branch, markdown, svg_charts
from slipway.review.report import REPORT, Report, Sha, read_report


@dataclass(frozen=True)
class Posted:
    """What came of it, in a sentence; where the comment is, if there is one; what did not go as it should."""

    words: str
    address: str | None = None
    warnings: tuple[str, ...] = ()


class Source(BaseModel):
    """A repository."""

    full_name: str


class Run(BaseModel):
    """The run that made the report, as GitHub tells of it."""

    id: int = Field(gt=0)
    head_sha: Sha
    head_repository: Source


class Event(BaseModel):
    """What starts the workflow that posts."""

    workflow_run: Run


def post(folder: Path, environ: Mapping[str, str]) -> Posted:
    """Post the report in a folder, which is a stranger's, as the one comment of Slipway on its pull request.

    Raises InputError where the report or the surroundings cannot be used, and CheckFailed where the report is not of
    the run or the comment cannot be written.
    """
    run = _read_run(environ)
    file = folder / REPORT.name
    if not os.path.lexists(file):
        return Posted(f"Run {run.id} judged nothing, so there is nothing to post.")
    report = read_report(file)
    if report.pull_request is None:
        return Posted(f"Run {run.id} is of no pull request, so there is nothing to post.")
    repository = connect(environ)
    try:
        pull = _its_pull_request(repository.get_pull(report.pull_request), report, run)
        text, warnings = _text(report, pull, environ)
        placed = github_comments.place(pull, text, login(repository), environ)
    except UnknownObjectException:
        raise CheckFailed(f"There is no pull request {report.pull_request}, so nothing is posted.") from None
    except github_comments.NotPlaced as error:
        raise CheckFailed(f"{error}; {_kept(run, environ)}") from None
    except ERRORS as error:
        raise CheckFailed(f"GitHub's API failed ({reason(error)}); {_kept(run, environ)}") from None
    words = f"The report of {text.head[:12]} is on pull request {pull.number}."
    return Posted(words, placed.address, (*warnings, *placed.warnings))


def _read_run(environ: Mapping[str, str]) -> Run:
    """The run that the event names."""
    try:
        return Event.model_validate_json(Path(environ["GITHUB_EVENT_PATH"]).read_bytes()).workflow_run
    except (KeyError, OSError, ValidationError):
        raise InputError(
            "GITHUB_EVENT_PATH names no event `workflow_run` with an id, a commit and a repository; `slipway comment` "
            "runs in the workflow comment.yml."
        ) from None


def _its_pull_request(pull: PullRequest, report: Report, run: Run) -> PullRequest:
    """The pull request that a report names, if GitHub says that the run was of it; raises CheckFailed if not."""
    source = pull.head.repo.full_name if pull.head.repo else None
    if pull.state != "open":
        raise CheckFailed(f"Pull request {pull.number} is {pull.state}, so nothing is posted.")
    if source != run.head_repository.full_name:
        raise CheckFailed(
            f"Run {run.id} is of {run.head_repository.full_name} and pull request {pull.number}, which its report "
            "names, is not, so nothing is posted."
        )
    if pull.head.sha != run.head_sha:
        raise CheckFailed(
            f"Pull request {pull.number} is at {pull.head.sha[:12]} and run {run.id} of {run.head_sha[:12]}, so "
            "nothing is posted: its newest run posts, and one that is started by hand must be of its branch."
        )
    if report.lineage.head != run.head_sha:
        raise CheckFailed(
            f"The report is of {report.lineage.head[:12]} and run {run.id} of {run.head_sha[:12]}, so nothing is "
            "posted."
        )
    return pull


def _text(report: Report, pull: PullRequest, environ: Mapping[str, str]) -> tuple[Text, tuple[str, ...]]:
    """What is posted, and warnings. The pictures are pushed first; a report is not lost for want of them."""
    warnings, notes, shown = [], [], None
    source, head = pull.head.repo.full_name, pull.head.sha
    if source != environ["GITHUB_REPOSITORY"]:
        notes.append(
            f"Code of the fork {source} made this report and can have written anything into it: read the change first."
        )
    try:
        if drawn := svg_charts.draw(report):
            shown = chart_branch.push(drawn, pull.number, head, environ)
    except CheckFailed as error:
        warnings.append(str(error))
    except (ArithmeticError, ValueError):
        warnings.append("The numbers of the report cannot be drawn, so there are no pictures.")
    bundle = report.judged.verdict.challenger_bundle if report.judged else None
    return Text(markdown.comment(report, shown, notes), head, bundle), tuple(warnings)


def _kept(run: Run, environ: Mapping[str, str]) -> str:
    """Where the report is if it is not posted."""
    server = environ.get("GITHUB_SERVER_URL") or "https://github.com"
    address = f"{server}/{environ['GITHUB_REPOSITORY']}/actions/runs/{run.id}"
    return f"the report is in the artifact `report` of run {run.id}: {address}"
