"""Compare a release with the commit, the model registry, the image and the running server."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from docker.errors import DockerException

from slipway import artifacts
from slipway.config import Params
from slipway.errors import InputError, SlipwayError
from slipway.integrations.git import Snapshot, snapshot
from slipway.provenance import LABELS
from slipway.release import registry, rollout
from slipway.release.component import Deployed
from slipway.release.history import PRODUCTION, live
from slipway.release.image import first_line, lock_hashes, pull
from slipway.release.version_probe import ask


@dataclass(frozen=True)
class Link:
    """The result of one comparison with a release. `holds` is None if the comparison was not possible."""

    name: str
    holds: bool | None
    words: str


class _NotChecked(Exception):
    """A comparison was not possible. The message is the reason."""


def chain(now: Snapshot, environment: str, url: str, params: Params, environ: Mapping[str, str]) -> Iterator[Link]:
    """Compare the live release of an environment with six sources, and yield each result.

    The sources are the commit, dvc.lock, the bundle, the model registry, the image and the server at `url`.
    """
    try:
        released = live(now, environment)
    except SlipwayError as error:
        yield Link("release", False, str(error))
        return
    if released is None:
        yield Link("release", False, f"nothing has been released to {environment}")
        return
    yield Link("release", True, f"{released.image.name}:{released.image.tag}@{released.image.digest}")
    looks: list[tuple[str, Callable[[], str]]] = [
        ("commit", lambda: _commit(now, released)),
        ("dvc.lock", lambda: _lock(now, released, environment)),
        ("bundle", lambda: _bundle(now, released, environment)),
        ("registry", lambda: _registered(released, environment, params, environ)),
        ("image", lambda: _image(released)),
        ("answer", lambda: _answer(released, url)),
    ]
    for name, look in looks:
        try:
            yield Link(name, True, look())
        except _NotChecked as error:
            yield Link(name, None, str(error))
        except SlipwayError as error:
            yield Link(name, False, str(error))


def _must_be(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise InputError(f"{what} is {found or 'none'}, but the release has {wanted or 'none'}")


def _commit(now: Snapshot, released: Deployed) -> str:
    at = snapshot(released.provenance.commit or "none")
    if at.name != now.name and not now.repository.descendant_of(now.name, at.name):
        raise InputError(f"{at.name} is not a commit of main")
    if released.provenance.data:
        _must_be(f"The data of {at.name[:12]}", _tracked(at, str(artifacts.DATA_DVC)), released.provenance.data)
    return at.name


def _lock(now: Snapshot, released: Deployed, environment: str) -> str:
    if environment != PRODUCTION:
        raise _NotChecked("dvc.lock has only the model of production")
    judged = lock_hashes(now.read(artifacts.LOCK) or b"", "deps").get(str(artifacts.CHAMPION))
    _must_be("The champion in dvc.lock", judged, released.provenance.bundle)
    return f"judged against {released.provenance.bundle}"


def _bundle(now: Snapshot, released: Deployed, environment: str) -> str:
    if environment != PRODUCTION:
        raise _NotChecked("champion.dvc has only the model of production")
    _must_be(str(artifacts.CHAMPION_DVC), _tracked(now, str(artifacts.CHAMPION_DVC)), released.provenance.bundle)
    champion = json.loads(now.read(artifacts.RELEASE) or b"{}").get("champion")
    _must_be(str(artifacts.RELEASE), champion, released.provenance.bundle)
    return str(released.provenance.bundle)


def _registered(released: Deployed, environment: str, params: Params, environ: Mapping[str, str]) -> str:
    if not registry.is_configured(environ):
        raise _NotChecked("MLFLOW_TRACKING_URI is not set")
    if released.registry_version is None:
        raise _NotChecked("it was released without a registry")
    tags = registry.tags_of(params, released.registry_version)
    where = f"version {released.registry_version} of {params.record.experiment}"
    _must_be(f"The bundle of {where}", tags.get(registry.BUNDLE_TAG), released.provenance.bundle)
    _must_be(f"The image of {where}", tags.get(registry.DIGEST_TAG), released.image.digest)
    alias = rollout.ALIASES.get(environment)
    if alias and alias not in tags["aliases"].split(", "):
        raise InputError(f"V{where[1:]} does not have the alias {alias}")
    return f"{where} has the alias {alias}"


def _image(released: Deployed) -> str:
    name = f"{released.image.name}@{released.image.digest}"
    try:
        labels = pull(name).labels
    except (InputError, DockerException) as error:
        raise _NotChecked(first_line(error)) from None
    wanted = released.provenance.labels()
    for key in (LABELS["bundle"], LABELS["commit"]):
        _must_be(f"Label {key} of {name}", labels.get(key), wanted.get(key))
    return name


def _answer(released: Deployed, url: str) -> str:
    served = ask(url)
    for key in ("bundle", "commit", "data"):
        _must_be(f"The {key} in the answer of {url}", getattr(served, key), getattr(released.provenance, key))
    return url


def _tracked(at: Snapshot, file: str) -> str | None:
    """Return the hash in a .dvc file of a commit."""
    return artifacts.stated_hash(at.read(file) or b"")
