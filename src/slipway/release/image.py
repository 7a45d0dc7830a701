"""The image: a bundle and the server that answers with it, made from this commit and labelled with its lineage."""

import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, BuildError, DockerException
from ruamel.yaml import YAML

from slipway import artifacts
from slipway.bundle import load_bundle
from slipway.errors import CheckFailed, InputError
from slipway.integrations import process
from slipway.serving.provenance import Lineage

SOURCES = (
    "Dockerfile",
    "requirements/serve.txt",
    "src/slipway/__init__.py",
    "src/slipway/errors.py",
    "src/slipway/bundle.py",
    "src/slipway/statistics/__init__.py",
    "src/slipway/statistics/bins.py",
    "src/slipway/serving",
)
"""What git gives to the image; the bundle and the lineage are added."""
CONTEXT = Path("build/image.tar")
LOG = Path("build/image.log")
MIRROR = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
"""Variables of this machine that the first stage of the build takes."""

LABELS = {
    "bundle": "slipway.bundle",
    "data": "slipway.data",
    "commit": "org.opencontainers.image.revision",
    "created": "org.opencontainers.image.created",
}
"""Where the labels of an image have its lineage."""


@dataclass(frozen=True)
class Built:
    name: str
    bytes: int
    """Of all layers, those of the base too."""
    lineage: Lineage


def build(bundle: Path, lineage: Lineage, name: str, tag: str | None, bases: Mapping[str, str]) -> Built:
    """Build the image of a bundle with the engine that DOCKER_HOST names.

    `bases` replaces build arguments of the Dockerfile. Raises InputError where there is no engine or it cannot build.
    """
    client = connect()
    _write_context(bundle, lineage)
    name = f"{name}:{tag or f'sha-{lineage.commit:.12}'}"
    arguments = {variable: os.environ[variable] for variable in MIRROR if os.environ.get(variable)}
    try:
        with CONTEXT.open("rb") as context:
            image, _ = client.images.build(
                fileobj=context,
                custom_context=True,
                tag=name,
                labels=_labels(lineage, name),
                buildargs={**arguments, **bases},
                rm=True,
                forcerm=True,
            )
    except (BuildError, APIError) as error:
        raise InputError(f"{name} cannot be built: {_last_words(error)}; {LOG} has the whole log.") from None
    return Built(name, int(image.attrs["Size"]), lineage)


def push(name: str) -> str:
    """Push an image to where its name says; returns the digest by which the registry knows it.

    Raises InputError if the registry does not take it.
    """
    digest = None
    try:
        for told in connect().images.push(name, stream=True, decode=True):
            if "error" in told:
                raise InputError(
                    f"{name} cannot be pushed: {str(told['error']).rstrip('.')}; log in with `docker login`."
                )
            digest = told.get("aux", {}).get("Digest") or digest
        digest = digest or _digest_of(connect().images.get(name), name)
    except APIError as error:
        raise InputError(f"{name} cannot be pushed: {first_line(error)}; log in with `docker login`.") from None
    if digest is None:
        raise InputError(f"{name} was pushed, and the engine does not say under which digest; push it again.")
    return digest


def _digest_of(image: Any, name: str) -> str | None:
    """Of an image in the engine, in the registry of this name."""
    repository = name.rpartition(":")[0]
    known = [each.partition("@") for each in image.attrs.get("RepoDigests") or ()]
    return next((digest for where, _, digest in known if where == repository), None)


def connect(seconds: int = 600) -> Any:
    """A client of the engine; raises InputError if there is none."""
    try:
        client = docker.from_env(timeout=seconds)
        client.ping()
    except DockerException as error:
        where = os.environ.get("DOCKER_HOST") or "Docker's own socket"
        raise InputError(
            f"No container engine answers at {where} ({first_line(error)}); start Docker or `podman system service`, "
            "and name its socket in DOCKER_HOST."
        ) from None
    return client


