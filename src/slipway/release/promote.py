"""Changing what is live, by a commit on `main`: to the candidate, or back to an earlier release."""

from collections.abc import Mapping

from slipway.artifacts import CHAMPION_FILES, PIPELINE_FILES
from slipway.config import Params
from slipway.errors import CheckFailed, InputError
from slipway.integrations.git import Snapshot, commit_to_main, snapshot, tip
from slipway.release import candidate as candidates
from slipway.release import registry
from slipway.release.candidate import FILES, Candidate
from slipway.release.history import PRODUCTION, Deployed, Release, images_file, live, origin_file, releases, went_back
from slipway.release.overlay import Image, Origin, set_image, set_origin


def promote(environment: str, image: Image, params: Params, environ: Mapping[str, str]) -> str | None:
    """Release the candidate, in this image, to an environment; returns the commit, or None if that is live there.

    For production the commit also has what says which model is live. Raises CheckFailed where production has another
    champion than the candidate was judged against, or where the commit cannot be pushed.
    """
    if _runs(tip(environ), environment, image):
        return None
    candidate = candidates.read()
    made_of = snapshot(candidate.commit)
    origin = Origin(
        bundle=candidate.bundle,
        data=candidate.data,
        commit=candidate.commit,
        version=registry.version_of(params, candidate.bundle) if registry.is_configured(environ) else None,
        verdict=f"{candidate.verdict}: {candidate.reason}",
    )

    def edit(now: Snapshot) -> Mapping[str, bytes]:
        if _runs(now, environment, image):
            return {}
        brought = _brought(now, made_of, candidate) if environment == PRODUCTION else {}
        return {**_overlay(now, environment, Deployed(image, origin)), **brought}

    return commit_to_main(edit, _message(f"Release {image.tag} to {environment}", origin), environ)


def roll_back(environment: str, to: str | None, environ: Mapping[str, str]) -> tuple[str | None, Release]:
    """Bring back an earlier release: the one that was live at the commit `to`, or the last that was not rolled back.

    Returns the commit (None if that release is live), and the release. Raises CheckFailed where there is no earlier
    one.
    """
    history = list(releases(tip(environ), environment))
    number = _wanted(history, environment, to)
    if number == 0:
        return None, history[0]
    target, current = history[number].live, history[0]
    # What main was before the release that came next: as the target left it, with the data that has come since.
    before = snapshot(history[number - 1].before or "")

    def edit(now: Snapshot) -> Mapping[str, bytes]:
        if live(now, environment) == target:
            return {}
        changed = _overlay(now, environment, target)
        # Where nobody has edited the overlay since, what it was before that release, to the byte.
        undone = _overlay(before, environment, current.live)
        changed |= {
            path: was
            for path in (images_file(environment), origin_file(environment))
            if (was := before.read(path)) is not None and undone.get(path, was) == now.read(path) != was
        }
        if environment == PRODUCTION:
            champion = {path: before.read(path) for path in CHAMPION_FILES}
            since = snapshot(current.commit)
            pipeline = {path: before.read(path) for path in PIPELINE_FILES if now.read(path) == since.read(path)}
            changed |= {path: content for path, content in (champion | pipeline).items() if content is not None}
        return changed

    subject = f"Roll {environment} back to {target.image.tag}"
    return commit_to_main(edit, _message(subject, target.origin), environ), history[number]


def _runs(now: Snapshot, environment: str, image: Image) -> bool:
    released = live(now, environment)
    return released is not None and released.image == image


def _overlay(now: Snapshot, environment: str, what: Deployed) -> dict[str, bytes]:
    """Both files of an overlay, as far as they differ."""
    images, origin = images_file(environment), origin_file(environment)
    found = {path: now.read(path) for path in (images, origin)}
    content = {path: text for path, text in found.items() if text is not None}
    if missing := [path for path in found if path not in content]:
        raise InputError(f"{missing[0]} is missing on main; restore it.")
    edited = {
        images: set_image(content[images], what.image, images),
        origin: set_origin(content[origin], what.origin, origin),
    }
    return {path: text for path, text in edited.items() if text != content[path]}


def _brought(now: Snapshot, made_of: Snapshot, candidate: Candidate) -> dict[str, bytes]:
    """The files that come with the candidate. What a change has brought meanwhile is left to the next release."""
    brought = {}
    for path in candidate.files:
        content, before, there = (FILES / path).read_bytes(), made_of.read(path), now.read(path)
        if there in (before, content):
            brought[path] = content
        elif path in CHAMPION_FILES:
            raise CheckFailed(
                f"{path} has changed since the candidate was judged: another model was released. Nothing is; run the "
                "workflow `Ship` again, which judges against that one."
            )
    return {path: content for path, content in brought.items() if now.read(path) != content}


def _wanted(history: list[Release], environment: str, to: str | None) -> int:
    """Which of the releases is meant, counted from the newest."""
    if not history:
        raise CheckFailed(f"Nothing has been released to {environment} yet, so there is nothing to go back to.")
    if to is not None:
        at = snapshot(to)
        for number, each in enumerate(history):
            if each.commit == at.name or at.repository.descendant_of(at.name, each.commit):
                return number
        raise CheckFailed(
            f"Nothing was live in {environment} at {to}; `slipway releases {environment}` lists what was."
        )
    seen = [history[0].live]
    for number in range(1, len(history)):
        if history[number].live not in seen and not went_back(history, number - 1):
            return number
        seen.append(history[number].live)
    raise CheckFailed(
        f"{environment} has no earlier release to go back to; `slipway releases {environment}` lists all."
    )


def _message(subject: str, origin: Origin) -> str:
    return f"{subject}\n\n{origin.verdict}\n\nBundle: {origin.bundle}\nMade of: {origin.commit}\n"
