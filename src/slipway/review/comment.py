"""Post the report of a pull request's run as a comment, on that pull request and on no other.

Any user can start such a run from a fork, so nothing in its report is trusted.
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
from slipway.integrations.github import ERRORS, connect, find_checked_run, login, reason
from slipway.integrations.github_comments import CommentText, NotPosted
from slipway.review import chart_branch, markdown, svg_charts
from slipway.review.report import REPORT, Report, read_report

CHECKS = "pull-request.yml"
"""The workflow whose runs have a report."""


@dataclass(frozen=True)
class PostResult:
    """The result in one sentence, the address of the comment if there is one, and warnings."""

    sentence: str
    address: str | None = None
    warnings: tuple[str, ...] = ()


def post(folder: Path, environ: Mapping[str, str]) -> PostResult:
    """Post the report in a folder, which is untrusted, as the one comment of Slipway on its pull request.

    Raises InputError if the report or the event is not valid, and CheckFailed if the report does not belong to the run
    or if the comment cannot be written.
    """
    run = find_checked_run(environ, CHECKS)
    file = folder / REPORT.name
    if not os.path.lexists(file):
        return PostResult(f"Run {run.id} has no report, so there is nothing to post.")
    report = read_report(file)
    if report.pull_request is None:
        return PostResult(f"Run {run.id} is not for a pull request, so there is nothing to post.")
    repository = connect(environ)
    kept = f"the report is in the artifact `report` of run {run.id}: {run_url(environ, run.id)}"
    try:
        pull = repository.get_pull(report.pull_request)
        _check_belongs(pull, report, run)
        text, warnings = _comment_text(report, pull, environ)
        posted = github_comments.post_comment(pull, text, login(repository), environ)
    except UnknownObjectException:
        raise CheckFailed(f"There is no pull request {report.pull_request}, so nothing is posted.") from None
    except NotPosted as error:
        raise CheckFailed(f"{error}; {kept}") from None
    except ERRORS as error:
        raise CheckFailed(f"GitHub's API failed ({reason(error)}); {kept}") from None
    sentence = f"The report on {text.head[:12]} is on pull request {pull.number}."
    return PostResult(sentence, posted.address, (*warnings, *posted.warnings))


def _check_belongs(pull: PullRequest, report: Report, run: WorkflowRun) -> None:
    """Raise CheckFailed unless the pull request that the report names is open and its last commit is the run's."""
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
            f"Pull request {pull.number} is at {pull.head.sha[:12]} and run {run.id} is on {run.head_sha[:12]}, so "
            "nothing is posted; the run on the newest commit posts its own report."
        )
    if report.revision.head != run.head_sha:
        raise CheckFailed(
            f"The report is on {report.revision.head[:12]} and run {run.id} on {run.head_sha[:12]}, so nothing is "
            "posted."
        )


def _comment_text(report: Report, pull: PullRequest, environ: Mapping[str, str]) -> tuple[CommentText, tuple[str, ...]]:
    """Return the comment, and warnings. If the charts cannot be drawn or pushed, the comment goes without them."""
    warnings, notes, charts = [], [], None
    source, head = pull.head.repo.full_name, pull.head.sha
    if source != environ["GITHUB_REPOSITORY"]:
        notes.append(
            f"Code of the fork {source} made this report and can have written anything into it: read the change first."
        )
    try:
        if drawn := svg_charts.draw_charts(report):
            charts = chart_branch.push_charts(drawn, pull.number, head, environ)
    except CheckFailed as error:
        warnings.append(str(error))
    except (ArithmeticError, ValueError):
        warnings.append("The comment has no charts: the numbers of the report cannot be drawn.")
    bundle = report.result.verdict.challenger_bundle if report.result else None
    text = markdown.render_comment(report, charts, notes)
    return CommentText(text, head, bundle, report.champion_stays), tuple(warnings)