def read_lineage(bundle: Path) -> Lineage:
    """Where a bundle comes from; raises CheckFailed if the last commit is not what the image would be built from."""
    identity = load_bundle(bundle).hash
    sources = [*SOURCES, str(artifacts.LOCK)]
    if bundle == artifacts.CHAMPION:
        _check_champion(identity)
        sources.append(str(artifacts.CHAMPION_DVC))
    return lineage_at_head(identity, _data_behind(identity), sources)


def lineage_at_head(bundle: str, data: str | None, sources: Sequence[str]) -> Lineage:
    """The lineage of a bundle in an image made of the last commit; raises CheckFailed if `sources` are not as there."""
    changed = process.run("git", "status", "--porcelain", "--untracked-files=all", "--", *sources).splitlines()
    if changed:
        raise CheckFailed(
            f"{changed[0].split(maxsplit=1)[1]} is not as in the last commit, which the image would name as its "
            "source; commit it, or take it back."
        )
    commit, created = process.run("git", "show", "--no-patch", "--format=%H %cI", "HEAD").split()
    return Lineage(bundle=bundle, data=data, commit=commit, created=created)


def _check_champion(actual: str) -> None:
    tracked = artifacts.CHAMPION_DVC
    expected = _read_yaml(tracked)["outs"][0]["md5"].removesuffix(".dir")
    if actual != expected:
        raise CheckFailed(
            f"{artifacts.CHAMPION}/ is {actual} and {tracked} says {expected}; run `dvc checkout --force {tracked}`."
        )


def _data_behind(bundle: str) -> str | None:
    """The hash of the data from which the pipeline made a bundle; None if its last run made another one."""
    stages = _read_yaml(artifacts.LOCK)["stages"]
    made = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    used = {dep["path"]: dep["md5"] for stage in stages.values() for dep in stage.get("deps", ())}
    if made.get(str(artifacts.BUNDLE)) != f"{bundle}.dir":
        return None
    return str(used[str(artifacts.DATA)]).removesuffix(".dir")


def _read_yaml(path: Path) -> Any:
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it with `git checkout {path}`.") from None


def _write_context(bundle: Path, lineage: Lineage) -> None:
    """What the Dockerfile can copy. Times and owners are fixed, so that equal content is an equal layer."""
    CONTEXT.parent.mkdir(exist_ok=True)
    process.run("git", "-c", "tar.umask=0022", "archive", "--format=tar", f"--output={CONTEXT}", "HEAD", *SOURCES)
    with tarfile.open(CONTEXT, "a") as tar:
        for file in sorted(bundle.iterdir()):
            _add(tar, f"bundle/{file.name}", file.read_bytes())
        _add(tar, "lineage.json", lineage.model_dump_json(indent=2).encode() + b"\n")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # belongs to root, is of 1970, and everybody may read it
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))


def _labels(lineage: Lineage, name: str) -> dict[str, str]:
    stated = {LABELS[key]: value for key, value in lineage.model_dump(exclude_none=True).items()}
    labels = {"org.opencontainers.image.title": name.rpartition(":")[0].rpartition("/")[2], **stated}
    if repository := os.environ.get("GITHUB_REPOSITORY"):
        server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
        labels["org.opencontainers.image.source"] = f"{server}/{repository}"
    return labels


def _last_words(error: BuildError | APIError) -> str:
    """Keep the log of a build that failed; returns what its last step said, or else the engine."""
    chunks = error.build_log if isinstance(error, BuildError) else []
    lines = "".join(chunk.get("stream") or "" for chunk in chunks).strip().splitlines()
    LOG.write_text("\n".join([*lines, str(error)]) + "\n", encoding="utf-8")
    return first_line(error) if not lines or lines[-1].lower().startswith("step") else lines[-1].rstrip(".")


def first_line(error: Exception) -> str:
    """What an error of the engine's says, to be put into a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
