"""Find the live release and the earlier releases of an environment in the git history of its release component."""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pygit2
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway.errors import CheckFailed, InputError
from slipway.integrations.git import Snapshot
from slipway.release import component
from slipway.release.component import Deployed

OVERLAYS = "kustomize/overlays"
STAGING = "staging"
PRODUCTION = "production"
COMPONENT = "release"
"""Folder of the release component in an overlay."""


@dataclass(frozen=True)
class Release:
    """A commit that changed what an environment runs. `before` is the hash of its first parent.

    `is_first` is True if nothing was live before. Several releases are first if a person removed a release by hand.
    """

    commit: str
    before: str | None
    when: datetime
    subject: str
    deployed: Deployed
    is_first: bool = False


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
                is_first = earlier is None and (before is None or _is_absent(before, environment))
                yield Release(at.name, before.name if before else None, when, subject, now, is_first)
        if before is None:
            return
        at, now = before, earlier


def all_releases(at: Snapshot, environment: str) -> list[Release]:
    """Return all releases to an environment, newest first.

    Raises CheckFailed in a shallow clone. Without the older commits, a rolled back release would look like any other.
    """
    if at.repository.is_shallow:
        raise CheckFailed("This clone is shallow, so it lacks releases; fetch them with `git fetch --unshallow`.")
    return list(releases(at, environment))


def previous(history: Sequence[Release]) -> int | None:
    """Return the index of the release that a rollback restores by default, or None if there is no earlier one.

    The result is the newest release with another image than the live release that was not itself rolled back.
    """
    standing, _ = _replay(history)
    return standing[-2] if len(standing) > 1 else None


def rollbacks(history: Sequence[Release]) -> frozenset[int]:
    """Return the indices of the rollbacks: the releases that restored an earlier release."""
    return frozenset(_replay(history)[1].values())


def refuse_withdrawn(history: Sequence[Release], bundle: str, is_same_server: Callable[[Deployed], bool]) -> None:
    """Raise CheckFailed if a rollback ended the last release of a bundle, or its last release with the same server.

    The second case is a rollback to another server with the same bundle. `is_same_server` returns True if a release has
    the server that would be released now. Without this check, a repeated job or the next merge would release the model
    again.
    """

    def is_same_bundle(deployed: Deployed) -> bool:
        return deployed.provenance.bundle == bundle

    _, ended = _replay(history)
    of_bundle = [number for number, each in enumerate(history) if is_same_bundle(each.deployed)]
    of_server = [number for number in of_bundle if is_same_server(history[number].deployed)]
    for number in (*of_bundle[:1], *of_server[:1]):
        if number in ended:
            raise CheckFailed(
                f"Bundle {bundle} was rolled back by {history[ended[number]].commit[:12]}; merge a change that gives "
                "another bundle, or release this one with `--again` or the input `again` of the workflow Ship."
            )


def object_id(at: Snapshot, path: str) -> pygit2.Oid | None:
    """Return git's id for the content of a file or folder in a commit, or None if the path does not exist."""
    try:
        return at.commit.tree[path].id
    except KeyError:
        return None


def _replay(history: Sequence[Release]) -> tuple[list[int], dict[int, int]]:
    """Replay the releases on a stack, oldest first. Return the stack, and the rollback of each release.

    A new image is pushed. A return to an earlier image pops all images above it. A release that only changes the batch
    image or the registry version replaces the release of the same image. Releases are given by their indices: the stack
    ends with the live release, and each release that was rolled back is mapped to its rollback.
    """
    standing: list[int] = []
    ended: dict[int, int] = {}
    for number in reversed(range(len(history))):
        if history[number].is_first:
            standing.clear()
        images = [history[each].deployed.image for each in standing]
        image = history[number].deployed.image
        place = images.index(image) if image in images else len(images)
        ended |= dict.fromkeys(standing[place + 1 :], number)
        standing[place:] = [number]
    return standing, ended


def _live(at: Snapshot, environment: str) -> Deployed | None:
    file = release_file(environment)
    content = at.read(file)
    return None if content is None else component.read(content, file)


def _live_or_none(at: Snapshot, environment: str) -> Deployed | None:
    try:
        return _live(at, environment)
    except InputError:
        return None


def _is_absent(at: Snapshot, environment: str) -> bool:
    """Return True if nothing is live. Return False if the release component is damaged."""
    try:
        return _live(at, environment) is None
    except InputError:
        return False
