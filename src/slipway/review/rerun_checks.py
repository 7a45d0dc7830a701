"""Run the checks of a pull request again after its label `ship-anyway` was added or removed."""

import time
from collections.abc import Mapping

from github.Repository import Repository
from github.WorkflowRun import WorkflowRun
from pydantic import AliasPath, BaseModel, Field

from slipway.errors import CheckFailed
from slipway.integrations import actions, github
from slipway.integrations.actions import Sha
from slipway.integrations.github import CHECKS

POLL_SECONDS = 5.0
TIMEOUT_SECONDS = 10 * 60.0
"""Maximum time to wait for the end of a cancelled run."""


class _Event(BaseModel):
    number: int = Field(gt=0, validation_alias=AliasPath("pull_request", "number"))
    head: Sha = Field(validation_alias=AliasPath("pull_request", "head", "sha"))


def rerun(environ: Mapping[str, str]) -> str:
    """Start the last checks of the event's pull request again, and return a sentence for the log.

    The existing workflow run is started again, so the new checks replace the commit's old checks. A run that has not
    ended is cancelled first, because it possibly read the old labels. Raises CheckFailed if GitHub refuses a request.
    """
    pull = actions.read_event(environ, "pull_request", _Event)
    repository = github.connect(environ)
    try:
        run = _last_run(repository, pull.head)
        if run is None:
            return f"pull request {pull.number} has no checks on {pull.head:.12} yet, and they will read the label"
        if run.status != "completed":
            _post(repository, run, "cancel")
            run = _wait(repository, run.id)
        _post(repository, run, "rerun")
    except github.ERRORS as error:
        raise CheckFailed(
            f"The checks of pull request {pull.number} cannot be run again ({github.reason(error)}); choose "
            '"Re-run all jobs" in its run of the workflow Pull request.'
        ) from None
    return f"the checks of pull request {pull.number} run again: {run.html_url}"


def _last_run(repository: Repository, head: str) -> WorkflowRun | None:
    """Return the newest run of the checks on a commit. Return None if every run waits for approval."""
    runs = repository.get_workflow(CHECKS).get_runs(head_sha=head, event="pull_request")
    return next((each for each in runs if each.conclusion != "action_required"), None)


def _post(repository: Repository, run: WorkflowRun, what: str) -> None:
    """Send the request `what`, such as "cancel", for a run. PyGithub's methods would hide the reason of a refusal."""
    repository.requester.requestJsonAndCheck("POST", f"{run.url}/{what}")


def _wait(repository: Repository, number: int) -> WorkflowRun:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (run := repository.get_workflow_run(number)).status != "completed":
        if time.monotonic() > deadline:
            raise CheckFailed(f"Run {number} was cancelled but does not end; run its jobs again by hand.")
        time.sleep(POLL_SECONDS)
    return run
