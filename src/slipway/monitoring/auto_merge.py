"""Merge a delivery's pull request if its checks passed and its data equals the data in the source."""

from collections.abc import Mapping
from datetime import date

from github.GithubObject import NotSet, Opt
from github.PullRequest import PullRequest
from github.Repository import Repository

from slipway import artifacts
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed
from slipway.integrations import github, github_comments, process
from slipway.integrations.actions import WorkflowRun
from slipway.integrations.git import MAIN
from slipway.integrations.github import CHECKS
from slipway.monitoring.ingest import ingest
from slipway.monitoring.open_source import open_source
from slipway.review.event import override_on
from slipway.review.landing import PREFIX, branch_of, other_file

SHIP = "ship.yml"
"""The workflow that releases the model after a merge."""
LANDED = (
    "The model of this delivery is held, so only its data is merged (ingest.when_held: land).\n"
    "The champion stays, and nothing is released. The next model is trained on these rows, too.\n"
)
"""The commit message for a delivery that is merged although its model is held."""


def merge(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> str:
    """Merge the pull request that a completed workflow run has checked, if it contains a delivery.

    No person has approved the pull request, so its content is not trusted. The pull request may change only data.dvc.
    This function ingests the same deliveries again, and the result must equal data.dvc in the pull request. A pull
    request with a held model is merged only if `ingest.when_held` is `land`, or if a maintainer added the label
    `ship-anyway`. Returns a sentence that describes the result. Raises CheckFailed if a person must merge the pull
    request, or if GitHub refuses to merge it.
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
            held = _is_held(repository, pull, environ)
            if held and params.ingest.when_held == "wait":
                return f"not merged: the model of {run.head_branch} is held, and ingest.when_held is wait"
            _check_data(repository, run, params, model, today, environ)
            _merge_once(pull, run, LANDED if held else NotSet)
    except github.ERRORS as error:
        raise CheckFailed(
            f"{run.head_branch} cannot be merged ({github.reason(error)}); if it is behind {MAIN}, update it with "
            "`gh pr update-branch`."
        ) from None
    if environ.get("SLIPWAY_DISPATCH") == "true":
        _start_ship(repository, pull)
    return f"pull request {pull.number} is merged: {pull.html_url}"


def _is_held(repository: Repository, pull: PullRequest, environ: Mapping[str, str]) -> bool:
    """Return whether only the data may be merged: the report shows a held model, and the gate is not overruled."""
    shown = github_comments.shown_on(pull, github.login(repository))
    return shown is not None and shown.champion_stays and override_on(shown, pull.number, environ) is None


def _merge_once(pull: PullRequest, run: WorkflowRun, message: Opt[str] = NotSet) -> None:
    """Merge a pull request. Ignore an error if the pull request was merged, because then only the response was lost."""
    title = f"{pull.title} (#{pull.number})"
    try:
        pull.merge(merge_method="squash", sha=run.head_sha, commit_title=title, commit_message=message)
    except github.ERRORS:
        pull.update()
        if not pull.merged_at or pull.head.sha != run.head_sha:
            raise


def _start_ship(repository: Repository, pull: PullRequest) -> None:
    """Start the workflow Ship. If a workflow's token made the merge, GitHub does not start Ship."""
    if problem := github.start_workflow(repository, SHIP):
        raise CheckFailed(f"Pull request {pull.number} is merged, but {problem}")


def _pull_request(repository: Repository, run: WorkflowRun) -> PullRequest:
    """Return the pull request of a run: the merged one with the run's head commit, or the open one of the branch."""
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
    if file := other_file(pull):
        raise CheckFailed(f"Pull request {pull.number} changes {file}; a person must merge it.")


def _check_data(
    repository: Repository, run: WorkflowRun, params: Params, model: Model, today: date, environ: Mapping[str, str]
) -> None:
    """Ingest all deliveries up to the delivery of the run's branch.

    Raise CheckFailed if the resulting data.dvc differs from data.dvc on the branch.
    """
    branch = str(run.head_branch)
    process.run("dvc", "pull", str(artifacts.DATA_DVC))
    source = open_source(params, model, today, environ, until=branch.removeprefix(PREFIX))
    names = source.listing().deliveries
    newest = next((name for name in names if branch_of(name) == branch), "")
    ingest(params, model, today, source, known=[name for name in names if name < newest])
    found = repository.get_contents(str(artifacts.DATA_DVC), ref=run.head_sha)
    content = b"" if isinstance(found, list) else found.decoded_content
    if artifacts.stated_hash(content) != artifacts.data_hash():
        raise CheckFailed(f"The data of {run.head_branch} differs from the source; a person must merge it.")
