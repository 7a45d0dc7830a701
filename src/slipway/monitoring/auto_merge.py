"""The pull request of a delivery merges itself: if it is green, and is what the source has delivered, to the byte."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from github.PullRequest import PullRequest
from github.Repository import Repository

from slipway import artifacts
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed
from slipway.integrations import github, process
from slipway.integrations.actions import WorkflowRun
from slipway.integrations.dvc import embedded_remote
from slipway.integrations.git import MAIN
from slipway.monitoring.ingest import ingest
from slipway.monitoring.open_data_pr import PREFIX
from slipway.monitoring.source import Source

CHECKS, SHIP = "pull-request.yml", "ship.yml"


def merge(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> str:
    """Merge the pull request whose run has ended, if it is a delivery's; returns what was done.

    Nobody has approved it, so nothing of it is believed: only data.dvc may differ, and it must be what taking in the
    same deliveries from the source gives here. Raises CheckFailed where that is not so, or where GitHub does not merge
    it.
    """
    run = github.find_checked_run(environ, CHECKS)
    if not params.ingest.auto_merge:
        return "left to people, as params.yaml says (ingest.auto_merge)"
    if run.conclusion != "success" or not (run.head_branch or "").startswith(PREFIX):
        return f"left to people: {run.head_branch} is no delivery that is green"
    if run.head_repository != environ.get("GITHUB_REPOSITORY"):
        raise CheckFailed(f"{run.head_branch} is of {run.head_repository}, so it does not merge itself.")
    repository = github.connect(environ)
    try:
        pull = _its_pull_request(repository, run)
        if not pull.merged_at:
            _refuse_other_files(pull)
            _refuse_other_data(repository, run, params, model, today)
            _merge_once(pull, run)
    except github.ERRORS as error:
        raise CheckFailed(
            f"{run.head_branch} cannot be merged ({github.reason(error)}); where it is behind {MAIN}, bring it up to "
            "date with `gh pr update-branch`."
        ) from None
    if environ.get("SLIPWAY_DISPATCH") == "true":
        _start_ship(repository, pull)
    return f"pull request {pull.number} is merged: {pull.html_url}"


def _merge_once(pull: PullRequest, run: WorkflowRun) -> None:
    """Merge a pull request. It is also merged if GitHub did so but its answer was lost, and a second request failed."""
    try:
        pull.merge(merge_method="squash", sha=run.head_sha, commit_title=f"{pull.title} (#{pull.number})")
    except github.ERRORS:
        pull.update()
        if not pull.merged_at or pull.head.sha != run.head_sha:
            raise


def _start_ship(repository: Repository, pull: PullRequest) -> None:
    """Start Ship, because GitHub starts no workflow for a merge by a workflow's own token."""
    try:
        repository.get_workflow(SHIP).create_dispatch(MAIN, throw=True)
    except github.ERRORS as error:
        raise CheckFailed(
            f"Pull request {pull.number} is merged, but {SHIP} cannot be started ({github.reason(error)}); start it "
            f"with `gh workflow run {SHIP}`."
        ) from None


def _its_pull_request(repository: Repository, run: WorkflowRun) -> PullRequest:
    """Return the open pull request of a run's branch, or the one that was merged at the run's commit."""
    owner = str(repository.full_name).partition("/")[0]
    pulls = list(repository.get_pulls(state="all", base=MAIN, head=f"{owner}:{run.head_branch}"))
    for pull in pulls:
        if pull.merged_at and pull.head.sha == run.head_sha:
            return pull
    for pull in pulls:
        if pull.state != "open":
            continue
        if pull.head.sha != run.head_sha:
            raise CheckFailed(f"{run.head_branch} has got commits since; its next run decides.")
        if pull.user.type != "Bot":
            raise CheckFailed(f"Pull request {pull.number} is {pull.user.login}'s, so people merge it.")
        return pull
    raise CheckFailed(f"{run.head_branch} has no open pull request.")


def _refuse_other_files(pull: PullRequest) -> None:
    remote = embedded_remote()
    for file in pull.get_files():
        added = remote is not None and file.status == "added" and Path(file.filename).is_relative_to(remote)
        if not added and file.filename != str(artifacts.DATA_DVC):
            raise CheckFailed(f"Pull request {pull.number} changes {file.filename}, so people merge it.")


def _refuse_other_data(repository: Repository, run: WorkflowRun, params: Params, model: Model, today: date) -> None:
    """Take in here what the branch says that it takes in, and compare."""
    newest = str(run.head_branch).removeprefix(PREFIX)
    process.run("dvc", "pull", str(artifacts.DATA_DVC))
    stems = [name.removesuffix(".csv") for name in Source(params.ingest.source).names()]
    ingest(params, model, today, known=[stem for stem in stems if stem < newest])
    found = repository.get_contents(str(artifacts.DATA_DVC), ref=run.head_sha)
    content = b"" if isinstance(found, list) else found.decoded_content
    if artifacts.stated_hash(content) != artifacts.data_hash():
        raise CheckFailed(f"{run.head_branch} does not bring what the source has delivered, so people merge it.")
