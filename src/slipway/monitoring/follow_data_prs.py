"""Start the checks and the report for the pull requests of deliveries, in repositories without a GitHub App.

A workflow's own token has two limits. GitHub starts no workflow for a pull request that this token opened, and sends no
`workflow_run` event for a run that this token started. This module therefore starts the checks, waits for them, and
then starts the workflow Comment, which posts the report and merges the pull request. If this program is interrupted,
its next run continues the work.
"""

import time
from collections.abc import Iterator, Mapping

from github.PullRequest import PullRequest
from github.Repository import Repository
from github.WorkflowRun import WorkflowRun

from slipway.errors import CheckFailed
from slipway.integrations import github, github_comments
from slipway.integrations.git import MAIN
from slipway.integrations.github import CHECKS
from slipway.review.landing import PREFIX

COMMENT = "comment.yml"
POLL_SECONDS = 10.0
TIMEOUT_SECONDS = 100 * 60.0
"""Time limit for all checks together, below the time limit of the workflow's job."""
WITHOUT_RESULT = ("action_required", "cancelled", "skipped", "stale", "startup_failure")
"""If a run of the checks ends with one of these conclusions, the checks are started again."""


def follow(environ: Mapping[str, str]) -> Iterator[str]:
    """Start the checks, and then the report, for each open delivery pull request whose last commit has no report yet.

    Yields a sentence for each of these pull requests. Raises CheckFailed if GitHub refuses a request, or if the checks
    take too long.
    """
    repository = github.connect(environ)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        pulls = [each for each in _open_deliveries(repository) if not _has_report(each)]
        for pull in pulls:
            if _last_run(repository, pull) is None:
                repository.get_workflow(CHECKS).create_dispatch(
                    pull.head.ref, {"pull_request": str(pull.number)}, throw=True
                )
        for pull in pulls:
            run = _wait(repository, pull, deadline)
            repository.get_workflow(COMMENT).create_dispatch(MAIN, {"run": str(run.id)}, throw=True)
            yield f"pull request {pull.number} is checked ({run.conclusion}), and {COMMENT} is started: {pull.html_url}"
    except github.ERRORS as error:
        raise CheckFailed(
            f"The checks of a delivery cannot be started or read ({github.reason(error)}); start New data again, which "
            "continues here."
        ) from None
    if not pulls:
        yield "each open delivery has its report"


def _open_deliveries(repository: Repository) -> list[PullRequest]:
    """Return the open pull requests of deliveries that a bot opened."""
    return [
        each
        for each in repository.get_pulls(state="open", base=MAIN)
        if each.head.ref.startswith(PREFIX) and each.user.type == "Bot" and each.head.repo == each.base.repo
    ]


def _has_report(pull: PullRequest) -> bool:
    start = f"{github_comments.MARKER} {pull.head.sha} "
    own = github_comments.own_comments(list(pull.get_issue_comments()), login=None)
    return any((each.body or "").startswith(start) for each in own)


def _last_run(repository: Repository, pull: PullRequest) -> WorkflowRun | None:
    """Return the newest run of the checks on the pull request's last commit, or None if they were never started."""
    runs = repository.get_workflow(CHECKS).get_runs(head_sha=pull.head.sha)
    return next((each for each in runs if each.conclusion not in WITHOUT_RESULT), None)


def _wait(repository: Repository, pull: PullRequest, deadline: float) -> WorkflowRun:
    """Wait until the checks of a pull request have ended, and return their run."""
    while True:
        run = _last_run(repository, pull)
        if run and run.status == "completed":
            return run
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"The checks of pull request {pull.number} take more than {TIMEOUT_SECONDS / 60:.0f} minutes; start "
                "New data again, which continues here."
            )
        time.sleep(POLL_SECONDS)
