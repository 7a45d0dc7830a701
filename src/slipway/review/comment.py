"""Post the report of a workflow run as a comment on the run's pull request.

Any user can start a workflow run from a fork, so nothing in the report is trusted. CML posts the comment, and must not
get a token that can push. Another job therefore pushes the charts first.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from github import UnknownObjectException
from github.PullRequest import PullRequest

from slipway.errors import CheckFailed
from slipway.integrations import github_comments
from slipway.integrations.actions import WorkflowRun, run_url
from slipway.integrations.github import CHECKS, ERRORS, connect, find_checked_run, login, reason
from slipway.integrations.github_comments import CommentText, NotPosted
from slipway.review import chart_branch, looks, markdown, svg_charts
from slipway.review.report import REPORT, Report, read_report


@dataclass(frozen=True)
class PostResult:
    """The result in one sentence, the address of the posted comment or of the charts (or None), and warnings."""

    sentence: str
    address: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunReport:
    """The report of a workflow run, and its pull request."""

    report: Report
    pull: PullRequest
    run: WorkflowRun


def post(folder: Path, environ: Mapping[str, str], charts: str | None = None) -> PostResult:
    """Post the report in a folder to its pull request. Slipway writes one comment, and updates it later.

    The content of the folder is not trusted. `charts` is the address of the pushed charts, or None. Raises InputError
    if the report or the event is not valid. Raises CheckFailed if the report does not belong to the run, or if the
    comment cannot be written.
    """
    found = _find_report(folder, environ)
    if isinstance(found, PostResult):
        return found
    text = _comment_text(found, charts, environ)
    try:
        posted = github_comments.post_comment(found.pull, text, login(connect(environ)), environ)
    except NotPosted as error:
        raise CheckFailed(f"{error}; {_kept(found.run, environ)}") from None
    except ERRORS as error:
        raise CheckFailed(f"GitHub's API failed ({reason(error)}); {_kept(found.run, environ)}") from None
    sentence = f"The report on {text.head[:12]} is on pull request {found.pull.number}."
    return PostResult(sentence, posted.address, posted.warnings)


def push_charts(folder: Path, environ: Mapping[str, str]) -> PostResult:
    """Push the charts of the report in a folder to a branch. The result contains the address of the charts.

    The content of the folder is not trusted. If charts cannot be drawn or pushed, the result has a warning. Raises the
    same errors as `post`.
    """
    found = _find_report(folder, environ)
    if isinstance(found, PostResult):
        return found
    head, warnings, drawn = found.pull.head.sha, [], {}
    judged = looks.line_about(found.report.result.verdict) if found.report.result else ""
    try:
        drawn = svg_charts.draw_charts(found.report)
    except (ArithmeticError, ValueError):
        warnings.append("The comment has no charts: the numbers of the report cannot be drawn.")
    try:
        address = chart_branch.push_charts(drawn, found.pull.number, head, environ, judged)
    except CheckFailed as error:
        return PostResult("The comment has no charts.", warnings=(*warnings, str(error)))
    return PostResult(f"{len(drawn)} charts on {head[:12]} are pushed.", address, tuple(warnings))


def _find_report(folder: Path, environ: Mapping[str, str]) -> RunReport | PostResult:
    """Return the report of the workflow run that the event names. If there is nothing to post, return the reason."""
    run = find_checked_run(environ, CHECKS)
    file = folder / REPORT.name
    if not os.path.lexists(file):
        return PostResult(f"Run {run.id} has no report, so there is nothing to post.")
    report = read_report(file)
    if report.pull_request is None:
        return PostResult(f"Run {run.id} is not for a pull request, so there is nothing to post.")
    try:
        pull = connect(environ).get_pull(report.pull_request)
        _check_belongs(pull, report, run)
    except UnknownObjectException:
        raise CheckFailed(f"There is no pull request {report.pull_request}, so nothing is posted.") from None
    except ERRORS as error:
        raise CheckFailed(f"GitHub's API failed ({reason(error)}); {_kept(run, environ)}") from None
    return RunReport(report, pull, run)


def _kept(run: WorkflowRun, environ: Mapping[str, str]) -> str:
    return f"the report is in the artifact `report` of run {run.id}: {run_url(environ, run.id)}"


def _check_belongs(pull: PullRequest, report: Report, run: WorkflowRun) -> None:
    """Raise CheckFailed if the report's pull request is closed, or if its last commit is not the run's commit."""
    source = pull.head.repo.full_name if pull.head.repo else None
    if pull.state != "open":
        raise CheckFailed(f"Pull request {pull.number} is {pull.state}, so nothing is posted.")
    if source != run.head_repository:
        raise CheckFailed(
            f"The report names pull request {pull.number}, but run {run.id} belongs to "
            f"{run.head_repository}, so nothing is posted."
        )
    if pull.head.sha != run.head_sha:
        raise CheckFailed(
            f"Pull request {pull.number} is at {pull.head.sha[:12]} but run {run.id} is for {run.head_sha[:12]}, so "
            "nothing is posted; the run on the newest commit posts its own report."
        )
    if report.revision.head != run.head_sha:
        raise CheckFailed(
            f"The report is for {report.revision.head[:12]} but run {run.id} is for {run.head_sha[:12]}, so nothing is "
            "posted."
        )


def _comment_text(found: RunReport, charts: str | None, environ: Mapping[str, str]) -> CommentText:
    notes, report = [], found.report
    source = found.pull.head.repo.full_name
    if source != environ["GITHUB_REPOSITORY"]:
        notes.append(
            f"Code of the fork {source} wrote this report, so its numbers may be wrong: review the code first."
        )
    bundle = report.result.verdict.challenger_bundle if report.result else None
    text = markdown.render_comment(report, charts, notes)
    return CommentText(text, found.pull.head.sha, bundle, report.champion_stays, report.override is not None)
