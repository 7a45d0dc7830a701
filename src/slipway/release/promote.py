"""Release and roll back models by commits on `main` that change what an environment runs."""

from collections.abc import Mapping

from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES
from slipway.config import Params
from slipway.errors import CheckFailed
from slipway.integrations.git import Snapshot, commit_to_main, snapshot, tip
from slipway.provenance import Provenance
from slipway.release import candidate as candidates
from slipway.release import registry
from slipway.release.candidate import FILES, Candidate
from slipway.release.component import Deployed, Image, render
from slipway.release.history import (
    PRODUCTION,
    Release,
    live,
    previous,
    release_file,
    releases,
    require_component,
)


def promote(
    environment: str, image: Image, params: Params, environ: Mapping[str, str], batch: Image | None = None
) -> str | None:
    """Release the candidate to an environment as `image`. Return the commit, or None if the image is already live.

    `batch` is the image that scores files with the candidate. A release to production also makes the candidate the
    champion. Raises CheckFailed if the champion has changed since the candidate was evaluated, or if the commit cannot
    be pushed.
    """
    if _runs(tip(environ), environment, image, batch):
        return None
    candidate = candidates.read()
    provenance = candidate.provenance
    made_of = snapshot(str(provenance.commit))
    version = registry.version_of(params, provenance.bundle) if registry.is_configured(environ) else None

    def edit(now: Snapshot) -> Mapping[str, bytes]:
        if _runs(now, environment, image, batch):
            return {}
        require_component(now, environment)
        files = {release_file(environment): render(Deployed(image, provenance, version, batch))}
        return files | (_candidate_files(now, made_of, candidate) if environment == PRODUCTION else {})

    return commit_to_main(edit, _message(f"Release {image.tag} to {environment}", provenance), environ)


def roll_back(
    environment: str, to: str | None, environ: Mapping[str, str], only: str | None = None
) -> tuple[str | None, Release]:
    """Restore the release that was live at the commit `to`.

    By default, restore the newest earlier release that was not rolled back itself. With `only`, do nothing unless the
    live image has this digest. Returns the commit of the rollback and the live release. The commit is None if nothing
    was to be done. Raises CheckFailed if there is no earlier release. By default, also raises CheckFailed if another
    release is made meanwhile.
    """
    history = list(releases(tip(environ), environment))
    if only and history and history[0].deployed.image.digest != only:
        return None, history[0]
    number = _target(history, environment, to)
    target, current = history[number], history[0]
    if number == 0:
        return None, target
    file = release_file(environment)
    component = snapshot(target.commit).read(file) or b""
    # The champion files that belong to the target are in the commit before the release that followed the target.
    before, since = snapshot(history[number - 1].before or ""), snapshot(current.commit)

    def edit(now: Snapshot) -> Mapping[str, bytes]:
        found = live(now, environment)
        if found == target.deployed:
            return {}
        if to is None and found and found != current.deployed:
            raise CheckFailed(
                f"{found.image.tag} was released to {environment} meanwhile, so nothing was rolled back; run this "
                "again if that release has to be rolled back too."
            )
        # Files of the pipeline that a merge has changed since the last release are not restored.
        pipeline = [path for path in PIPELINE_FILES if now.read(path) == since.read(path)]
        restored = (*CHAMPION_FILES, *pipeline) if environment == PRODUCTION else ()
        files = {path: content for path in restored if (content := before.read(path)) is not None}
        return {file: component, **files}

    subject = f"Roll {environment} back to {target.deployed.image.tag}"
    return commit_to_main(edit, _message(subject, target.deployed.provenance), environ), target


def _runs(now: Snapshot, environment: str, image: Image, batch: Image | None) -> bool:
    deployed = live(now, environment)
    return deployed is not None and deployed.image == image and batch in (None, deployed.batch)


def _candidate_files(now: Snapshot, made_of: Snapshot, candidate: Candidate) -> dict[str, bytes]:
    """Return the candidate's files, except pipeline files that a merge has changed since the candidate was made."""
    files = {}
    for path in candidate.files:
        content, before, there = (FILES / path).read_bytes(), made_of.read(path), now.read(path)
        if there in (before, content):
            files[path] = content
        elif path in CHAMPION_FILES:
            raise CheckFailed(
                f"{path} has changed since the candidate was judged, because another model was released; run the "
                "workflow `Ship` again to compare with that model."
            )
    return files


def _target(history: list[Release], environment: str, to: str | None) -> int:
    """Return the index of the release to restore. The newest has index 0."""
    if not history:
        raise CheckFailed(f"Nothing has been released to {environment} yet, so there is nothing to roll back.")
    if to is None:
        number = previous(history)
        if number is None:
            raise CheckFailed(
                f"{environment} has no earlier release to roll back to; `slipway releases {environment}` lists all."
            )
        return number
    at = snapshot(to)
    for number, each in enumerate(history):
        if each.commit == at.name or at.repository.descendant_of(at.name, each.commit):
            return number
    raise CheckFailed(f"Nothing was live in {environment} at {to}; `slipway releases {environment}` lists what was.")


def _message(subject: str, provenance: Provenance) -> str:
    why = f"{provenance.verdict}: {provenance.reason}"
    return f"{subject}\n\n{why}\n\nBundle: {provenance.bundle}\nMade of: {provenance.commit}\n"
