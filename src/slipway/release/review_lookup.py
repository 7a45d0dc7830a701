"""Find the pull request that last changed the model, and read its report."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway import artifacts
from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES
from slipway.errors import CheckFailed
from slipway.integrations import actions, github, github_comments
from slipway.integrations.dvc import embedded_remote, is_in
from slipway.integrations.git import Snapshot
from slipway.review.changes import STAGES, classify, pipeline_paths
from slipway.review.event import override_on

MAX_COMMITS = 1_000
"""Maximum number of commits to search for the last change of the model."""


@dataclass(frozen=True)
class Review:
    """The result of the review of a pull request: the bundle in its report, and a maintainer who overruled the gate.

    `bundle` and `overruled_by` are None outside of a workflow. `head` is the reviewed commit, which is the last commit
    of the pull request. `champion_stays` is True if the report showed a held model that does not block the merge.
    """

    where: str
    bundle: str | None
    overruled_by: str | None
    head: str = ""
    champion_stays: bool = False


def find(head: Snapshot, environ: Mapping[str, str]) -> Review:
    """Find the pull request that last changed the model, and read its report from GitHub.

    Outside of a workflow, GitHub is not queried. Raises CheckFailed if the change was pushed without a pull request, or
    if the last commit of the pull request has no report.
    """
    if not actions.in_actions(environ):
        return Review("its pull request", None, None)
    commit = last_change(head)
    try:
        repository = github.connect(environ)
        pulls = [each for each in repository.get_commit(commit).get_pulls() if each.merged_at]
        if not pulls:
            raise CheckFailed(
                f"{commit[:12]} came to main by no pull request, so its model was not reviewed and is not released; "
                "revert the commit, and open a pull request."
            )
        pull = pulls[0]
        shown = github_comments.shown_on(pull, github.login(repository))
        overruled = override_on(shown, pull.number, environ) if shown else None
    except github.ERRORS as error:
        raise CheckFailed(
            f"The report cannot be read from GitHub ({github.reason(error)}); run `slipway candidate` again."
        ) from None
    where = f"pull request {pull.number}"
    if shown is None:
        raise CheckFailed(
            f"{where.capitalize()} has no report on its last commit, {pull.head.sha[:12]}, so its model was not "
            "reviewed and is not released; run the workflow `Comment` for the last run of `Pull request` "
            "(`gh workflow run comment.yml -f run=NUMBER`), and then this workflow again."
        )
    by = overruled.by if overruled else None
    return Review(where, shown.bundle, by, pull.head.sha, shown.champion_stays)


def last_change(head: Snapshot) -> str:
    """Return the newest commit up to `head` that possibly changed the model and is not a release."""
    return _last_change(head, embedded_remote())[0]


def is_delivery(head: Snapshot) -> bool:
    """Return True if the last commit that possibly changed the model changed only data."""
    remote = embedded_remote()
    return all(path == str(artifacts.DATA_DVC) or is_in(remote, path) for path in _last_change(head, remote)[1])


def _last_change(head: Snapshot, remote: Path | None) -> tuple[str, tuple[str, ...]]:
    """Return the newest commit that possibly changed the model and is not a release, with the files that it changed."""
    pipeline = pipeline_paths(STAGES)
    by_releases = (*CHAMPION_FILES, *PIPELINE_FILES)
    for commit, paths in _first_parents(head):
        others = [path for path in paths if path not in by_releases and not is_in(remote, path)]
        if "model" in classify(others, pipeline):
            return commit, paths
    raise CheckFailed("No commit of this clone has changed the model; fetch all commits with `git fetch --unshallow`.")


def _first_parents(head: Snapshot) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each commit along the first parents, newest first, with the files that the commit changed."""
    commit = head.commit
    for _ in range(MAX_COMMITS):
        before = commit.parents[0].tree if commit.parents else None
        diff = before.diff_to_tree(commit.tree) if before else commit.tree.diff_to_tree(swap=True)
        yield str(commit.id), tuple({path for each in diff.deltas for path in (each.old_file.path, each.new_file.path)})
        if not commit.parents:
            return
        commit = commit.parents[0]
