"""What is live in an environment, and what was: read from git, which alone says it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import pygit2

from slipway.errors import InputError
from slipway.integrations.git import Snapshot
from slipway.release.overlay import Image, Origin, read_image, read_origin

OVERLAYS = "kustomize/overlays"
STAGING = "staging"
PRODUCTION = "production"


@dataclass(frozen=True)
class Deployed:
    """What an overlay says that runs: the image, and where the model in it comes from."""

    image: Image
    origin: Origin


@dataclass(frozen=True)
class Release:
    """A commit by which something else became live; `before` is the commit that it was made on."""

    commit: str
    before: str | None
    when: datetime
    subject: str
    live: Deployed


def images_file(environment: str) -> str:
    """Where an overlay names its image; people edit this file too."""
    return f"{OVERLAYS}/{environment}/kustomization.yaml"


def origin_file(environment: str) -> str:
    """Where an overlay says what its pods are annotated with."""
    return f"{OVERLAYS}/{environment}/release.yaml"


def live(at: Snapshot, environment: str) -> Deployed | None:
    """What is live in an environment at a commit; None where nothing has been released to it.

    Raises InputError where there is no such overlay, or where it cannot be read.
    """
    images, origin = images_file(environment), origin_file(environment)
    content = at.read(images)
    if content is None:
        known = ", ".join(environments(at)) or "none"
        raise InputError(f"{images} is missing on {at.name[:12]}; the environments there: {known}.")
    image = read_image(content, images)
    if image is None or image.digest is None:
        return None
    described = at.read(origin)
    if described is None:
        raise InputError(f"{origin} is missing on {at.name[:12]}; restore it with `git checkout`.")
    return Deployed(image, read_origin(described, origin))


def environments(at: Snapshot) -> list[str]:
    """The names of the overlays."""
    try:
        tree = at.commit.tree[OVERLAYS].peel(pygit2.Tree)
    except (KeyError, pygit2.InvalidSpecError):
        return []
    return sorted(each.name or "" for each in tree if isinstance(each, pygit2.Tree))


def releases(at: Snapshot, environment: str) -> Iterator[Release]:
    """The releases to an environment up to a commit, the newest first; what cannot be read released nothing."""
    now = _live_or_none(at, environment)
    while True:
        parents = at.commit.parents
        before = Snapshot(at.repository, parents[0]) if parents else None
        earlier = now
        if before is None or _overlay(before, environment) != _overlay(at, environment):
            earlier = _live_or_none(before, environment) if before else None
            if now is not None and now != earlier:
                when = datetime.fromtimestamp(at.commit.commit_time, UTC)
                subject = at.commit.message.partition("\n")[0]
                yield Release(at.name, before.name if before else None, when, subject, now)
        if before is None:
            return
        at, now = before, earlier


def withdrawn_by(history: Sequence[Release], bundle: str, same_image: Callable[[str], bool]) -> Release | None:
    """The release that went back from a bundle to an earlier one, if that is the last that is known of the bundle.

    Where the bundle stayed and only the server went back, it counts for images that are made of the same; `same_image`
    tells it of the commit that one was made of.
    """
    for number, (newer, this) in enumerate(pairwise(history)):
        stayed = newer.live.origin.bundle == bundle
        if this.live.origin.bundle == bundle and (not stayed or same_image(this.live.origin.commit or "")):
            return newer if went_back(history, number) else None
    return None


def went_back(history: Sequence[Release], number: int) -> bool:
    """Whether a release, counted from the newest, brought back what had been live before the one that it followed."""
    return history[number].live in [each.live for each in history[number + 2 :]]


def _live_or_none(at: Snapshot, environment: str) -> Deployed | None:
    try:
        return live(at, environment)
    except InputError:
        return None


def _overlay(at: Snapshot, environment: str) -> object:
    try:
        return at.commit.tree[f"{OVERLAYS}/{environment}"].id
    except KeyError:
        return None
