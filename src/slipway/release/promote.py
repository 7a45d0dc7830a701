"""Release and roll back models, by commits on `main` that change the image of an environment."""

from collections.abc import Mapping

from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES
from slipway.config import Params
from slipway.errors import CheckFailed
from slipway.integrations.actions import in_actions, run_url
from slipway.integrations.git import Snapshot, commit_to_main, snapshot, tip
from slipway.provenance import Provenance
from slipway.release import candidate as candidates
from slipway.release import registry
from slipway.release.candidate import FILES, Candidate
from slipway.release.component import Deployed, Image, render
from slipway.release.history import (
    PRODUCTION,
    Release,
    all_releases,
    live,
    previous,
    refuse_withdrawn,
    release_file,
    require_component,
)


def promote(
    environment: str,
    image: Image,
    params: Params,
    environ: Mapping[str, str],
    batch: Image | None = None,
    again: bool = False,
) -> str | None:
    """Release the candidate to an environment as `image`. Return the commit, or None if the image is already live.

    `batch` is the image that scores files with the candidate. A release to production also makes the candidate the
    champion. Raises CheckFailed if the champion has changed since the candidate was evaluated, if production was rolled
    back from this bundle or image and `again` is false, or if the commit cannot be pushed.
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
        if environment == PRODUCTION and not again:
            history = all_releases(now, environment)
            refuse_withdrawn(history, provenance.bundle, lambda deployed: deployed.image == image)
        files = {release_file(environment): render(Deployed(image, provenance, version, batch))}
        return files | (_candidate_files(now, made_of, candidate) if environment == PRODUCTION else {})

    return commit_to_main(edit, _message(f"Release {image.tag} to {environment}", provenance), environ)


def roll_back(
    environment: str, to: str | None, environ: Mapping[str, str], digest: str | None = None
) -> tuple[str | None, Release]:
    """Restore the release that was live at the commit `to`.

    If `to` is None, restore the newest release of another image that was not rolled back itself. Returns the commit of
    the rollback, and the release that is live now. The commit is None if the release to restore is already live. The
    commit is also None if an earlier attempt of the same workflow run has rolled back, or if the live image does not
    have the given `digest`. Raises CheckFailed if the clone is shallow, or if there is no earlier release. If `to` is
    None, a release that is made at the same time also raises CheckFailed.
    """

    def is_another(deployed: Deployed | None) -> bool:
        return digest is not None and (deployed is None or deployed.image.digest != digest)

    history = all_releases(tip(environ), environment)
    # A second attempt of a workflow run must not roll back one more release. A digest already prevents that.
    run = f"Workflow run: {run_url(environ)}\n" if digest is None and in_actions(environ) else ""
    is_done = bool(run) and any(snapshot(each.commit).commit.message.endswith(f"\n{run}") for each in history)
    if history and (is_done or is_another(history[0].deployed)):
        return None, history[0]
    number = _target(history, environment, to)
    target, current = history[number], history[0]
    if number == 0:
        return None, target
    file = release_file(environment)
    component = snapshot(target.commit).read(file) or b""
    # The last commit before the next release has the champion files of the release to restore.
    before, since = snapshot(history[number - 1].before or ""), snapshot(current.commit)

    def edit(now: Snapshot) -> Mapping[str, bytes]:
        deployed = live(now, environment)
        if deployed == target.deployed or is_another(deployed):
            return {}
        if to is None and deployed and deployed != current.deployed:
            raise CheckFailed(
                f"{deployed.image.tag} was released to {environment} meanwhile, so nothing was rolled back; run this "
                "again if that release has to be rolled back too."
            )
        # A file of the pipeline is not restored if a merge has changed it since the last release.
        pipeline = [path for path in PIPELINE_FILES if now.read(path) == since.read(path)]
        restored = (*CHAMPION_FILES, *pipeline) if environment == PRODUCTION else ()
        files = {path: content for path in restored if (content := before.read(path)) is not None}
        return {file: component, **files}

    subject = f"Roll {environment} back to {target.deployed.image.tag}"
    return commit_to_main(edit, _message(subject, target.deployed.provenance) + run, environ), target


def _runs(now: Snapshot, environment: str, image: Image, batch: Image | None) -> bool:
    deployed = live(now, environment)
    return deployed is not None and deployed.image == image and batch in (None, deployed.batch)


def _candidate_files(now: Snapshot, made_of: Snapshot, candidate: Candidate) -> dict[str, bytes]:
    """Return the candidate's files, except pipeline files that a merge has changed since the candidate was made.

    Raises CheckFailed if the champion has changed since then. This also applies to a candidate without champion files,
    which is the champion with a new server.
    """
    files: dict[str, bytes] = {}
    for path in dict.fromkeys((*CHAMPION_FILES, *candidate.files)):
        before, there = made_of.read(path), now.read(path)
        content = (FILES / path).read_bytes() if path in candidate.files else None
        if there == before or (content is not None and there == content):
            if content is not None:
                files[path] = content
        elif path in CHAMPION_FILES:
            raise CheckFailed(
                f"{path} has changed since the candidate was judged, because another model was released or "
                "restored; run the workflow `Ship` again to compare with that model."
            )
    return files


def _target(history: list[Release], environment: str, to: str | None) -> int:
    """Return the index of the release to restore. The newest release has index 0."""
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
