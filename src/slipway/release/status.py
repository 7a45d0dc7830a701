"""What is live where, and the proof: the chain from the commit to the answer of the running service."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import DockerException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import artifacts
from slipway.config import Params
from slipway.errors import InputError, SlipwayError
from slipway.integrations.git import Snapshot, snapshot
from slipway.release import registry, rollout
from slipway.release.history import PRODUCTION, Deployed, live
from slipway.release.image import LABELS, first_line, pull
from slipway.release.version_probe import ask


@dataclass(frozen=True)
class Link:
    """A link of the chain. `holds` is None where it could not be looked at."""

    name: str
    holds: bool | None
    words: str


class _NotSeen(Exception):
    """A link cannot be looked at, and why."""


def chain(now: Snapshot, environment: str, url: str, params: Params, environ: Mapping[str, str]) -> Iterator[Link]:
    """Each link of commit ↔ dvc.lock ↔ bundle ↔ registry ↔ image ↔ overlay ↔ answer, held against the overlay."""
    try:
        released = live(now, environment)
    except SlipwayError as error:
        yield Link("overlay", False, str(error))
        return
    if released is None:
        yield Link("overlay", False, f"nothing has been released to {environment}")
        return
    yield Link("overlay", True, f"{released.image.name}:{released.image.tag}@{released.image.digest}")
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
        except _NotSeen as error:
            yield Link(name, None, str(error))
        except SlipwayError as error:
            yield Link(name, False, str(error))


def _must_be(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise InputError(f"{what} is {found or 'none'}, and the overlay says {wanted or 'none'}")


def _commit(now: Snapshot, released: Deployed) -> str:
    at = snapshot(released.origin.commit or "none")
    if at.name != now.name and not now.repository.descendant_of(now.name, at.name):
        raise InputError(f"{at.name} is no commit of main")
    if released.origin.data:
        _must_be(f"The data of {at.name[:12]}", _tracked(at, str(artifacts.DATA_DVC)), released.origin.data)
    return at.name


def _lock(now: Snapshot, released: Deployed, environment: str) -> str:
    if environment != PRODUCTION:
        raise _NotSeen("only production's model is in dvc.lock")
    stages = _yaml(now, str(artifacts.LOCK)).get("stages", {})
    used = {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage.get("deps", ())}
    judged = str(used.get(str(artifacts.CHAMPION))).removesuffix(".dir")
    _must_be("The champion in dvc.lock", judged, released.origin.bundle)
    return f"judged against {released.origin.bundle}"


def _bundle(now: Snapshot, released: Deployed, environment: str) -> str:
    if environment != PRODUCTION:
        raise _NotSeen("only production's model is in champion.dvc")
    _must_be(str(artifacts.CHAMPION_DVC), _tracked(now, str(artifacts.CHAMPION_DVC)), released.origin.bundle)
    told = json.loads(now.read(artifacts.RELEASE) or b"{}").get("champion")
    _must_be(str(artifacts.RELEASE), told, released.origin.bundle)
    return str(released.origin.bundle)


def _registered(released: Deployed, environment: str, params: Params, environ: Mapping[str, str]) -> str:
    if not registry.is_configured(environ):
        raise _NotSeen("no registry is named by MLFLOW_TRACKING_URI")
    if released.origin.version is None:
        raise _NotSeen("it was released without a registry")
    tags = registry.tags_of(params, released.origin.version)
    where = f"Version {released.origin.version} of {params.record.experiment}"
    _must_be(f"{where}: its bundle", tags.get(registry.BUNDLE_TAG), released.origin.bundle)
    _must_be(f"{where}: its image", tags.get(registry.DIGEST_TAG), released.image.digest)
    alias = rollout.ALIASES.get(environment)
    if alias and alias not in tags["aliases"].split(", "):
        raise InputError(f"{where} is not the {alias}")
    return f"{where} is the {alias}"


def _image(released: Deployed) -> str:
    name = f"{released.image.name}@{released.image.digest}"
    try:
        labels = pull(name).labels
    except (InputError, DockerException) as error:
        raise _NotSeen(first_line(error)) from None
    for key, wanted in (("bundle", released.origin.bundle), ("commit", released.origin.commit)):
        _must_be(f"Label {LABELS[key]} of {name}", labels.get(LABELS[key]), wanted)
    return name


def _answer(released: Deployed, url: str) -> str:
    told = ask(url)
    for key in ("bundle", "commit", "data"):
        _must_be(f"The {key} that {url} answers with", getattr(told, key), getattr(released.origin, key))
    return url


def _tracked(at: Snapshot, file: str) -> str | None:
    """The hash that a file of DVC's states at a commit."""
    return artifacts.stated_hash(at.read(file) or b"")


def _yaml(at: Snapshot, file: str) -> Any:
    try:
        return YAML(typ="safe").load((at.read(file) or b"{}").decode("utf-8"))
    except (YAMLError, UnicodeDecodeError):
        raise InputError(f"{file} of {at.name[:12]} cannot be read; restore it with `git checkout`.") from None
