"""Make the release candidate: evaluate the model of the last commit again, and collect the files of the release.

The candidate is the folder `build/release/`: candidate.json, `bundle/`, MODEL_CARD.md, and `files/` with each file at
its path in the repository. The jobs of the workflow `Ship` pass this folder on as an artifact.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway import artifacts, atomic
from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES, SOURCES, Artifact, Verdict
from slipway.bundle import folder_hash, load_bundle
from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.dvc import embedded_remote
from slipway.integrations.git import Snapshot, snapshot
from slipway.provenance import Provenance
from slipway.release import registry, review_lookup, reviewed_bundle
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, all_releases, live, object_id, refuse_withdrawn
from slipway.release.image import provenance_at_head
from slipway.release.model_card import CARD, model_card
from slipway.release.review_lookup import Review
from slipway.review.reproduce import reproduce

FOLDER = Path("build/release")
FILE = FOLDER / "candidate.json"
BUNDLE = FOLDER / "bundle"
FILES = FOLDER / "files"


class Candidate(Artifact):
    """The provenance of the bundle to release, and the paths of the files that a release to production commits."""

    provenance: Provenance
    files: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The candidate, or None if there is nothing to release. `words` is a sentence for the log."""

    candidate: Candidate | None
    words: str


def read() -> Candidate:
    """Read the release candidate from `build/release/`. Raise InputError if the candidate is missing or damaged."""
    try:
        candidate = Candidate.model_validate_json(FILE.read_bytes())
    except (OSError, ValueError):
        raise InputError(f"{FILE} is missing or damaged; make it with `slipway candidate`.") from None
    if not BUNDLE.is_dir() or folder_hash(BUNDLE) != candidate.provenance.bundle:
        raise InputError(f"{BUNDLE} is not the bundle that {FILE} names; make both with `slipway candidate`.")
    return candidate


def make(params: Params, environ: Mapping[str, str], again: bool = False) -> Outcome:
    """Evaluate the model of the last commit against the current champion, and make it the candidate.

    The champion stays if the model is unchanged, or if its pull request was merged without releasing it. The candidate
    is then the champion with the current server, or None if the server has not changed either.

    Raises CheckFailed if the model to release is held, unless a maintainer overruled the gate. Raises CheckFailed if
    the model differs from the model in the report of its pull request. Also raises CheckFailed if the model was rolled
    back before, unless `again` is true.
    """
    if params.release.image is None:
        return Outcome(None, "nothing to release: release.image is not set in params.yaml")
    if artifacts.data_hash() in (None, artifacts.EMPTY):
        return Outcome(None, f"nothing to release: {artifacts.DATA_DVC} has no delivery yet")
    _refuse_uncommitted()
    shutil.rmtree(FOLDER, ignore_errors=True)
    head = snapshot()
    history = all_releases(head, PRODUCTION)
    # In a new fork, the last release in the git history is a release of the sample's model, which `init` has removed.
    since = history[0].commit if history and artifacts.Release.read(artifacts.RELEASE).champion else head.name
    reproduce(since)
    verdict, review = _reviewed(Verdict.read(artifacts.VERDICT), head, params, environ)
    same = review is None
    landed = review is not None and champion_stays(verdict, review, params, head)
    stays = same or landed
    bundle = (verdict.champion_bundle if stays else None) or verdict.challenger_bundle

    def same_server(deployed: Deployed) -> bool:
        return _same_sources(deployed.provenance.commit or "none", head)

    now = live(head, PRODUCTION)
    runs = now is not None and now.provenance.bundle == bundle and same_server(now)
    if landed and (runs or verdict.champion_bundle is None):
        return Outcome(None, f"nothing to release: {_why_held(verdict)}")
    if same and runs:
        return Outcome(None, f"nothing to release: {PRODUCTION} runs this model and this server already")
    if not again:
        refuse_withdrawn(history, bundle, same_server)
    if review and not landed:
        words, reason = clear(verdict, review), verdict.reason
    else:  # for the champion, take the verdict of its own release
        released = artifacts.Release.read(artifacts.RELEASE)
        words, reason = released.verdict or "first", released.reason or verdict.reason
    if registry.is_configured(environ):
        registry.record(params)
    if not stays:
        _crown(verdict)
    data = artifacts.data_hash() if not stays or bundle == verdict.challenger_bundle else None
    provenance = provenance_at_head(bundle, data, SOURCES).model_copy(update={"verdict": words, "reason": reason})
    # If the model is held, the results of the pipeline are not committed, because they belong to the held model.
    files = _changed_files(head, CHAMPION_FILES if landed else (*CHAMPION_FILES, *PIPELINE_FILES))
    candidate = Candidate(provenance=provenance, files=files)
    _write(candidate)
    return Outcome(candidate, f"{bundle} ({words}: {reason})")


def image_name(candidate: Candidate, params: Params) -> tuple[str, str]:
    """Return the name and the tag of the candidate's image. Raise InputError if params.yaml names no image."""
    if params.release.image is None:
        raise InputError("release.image is not set in params.yaml, so the image has no name; set it, or use --image.")
    return params.release.image, f"sha-{candidate.provenance.commit:.12}"


def image_provenance(candidate: Candidate) -> Provenance:
    """Return the provenance for the candidate's image.

    Raise CheckFailed if the candidate was not made from the last commit.
    """
    wanted = candidate.provenance
    found = provenance_at_head(wanted.bundle, wanted.data, SOURCES)
    if found.commit != wanted.commit:
        raise CheckFailed(
            f"The last commit is {found.commit}, but the candidate is from {wanted.commit}; check out that commit."
        )
    return wanted


