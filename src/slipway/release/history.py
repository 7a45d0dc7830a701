"""Find the live release and the earlier releases of an environment in the git history of its release component."""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pygit2
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway.errors import InputError
from slipway.integrations.git import Snapshot
from slipway.release import component
from slipway.release.component import Deployed, Image

OVERLAYS = "kustomize/overlays"
STAGING = "staging"
PRODUCTION = "production"
COMPONENT = "release"
"""Folder of the release component in an overlay."""


@dataclass(frozen=True)
class Release:
    """A commit that changed what an environment runs. `before` is the hash of its first parent."""

    commit: str
    before: str | None
    when: datetime
    subject: str
    deployed: Deployed


def overlay_file(environment: str) -> str:
    """Return the path of the overlay, which people edit."""
    return f"{OVERLAYS}/{environment}/kustomization.yaml"


def release_file(environment: str) -> str:
    """Return the path of the release component. Only release commits change this file."""
    return f"{OVERLAYS}/{environment}/{COMPONENT}/kustomization.yaml"


def overlay(at: Snapshot, environment: str) -> Mapping[str, Any]:
    """Read the overlay of an environment at a commit. Raise InputError if it is missing or damaged."""
    file = overlay_file(environment)
    content = at.read(file)
    if content is None:
        known = ", ".join(environments(at)) or "none"
        raise InputError(f"{file} is missing in commit {at.name[:12]}; environments there: {known}.")
    try:
        return dict(YAML(typ="safe").load(content.decode()))
    except (YAMLError, ValueError, TypeError):
        raise InputError(f"{file} in commit {at.name[:12]} is not valid YAML; correct it.") from None


def require_component(at: Snapshot, environment: str) -> None:
    """Raise InputError if the overlay of an environment does not include its release component."""
    listed = overlay(at, environment).get("components") or ()
    if COMPONENT not in [posixpath.normpath(str(each)) for each in listed]:
        raise InputError(
            f"{overlay_file(environment)} does not list `{COMPONENT}` under `components`, so a release would have no "
            "effect; add it."
        )


def live(at: Snapshot, environment: str) -> Deployed | None:
    """Return the release that an environment runs according to a commit, or None before its first release.

    Raises InputError if the environment does not exist, or if its release component is damaged.
    """
    overlay(at, environment)
    return _live(at, environment)


def environments(at: Snapshot) -> list[str]:
    """Return the names of the environments, which are the names of the overlays in the commit."""
    try:
        tree = at.commit.tree[OVERLAYS].peel(pygit2.Tree)
    except (KeyError, pygit2.InvalidSpecError):
        return []
    return sorted(each.name or "" for each in tree if isinstance(each, pygit2.Tree))


def releases(at: Snapshot, environment: str) -> Iterator[Release]:
    """Yield the releases to an environment up to a commit, newest first. A damaged release component is ignored."""
    file, now = release_file(environment), _live_or_none(at, environment)
    while True:
        parents = at.commit.parents
        before = Snapshot(at.repository, parents[0]) if parents else None
        earlier = now
        if before is None or object_id(before, file) != object_id(at, file):
            earlier = _live_or_none(before, environment) if before else None
            if now is not None and now != earlier:
                when = datetime.fromtimestamp(at.commit.commit_time, UTC)
                subject = at.commit.message.partition("\n")[0]
                yield Release(at.name, before.name if before else None, when, subject, now)
        if before is None:
            return
        at, now = before, earlier


def previous(history: Sequence[Release]) -> int | None:
    """Return the index of the release that a rollback restores by default, or None if there is no earlier one.

    The result is the newest release that differs from the live release and was not itself rolled back.
    """
    standing, _ = _replay(history)
    if len(standing) < 2:
        return None
    return next(number for number, each in enumerate(history) if each.deployed == standing[-2])


def rollbacks(history: Sequence[Release]) -> frozenset[int]:
    """Return the indices of the rollbacks: the releases that restored an earlier release."""
    return _replay(history)[1]


def rollback_of(history: Sequence[Release], image: Image) -> Release | None:
    """Return the rollback that ended the last release of an image. Return None if no rollback ended it."""
    number = next((number for number, each in enumerate(history) if each.deployed.image == image), 0)
    return history[number - 1] if number and number - 1 in rollbacks(history) else None


def withdrawn_by(history: Sequence[Release], bundle: str, same_server: Callable[[str], bool]) -> Release | None:
    """Return the rollback that ended the last release of a bundle. Return None if no rollback ended it.

    A rollback can restore another server with the same bundle, so that the bundle stays live. Such a rollback is
    returned only if it removed the server that would be released now. `same_server` takes the commit that an image was
    built from, and returns True if the image has the server that would be released now.
    """
    back = rollbacks(history)
    live = bool(history) and history[0].deployed.provenance.bundle == bundle
    for number, (newer, this) in enumerate(pairwise(history)):
        provenance = this.deployed.provenance
        kept = live or newer.deployed.provenance.bundle == bundle
        if provenance.bundle == bundle and (not kept or same_server(provenance.commit or "")):
            return newer if number in back else None
    return None


def object_id(at: Snapshot, path: str) -> pygit2.Oid | None:
    """Return git's id for the content of a file or folder in a commit, or None if the path does not exist."""
    try:
        return at.commit.tree[path].id
    except KeyError:
        return None


def _replay(history: Sequence[Release]) -> tuple[list[Deployed], frozenset[int]]:
    """Replay the releases on a stack of deployed states, oldest first.

    A new state is pushed. A return to an earlier state pops all states above it. Returns the stack, with the live state
    last, and the indices of the releases that popped states.
    """
    standing: list[Deployed] = []
    back = set()
    for number in reversed(range(len(history))):
        deployed = history[number].deployed
        if deployed not in standing:
            standing.append(deployed)
        elif standing[-1] != deployed:
            back.add(number)
            del standing[standing.index(deployed) + 1 :]
    return standing, frozenset(back)


def _live(at: Snapshot, environment: str) -> Deployed | None:
    file = release_file(environment)
    content = at.read(file)
    return None if content is None else component.read(content, file)


def _live_or_none(at: Snapshot, environment: str) -> Deployed | None:
    try:
        return _live(at, environment)
    except InputError:
        return None
