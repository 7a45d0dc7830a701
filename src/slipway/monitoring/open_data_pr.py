"""A pull request for each delivery that arrives: on main, with the deliveries whose pull requests are still open."""

from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path

from github.Repository import Repository

from slipway import artifacts
from slipway.config import Params
from slipway.contract import Model
from slipway.errors import CheckFailed, InputError
from slipway.integrations import github, process
from slipway.integrations.dvc import embedded_remote
from slipway.integrations.git import MAIN, Snapshot, branches, create_branch, snapshot, tip
from slipway.monitoring.ingest import Arrival, Arrivals, ingest
from slipway.monitoring.source import nothing_to_watch

PREFIX = "delivery/"
"""How the branches begin; the newest delivery that one brings follows."""


def propose(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> list[str]:
    """Take in the oldest delivery that nobody has proposed, and open its pull request; returns what was done.

    Reads main, the source and the DVC remote. Raises the reason why nothing was taken in, where there is one.
    """
    if nothing := nothing_to_watch(params, environ):
        return [nothing]
    _refuse_another_base(environ)
    done = _open_missing(environ)
    known = {branch.removeprefix(PREFIX) for branch in branches(f"{PREFIX}*", environ)}
    try:
        return [*done, *_take_in(known, done, params, model, today, environ)]
    finally:  # it is on its branch; here main stays what it is
        process.run("git", "checkout", "--quiet", "HEAD", "--", str(artifacts.DATA_DVC))
        process.run("dvc", "checkout", "--force", str(artifacts.DATA_DVC))


def _take_in(
    known: Collection[str],
    done: Collection[str],
    params: Params,
    model: Model,
    today: date,
    environ: Mapping[str, str],
) -> list[str]:
    process.run("dvc", "pull", str(artifacts.DATA_DVC))
    arrivals = ingest(params, model, today, known=known)
    left = [f"left: {error}" for error in arrivals.refused]
    fresh = [arrival for arrival in arrivals.taken if arrival.name not in known]
    if not fresh:
        if arrivals.refused and not done:
            raise arrivals.refused[0]
        return left or ["the source has no new delivery"]
    process.run("dvc", "push", str(artifacts.DATA_DVC))
    branch = f"{PREFIX}{fresh[-1].name}"
    if not create_branch(branch, _brought, _message(arrivals, params), environ):
        return [*left, f"{branch} was proposed by another run just now"]
    return [*left, _open(branch, environ)]


def _refuse_another_base(environ: Mapping[str, str]) -> None:
    main, here = tip(environ), snapshot()
    path = str(artifacts.DATA_DVC)
    lies = Path(path).read_bytes() if Path(path).is_file() else None
    if not main.read(path) == here.read(path) == lies:
        raise CheckFailed(f"{path} is not that of {MAIN} at origin, on which a delivery is proposed; check {MAIN} out.")


def _brought(now: Snapshot) -> dict[str, bytes]:
    """The files of the commit: data.dvc, and what the remote has got, where it lies in this repository."""
    paths = [str(artifacts.DATA_DVC)]
    if remote := embedded_remote():
        told = process.run("git", "ls-files", "--others", "-z", "--", str(remote))
        paths += [path for path in told.split("\0") if path]
    return {path: Path(path).read_bytes() for path in paths if now.read(path) is None or path == paths[0]}


def _message(arrivals: Arrivals, params: Params) -> str:
    """The subject of the commit is the title of the pull request, the rest its body."""
    newest, *others = arrivals.taken[::-1]
    lines = [f"Take in {newest.name}: {newest.counts.accepted:,} {params.task.row_noun}", "", *_told(newest)]
    if others:
        lines += ["", "With it, as their own pull requests are not merged:", ""]
        lines += [f"- {each.name}: {each.counts.accepted:,} {params.task.row_noun}" for each in others[::-1]]
    if arrivals.refused:
        lines += ["", "Left in the source:", "", *(f"- {error}" for error in arrivals.refused)]
    if params.ingest.auto_merge:
        lines += ["", "It merges itself, and ships, if the new model may; held, it waits for a person."]
    return "\n".join(lines) + "\n"


def _told(arrival: Arrival) -> list[str]:
    counts = arrival.counts
    lines = [f"{counts.rows:,} rows were delivered, {counts.quarantined:,} of them quarantined."]
    if counts.reasons:
        lines += ["", *(f"- {rows:,}: {reason}" for reason, rows in counts.reasons.items())]
    return lines


def _open_missing(environ: Mapping[str, str]) -> list[str]:
    """Open the pull requests of branches that have none, as a run was killed between the two."""
    if not environ.get("GITHUB_TOKEN"):
        return []
    repository = github.connect(environ)
    try:
        without = [each for each in branches(f"{PREFIX}*", environ) if not _pulls(repository, each)]
    except github.ERRORS as error:
        raise InputError(f"GitHub does not list pull requests ({github.reason(error)}); run this again.") from None
    return [_open(branch, environ) for branch in without]


def _pulls(repository: Repository, branch: str) -> bool:
    owner = str(repository.full_name).partition("/")[0]
    return repository.get_pulls(state="all", head=f"{owner}:{branch}").totalCount > 0


def _open(branch: str, environ: Mapping[str, str]) -> str:
    """Open the pull request of a branch. Without a token, return the command for it."""
    if not environ.get("GITHUB_TOKEN"):
        return f"{branch} is at origin; open its pull request with `gh pr create --head {branch} --fill`"
    title, _, body = tip(environ, branch).commit.message.partition("\n")
    repository = github.connect(environ)
    try:
        pull = repository.create_pull(base=MAIN, head=branch, title=title, body=body.strip())
    except github.ERRORS as error:
        raise InputError(
            f"The pull request of {branch} cannot be opened ({github.reason(error)}); run this again."
        ) from None
    return f"{title}: {pull.html_url}"