def clear(verdict: Verdict, review: Review) -> str:
    """Return the verdict to record for a release of the model. Raise CheckFailed if the model must not ship.

    If a maintainer overruled the verdict `hold`, the result contains the maintainer's name.
    """
    if review.bundle and review.bundle != verdict.challenger_bundle:
        raise CheckFailed(
            f"The pipeline gives bundle {verdict.challenger_bundle} here, and {review.where} showed {review.bundle}; "
            "nothing is released: run the workflow of the pull request again, and merge the model that it then shows."
        )
    if verdict.may_ship:
        return verdict.verdict
    if review.overruled_by:
        return f"hold, overruled by {review.overruled_by}"
    raise CheckFailed(
        f"The model is held ({verdict.reason}); nothing is released. If {review.where} showed another verdict, the "
        "champion has changed since: merge a model that beats it."
    )


def _reviewed(
    verdict: Verdict, head: Snapshot, params: Params, environ: Mapping[str, str]
) -> tuple[Verdict, Review | None]:
    """Return the verdict on the reviewed bundle, and the review. The review is None if the model is unchanged."""
    if verdict.verdict == "unchanged":
        return verdict, None
    review = review_lookup.find(head, environ)
    if review.bundle and review.bundle != verdict.challenger_bundle:
        verdict = reviewed_bundle.restore(review, verdict.challenger_bundle, params, environ)
    return verdict, review


def champion_stays(verdict: Verdict, review: Review, params: Params, head: Snapshot) -> bool:
    """Return True if the last change was merged without releasing its model, because the model is held.

    A held model does not block the merge of a delivery, or of a change to files that the pipeline does not read. The
    held model is not released later either, not even after a rollback, because no report has compared it with the
    restored champion.
    """
    if review.overruled_by or review.bundle not in (None, verdict.challenger_bundle):
        return False
    if review.champion_stays:
        return True
    return verdict.verdict == "hold" and params.ingest.when_held == "land" and review_lookup.is_delivery(head)


def _why_held(verdict: Verdict) -> str:
    why = verdict.reason if verdict.verdict == "hold" else "as its report shows"
    stays = "the champion stays" if verdict.champion_bundle else "no model is live yet"
    return f"the model of the last change is held ({why}), so {stays}"


def _refuse_uncommitted() -> None:
    changed = process.run("git", "status", "--porcelain", "--untracked-files=no").splitlines()
    paths = [line.split(maxsplit=1)[1] for line in changed]
    if others := [path for path in paths if path not in (*CHAMPION_FILES, *PIPELINE_FILES)]:
        raise CheckFailed(f"{others[0]} differs from the last commit, which would be released; commit it first.")
    if champion := [path for path in paths if path in CHAMPION_FILES]:
        process.run("git", "checkout", "--quiet", "HEAD", "--", *champion)  # changed by an earlier call


def _crown(verdict: Verdict) -> None:
    """Make the challenger the champion, and run the pipeline again. This run must give the verdict `unchanged`."""
    if folder_hash(artifacts.BUNDLE) != verdict.challenger_bundle:
        raise CheckFailed(f"{artifacts.BUNDLE} changed after it was judged; run `slipway candidate` again.")
    with atomic.replacing(artifacts.CHAMPION) as fresh:
        shutil.copytree(artifacts.BUNDLE, fresh)
    before = artifacts.Release.read(artifacts.RELEASE)
    artifacts.Release.of_challenger(verdict, before).write(artifacts.RELEASE)
    process.run("dvc", "add", str(artifacts.CHAMPION))
    process.run("dvc", "repro")
    settled = Verdict.read(artifacts.VERDICT)
    if settled.verdict != "unchanged" or settled.champion_bundle != verdict.challenger_bundle:
        raise CheckFailed(
            f"Nothing was released, because the next verdict of the pipeline would be `{settled.verdict}` instead of "
            "`unchanged`; run `dvc repro` twice and compare dvc.lock."
        )
    process.run("dvc", "push")


def _same_sources(commit: str, head: Snapshot) -> bool:
    """Return True if the image of `commit` and the image of `head` are built from the same server files."""
    try:
        other = snapshot(commit)
    except InputError:
        return False
    return all(object_id(other, path) == object_id(head, path) for path in SOURCES)


def _changed_files(head: Snapshot, paths: tuple[str, ...]) -> tuple[str, ...]:
    """List the files to commit: the changed files among `paths`, and new files of a DVC remote in git."""
    changed = [path for path in paths if head.read(path) != Path(path).read_bytes()]
    if remote := embedded_remote():
        status = process.run("git", "status", "--porcelain", "--untracked-files=all", "-z", "--", str(remote))
        changed += [entry[3:] for entry in status.split("\0") if entry.startswith("??")]
    return tuple(changed)


def _write(candidate: Candidate) -> None:
    with atomic.replacing(FOLDER) as fresh:
        shutil.copytree(artifacts.CHAMPION, fresh / BUNDLE.name)
        for path in candidate.files:
            copy = fresh / FILES.name / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        card = model_card(load_bundle(artifacts.CHAMPION), candidate.provenance)  # only this job has the scores
        (fresh / CARD).write_text(card, encoding="utf-8")
        candidate.write(fresh / FILE.name)
