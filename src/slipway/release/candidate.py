"""The release candidate: the model of the last commit, judged again, and all that a release of it will commit.

`build/release/` holds candidate.json, `bundle/` and `files/`, which has each file at its path. Jobs hand it on.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from slipway import artifacts, atomic
from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES, Artifact, Verdict
from slipway.bundle import folder_hash
from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.integrations.git import Snapshot, snapshot
from slipway.release import registry, review_lookup
from slipway.release.history import PRODUCTION, Release, live, releases, withdrawn_by
from slipway.release.image import SOURCES, lineage_at_head
from slipway.release.overlay import Image
from slipway.release.review_lookup import Review
from slipway.review.reproduce import embedded_remote, judge
from slipway.serving.provenance import Lineage

FOLDER = Path("build/release")
FILE = FOLDER / "candidate.json"
BUNDLE = FOLDER / "bundle"
FILES = FOLDER / "files"


class Candidate(Artifact):
    """What would be released. `data`: the hash of the data behind the bundle, where the last run says so."""

    commit: str
    bundle: str
    data: str | None
    verdict: str
    reason: str
    files: tuple[str, ...]

    def tags(self, image: Image) -> dict[str, str]:
        """What the registry is told of its release in this image."""
        return {
            registry.BUNDLE_TAG: self.bundle,
            "slipway.data": self.data or "none",
            "slipway.git_commit": self.commit,
            "slipway.verdict": self.verdict,
            "slipway.reason": self.reason,
            "slipway.image": f"{image.name}:{image.tag}",
            registry.DIGEST_TAG: image.digest or "none",
        }


@dataclass(frozen=True)
class Outcome:
    """The candidate, or None where there is nothing to release; `words` say it."""

    candidate: Candidate | None
    words: str


def read() -> Candidate:
    """The candidate that was made last; raises InputError where there is none, or where it is not whole."""
    try:
        candidate = Candidate.model_validate_json(FILE.read_bytes())
    except (OSError, ValueError):
        raise InputError(f"{FILE} is missing or damaged; make it with `slipway candidate`.") from None
    if not BUNDLE.is_dir() or folder_hash(BUNDLE) != candidate.bundle:
        raise InputError(f"{BUNDLE} is not the bundle that {FILE} names; make both with `slipway candidate`.")
    return candidate


def make(params: Params, environ: Mapping[str, str], again: bool = False) -> Outcome:
    """Judge the model of the last commit against the champion of this moment, and make it the candidate.

    Raises CheckFailed where the model is held, is not what the pull request showed, or was rolled back before (`again`
    overrules only this).
    """
    if params.release.image is None:
        return Outcome(None, "nothing to release: params.yaml does not say where images are pushed (release.image)")
    if artifacts.data_hash() in (None, artifacts.EMPTY):
        return Outcome(None, f"nothing to release: {artifacts.DATA_DVC} has no delivery yet")
    _refuse_uncommitted()
    shutil.rmtree(FOLDER, ignore_errors=True)
    head = snapshot()
    history = list(releases(head, PRODUCTION))
    # Before the first release of a project stands its adoption, which has taken the sample's champion away.
    since = history[0].commit if history and artifacts.Release.read(artifacts.RELEASE).champion else head.name
    judge(since)
    verdict = Verdict.read(artifacts.VERDICT)
    same = verdict.verdict == "unchanged"
    bundle = (verdict.champion_bundle if same else None) or verdict.challenger_bundle

    def same_image(commit: str) -> bool:
        return _same_sources(commit, head)

    now = live(head, PRODUCTION)
    if same and now and now.origin.bundle == bundle and same_image(now.origin.commit or ""):
        return Outcome(None, f"nothing to release: {PRODUCTION} runs this model and this server already")
    if not again:
        _refuse_withdrawn(history, bundle, same_image)
    # A model that is the champion already was judged when it became that.
    released = artifacts.Release.read(artifacts.RELEASE)
    words, reason = (released.verdict or "first", released.reason or verdict.reason) if same else ("", verdict.reason)
    if not same:
        review = review_lookup.find(head, environ)
        words = clear(verdict, review)
    if registry.is_configured(environ):
        registry.record(params)
    if not same:
        _crown(verdict)
    candidate = Candidate(
        commit=head.name,
        bundle=bundle,
        data=artifacts.data_hash() if not same or bundle == verdict.challenger_bundle else None,
        verdict=words,
        reason=reason,
        files=_changed_files(head),
    )
    _write(candidate)
    return Outcome(candidate, f"{bundle} ({words}: {reason})")


def _refuse_uncommitted() -> None:
    changed = process.run("git", "status", "--porcelain", "--untracked-files=no").splitlines()
    paths = [line.split(maxsplit=1)[1] for line in changed]
    if others := [path for path in paths if path not in (*CHAMPION_FILES, *PIPELINE_FILES)]:
        raise CheckFailed(
            f"{others[0]} is not as in the last commit, which is what would be released; commit it first."
        )
    if taken := [path for path in paths if path in CHAMPION_FILES]:
        process.run("git", "checkout", "--quiet", "HEAD", "--", *taken)  # of a candidate that was made before


def _refuse_withdrawn(history: list[Release], bundle: str, same_image: Callable[[str], bool]) -> None:
    if by := withdrawn_by(history, bundle, same_image):
        raise CheckFailed(
            f"Bundle {bundle} was rolled back by {by.commit[:12]}; merge what makes another, or release it all the "
            "same with `slipway candidate --again`, which the workflow Ship has as an input."
        )


def clear(verdict: Verdict, review: Review) -> str:
    """The word by which the verdict lets the model go out; raises CheckFailed where it does not."""
    if review.bundle and review.bundle != verdict.challenger_bundle:
        raise CheckFailed(
            f"The pipeline gives bundle {verdict.challenger_bundle} here, and {review.where} showed {review.bundle}; "
            "nothing is released: run its workflow again, and merge what that shows."
        )
    if verdict.may_ship:
        return verdict.verdict
    if review.overruled_by:
        return f"hold, overruled by {review.overruled_by}"
    raise CheckFailed(
        f"The model is held ({verdict.reason}); nothing is released. If {review.where} showed another verdict, the "
        "champion has moved since: merge what beats it."
    )


def _crown(verdict: Verdict) -> None:
    """Make the challenger the champion here, and have the pipeline compare it with itself."""
    if folder_hash(artifacts.BUNDLE) != verdict.challenger_bundle:
        raise CheckFailed(f"{artifacts.BUNDLE} changed after the verdict was given; run this again.")
    with atomic.replacing(artifacts.CHAMPION) as fresh:
        shutil.copytree(artifacts.BUNDLE, fresh)
    artifacts.Release(
        champion=verdict.challenger_bundle,
        loss=verdict.loss,
        value=verdict.challenger_loss,
        verdict=verdict.verdict,
        reason=verdict.reason,
        holdout=verdict.holdout,
    ).write(artifacts.RELEASE)
    process.run("dvc", "add", "--quiet", str(artifacts.CHAMPION))
    process.run("dvc", "repro", "--quiet")
    settled = Verdict.read(artifacts.VERDICT)
    if settled.verdict != "unchanged" or settled.champion_bundle != verdict.challenger_bundle:
        raise CheckFailed(
            f"After the release the pipeline would say {settled.verdict}, not unchanged; nothing is released."
        )
    process.run("dvc", "push", "--quiet")


def lineage(candidate: Candidate) -> Lineage:
    """Return the provenance for an image; raise CheckFailed if the last commit is a different one."""
    found = lineage_at_head(candidate.bundle, candidate.data, SOURCES)
    if found.commit != candidate.commit:
        raise CheckFailed(f"The candidate is of {candidate.commit} and this is {found.commit}; check that out.")
    return found


def _same_sources(commit: str, head: Snapshot) -> bool:
    """Whether an image made of another commit has the same server."""
    try:
        other = snapshot(commit or "none")
    except InputError:
        return False
    return all(_identity(other, path) == _identity(head, path) for path in SOURCES)


def _identity(at: Snapshot, path: str) -> object:
    try:
        return at.commit.tree[path].id
    except KeyError:
        return None


def _changed_files(head: Snapshot) -> tuple[str, ...]:
    """The files that the release commits: what says which model is live, and what an embedded remote has got."""
    changed = [path for path in (*CHAMPION_FILES, *PIPELINE_FILES) if head.read(path) != Path(path).read_bytes()]
    if remote := embedded_remote():
        told = process.run("git", "status", "--porcelain", "--untracked-files=all", "-z", "--", str(remote))
        changed += [entry[3:] for entry in told.split("\0") if entry.startswith("??")]
    return tuple(changed)


def _write(candidate: Candidate) -> None:
    with atomic.replacing(FOLDER) as fresh:
        shutil.copytree(artifacts.CHAMPION, fresh / BUNDLE.name)
        for path in candidate.files:
            copy = fresh / FILES.name / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        candidate.write(fresh / FILE.name)
