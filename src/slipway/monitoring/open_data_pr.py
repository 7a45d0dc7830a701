"""Open a pull request for each delivery. The branch starts at `main` and includes earlier unmerged deliveries."""

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
from slipway.integrations.pull_requests import open_pull
from slipway.monitoring.ingest import IngestedDelivery, IngestResult, ingest, reason_for_no_ingest
from slipway.monitoring.open_source import open_source
from slipway.monitoring.taken_rows import TakenRows
from slipway.review.landing import PREFIX, branch_of
from slipway.review.markdown import escape


def propose(params: Params, model: Model, today: date, environ: Mapping[str, str]) -> list[str]:
    """Open a pull request for the oldest delivery that has no pull request yet. Return sentences about the result.

    Reads `main`, the source and the DVC remote. A delivery with an error is skipped. If there is no pull request to
    open, the error of the first skipped delivery is raised.
    """
    if nothing := reason_for_no_ingest(params, environ):
        return [nothing]
    _refuse_another_base(environ)
    done = _open_missing(environ)
    try:
        return [*done, *_ingest({*branches(f"{PREFIX}*", environ)}, done, params, model, today, environ)]
    finally:  # the delivery is now on its branch, so the workspace can return to main
        process.run("git", "checkout", "--quiet", "HEAD", "--", str(artifacts.DATA_DVC))
        process.run("dvc", "checkout", "--force", str(artifacts.DATA_DVC))


def _ingest(
    taken: Collection[str],
    done: Collection[str],
    params: Params,
    model: Model,
    today: date,
    environ: Mapping[str, str],
) -> list[str]:
    process.run("dvc", "pull", str(artifacts.DATA_DVC))
    merged = {branch_of(name) for name in TakenRows().deliveries}
    if params.ingest.query and (waiting := [*{*taken} - merged]):
        return [f"{min(waiting)} is not merged; new rows are taken when it is merged or deleted"]
    source = open_source(params, model, today, environ)
    known = {name for name in source.listing().deliveries if branch_of(name) in taken}
    result = ingest(params, model, today, source, known=known)
    skipped = [f"skipped: {error}" for error in result.skipped]
    skipped += [f"{file} is not taken, because {reason}" for file, reason in result.not_taken.items()]
    new = [delivery for delivery in result.ingested if delivery.name not in known]
    if not new:
        if result.skipped and not done:
            raise result.skipped[0]
        return [*skipped, "the source has no new delivery"] if not result.skipped else skipped
    process.run("dvc", "push", str(artifacts.DATA_DVC))
    branch = branch_of(new[-1].name)
    if not create_branch(branch, _files, _message(result, params), environ):
        return [*skipped, f"another run has just created {branch}"]
    return [*skipped, open_pull(branch, environ, as_markdown)]


def _refuse_another_base(environ: Mapping[str, str]) -> None:
    main, here = tip(environ), snapshot()
    path = str(artifacts.DATA_DVC)
    in_workspace = Path(path).read_bytes() if Path(path).is_file() else None
    if not main.read(path) == here.read(path) == in_workspace:
        raise CheckFailed(f"{path} differs from {MAIN} at origin, from which a delivery starts; check out {MAIN}.")


def _files(now: Snapshot) -> dict[str, bytes]:
    """Return the files to commit: data.dvc, and the new files of the DVC remote if it is inside this repository."""
    paths = [str(artifacts.DATA_DVC)]
    if remote := embedded_remote():
        untracked = process.run("git", "ls-files", "--others", "-z", "--", str(remote))
        paths += [path for path in untracked.split("\0") if path]
    return {path: Path(path).read_bytes() for path in paths if now.read(path) is None or path == paths[0]}


def _message(result: IngestResult, params: Params) -> str:
    """Return the message of the commit that adds deliveries.

    The subject becomes the title of the pull request, and all other lines become its body.
    """
    newest, *others = result.ingested[::-1]
    lines = [f"Ingest {newest.name}: {_size(newest, params)}", "", *_counts(newest)]
    if others:
        lines += ["", "Includes these deliveries, whose own pull requests are not merged:", ""]
        lines += [f"- {each.name}: {_size(each, params)}" for each in others[::-1]]
    if result.skipped:
        lines += ["", "Skipped:", "", *(f"- {error}" for error in result.skipped)]
    if params.ingest.auto_merge:
        held = {"wait": "a person decides", "land": "only its data is merged, and the champion stays"}
        otherwise = held[params.ingest.when_held]
        lines += ["", f"It is merged and released automatically if the gate passes. Otherwise {otherwise}."]
    return "\n".join(lines) + "\n"


def as_markdown(text: str) -> str:
    """Escape the lines of a commit message, in which the names of deliveries and columns are not trusted."""
    lines = ((line[:2], line[2:]) if line.startswith("- ") else ("", line) for line in text.split("\n"))
    return "\n".join(f"{mark}{escape(line)}" for mark, line in lines)


def _size(delivery: IngestedDelivery, params: Params) -> str:
    counts, noun = delivery.counts, params.task.row_noun
    return f"{counts.deleted:,} {noun} deleted" if counts.lists_keys else f"{counts.accepted:,} {noun}"


def _counts(delivery: IngestedDelivery) -> list[str]:
    counts = delivery.counts
    noun = "keys" if counts.lists_keys else "rows"
    lines = [f"{counts.rows:,} {noun} were delivered, {counts.quarantined:,} of them quarantined."]
    lines += [f"{note[0].upper()}{note[1:]}." for note in counts.notes]
    if counts.reasons:
        lines += ["", *(f"- {rows:,}: {reason}" for reason, rows in counts.reasons.items())]
    return lines


def _open_missing(environ: Mapping[str, str]) -> list[str]:
    """Open the missing pull requests for delivery branches.

    A pull request is missing if a run was killed after it had created the branch.
    """
    if not environ.get("GITHUB_TOKEN"):
        return []
    repository = github.connect(environ)
    try:
        without = [each for each in branches(f"{PREFIX}*", environ) if not _pulls(repository, each)]
    except github.ERRORS as error:
        raise InputError(f"GitHub does not list pull requests ({github.reason(error)}); run this again.") from None
    return [open_pull(branch, environ, as_markdown) for branch in without]


def _pulls(repository: Repository, branch: str) -> bool:
    owner = str(repository.full_name).partition("/")[0]
    return repository.get_pulls(state="all", head=f"{owner}:{branch}").totalCount > 0
