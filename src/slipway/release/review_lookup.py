"""What the pull request showed that brought the last change of the model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES
from slipway.errors import CheckFailed
from slipway.integrations import actions, github, github_comments
from slipway.integrations.dvc import embedded_remote
from slipway.integrations.git import Snapshot
from slipway.release.history import OVERLAYS
from slipway.review.changes import STAGES, classify, pipeline_paths
from slipway.review.event import current_override

MOST_COMMITS = 1_000
"""How far back the change is looked for."""


@dataclass(frozen=True)
class Review:
    """`bundle`: None where nobody was asked, as this is no workflow."""

    where: str
    bundle: str | None
    overruled_by: str | None


def find(head: Snapshot, environ: Mapping[str, str]) -> Review:
    """Ask GitHub for the pull request by which the model changed last, and read the report below it.

    Outside of a workflow nobody is asked: a person has the report at hand. Raises CheckFailed where no pull request
    brought the change, or where its report is not of the commit that was merged.
    """
    if not actions.in_actions(environ):
        return Review("its pull request", None, None)
    commit = last_change(head)
    try:
        repository = github.connect(environ)
        pulls = [each for each in repository.get_commit(commit).get_pulls() if each.merged_at]
        if not pulls:
            raise CheckFailed(
                f"{commit[:12]} came to main by no pull request, so nobody has seen what its model does; nothing is "
                "released. Revert it, and open one."
            )
        pull = pulls[0]
        shown = _shown(list(pull.get_issue_comments()), github.login(repository), pull.head.sha)
        overruled = current_override(pull.number, environ)
    except github.ERRORS as error:
        raise CheckFailed(f"GitHub does not say what was reviewed ({github.reason(error)}); run this again.") from None
    where = f"pull request {pull.number}"
    if shown is None:
        raise CheckFailed(
            f"{where.capitalize()} has no report on its last commit, {pull.head.sha[:12]}, so nobody has seen what its "
            "model does; nothing is released. Start Comment for its last run of Pull request "
            "(`gh workflow run comment.yml -f run=NUMBER`), and then run this again."
        )
    return Review(where, shown, overruled.by if overruled else None)


def last_change(head: Snapshot) -> str:
    """The newest commit of main by which the model can have changed; releases are none."""
    pipeline = pipeline_paths(STAGES)
    written = tuple(f"{place}/" for place in filter(None, (OVERLAYS, embedded_remote())))
    by_releases = (*CHAMPION_FILES, *PIPELINE_FILES)
    for commit, paths in _first_parents(head):
        others = [path for path in paths if path not in by_releases and not path.startswith(written)]
        if "model" in classify(others, pipeline):
            return commit
    raise CheckFailed("No commit of this clone has changed the model; fetch all with `git fetch --unshallow`.")


def _first_parents(head: Snapshot) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Commits from the newest on, each with the files in which it differs from its first parent."""
    commit = head.commit
    for _ in range(MOST_COMMITS):
        before = commit.parents[0].tree if commit.parents else None
        diff = before.diff_to_tree(commit.tree) if before else commit.tree.diff_to_tree(swap=True)
        yield str(commit.id), tuple({path for each in diff.deltas for path in (each.old_file.path, each.new_file.path)})
        if not commit.parents:
            return
        commit = commit.parents[0]


def _shown(comments: list[Any], login: str | None, head: str) -> str | None:
    """The bundle that the report on a commit showed; None where there is no report on it."""
    told = dict(filter(None, map(github_comments.shown_bundle, github_comments.own_comments(comments, login))))
    return told.get(head)
