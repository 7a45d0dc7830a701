"""Merge the pull request of a delivery if its checks passed and it contains exactly the files of the source."""

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
from slipway.integrations.delivery_source import DeliverySource
from slipway.integrations.dvc import embedded_remote
from slipway.integrations.git import MAIN
from slipway.monitoring.ingest import ingest
from slipway.monitoring.open_data_pr import PREFIX

CHECKS = "pull-request.yml"
"""The workflow that checks a pull request."""
SHIP = "ship.yml"
"""The workflow that releases a merge."""


def merge(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> str:
    """Merge the pull request of a completed run if it belongs to a delivery, and return what was done as a sentence.

    No person has approved it, so its content is not trusted. Only data.dvc may differ, and it must equal the result of
    ingesting the same deliveries here. Raises CheckFailed if it does not, or if GitHub does not merge it.
    """
    run = github.find_checked_run(environ, CHECKS)
    if not params.ingest.auto_merge:
        return "not merged: ingest.auto_merge in params.yaml is false"
    if run.conclusion != "success" or not (run.head_branch or "").startswith(PREFIX):
        return f"not merged: {run.head_branch} is not a delivery whose checks passed"
    if run.head_repository != environ.get("GITHUB_REPOSITORY"):
        raise CheckFailed(f"{run.head_branch} is in {run.head_repository}; a person must merge it.")
    repository = github.connect(environ)
    try:
        pull = _pull_request(repository, run)
        if not pull.merged_at:
            _check_files(pull)
            _check_data(repository, run, params, model, today)
            _merge_once(pull, run)
    except github.ERRORS as error:
        raise CheckFailed(
            f"{run.head_branch} cannot be merged ({github.reason(error)}); if it is behind {MAIN}, update it with "
            "`gh pr update-branch`."
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
    if problem := github.start_workflow(repository, SHIP):
        raise CheckFailed(f"Pull request {pull.number} is merged, but {problem}")


def _pull_request(repository: Repository, run: WorkflowRun) -> PullRequest:
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
            raise CheckFailed(f"{run.head_branch} has newer commits; wait for the run of the newest one.")
        if pull.user.type != "Bot":
            raise CheckFailed(f"Pull request {pull.number} was opened by {pull.user.login}; a person must merge it.")
        return pull
    raise CheckFailed(f"{run.head_branch} has no open pull request.")


def _check_files(pull: PullRequest) -> None:
    remote = embedded_remote()
    for file in pull.get_files():
        added = remote is not None and file.status == "added" and Path(file.filename).is_relative_to(remote)
        if not added and file.filename != str(artifacts.DATA_DVC):
            raise CheckFailed(f"Pull request {pull.number} changes {file.filename}; a person must merge it.")


def _check_data(repository: Repository, run: WorkflowRun, params: Params, model: Model, today: date) -> None:
    """Ingest the deliveries that the branch claims to ingest, and compare the data."""
    newest = str(run.head_branch).removeprefix(PREFIX)
    process.run("dvc", "pull", str(artifacts.DATA_DVC))
    stems = [name.removesuffix(".csv") for name in DeliverySource(params.ingest.source).names()]
    ingest(params, model, today, known=[stem for stem in stems if stem < newest])
    found = repository.get_contents(str(artifacts.DATA_DVC), ref=run.head_sha)
    content = b"" if isinstance(found, list) else found.decoded_content
    if artifacts.stated_hash(content) != artifacts.data_hash():
        raise CheckFailed(f"The data of {run.head_branch} differs from the source; a person must merge it.")
