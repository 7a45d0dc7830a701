"""Build, push and pull the image of a bundle and its server. The labels of the image contain the provenance."""

import re
import tarfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import docker
from docker.errors import APIError, BuildError, DockerException
from docker.utils import parse_repository_tag
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from slipway import artifacts
from slipway.artifacts import BATCH_SOURCES, SOURCES
from slipway.bundle import load_bundle
from slipway.errors import CheckFailed, InputError
from slipway.integrations import actions, process
from slipway.provenance import Provenance
from slipway.release.base_images import FROM
from slipway.release.component import BATCH
from slipway.release.model_card import CARD, model_card

CONTEXT = Path("build/image.tar")
LOG = Path("build/image.log")
PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")
"""Matches the line with the digest that the container engine prints at the end of a push."""
PULLABLE = "check that it was pushed, and that the engine is logged in"
BUILD_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "ONNXRUNTIME_PACKAGE")
"""Environment variables that are passed to the first stage of the build. PIP_* set the package index, and
ONNXRUNTIME_PACKAGE replaces the package of ONNX Runtime, for example by one with GPU support.
"""


def build(
    bundle: Path,
    provenance: Provenance,
    name: str,
    tag: str | None,
    bases: Sequence[str | None],
    environ: Mapping[str, str],
    *,
    batch: bool = False,
) -> tuple[str, int]:
    """Build the image of a bundle with the engine at DOCKER_HOST. Return its name and the size of its layers in bytes.

    The base images in the first FROM lines of the Dockerfile are replaced by `bases`, line by line. A line keeps its
    image if its base is None. With `batch`, the image that scores files is built. Raises InputError if no engine
    answers, or if the build fails.
    """
    client = connect()
    _write_context(bundle, provenance, bases, (*SOURCES, *BATCH_SOURCES) if batch else SOURCES)
    name = f"{name}:{tag or f'sha-{provenance.commit:.12}'}{BATCH if batch else ''}"
    arguments = {name: environ[name] for name in BUILD_ARGUMENTS if environ.get(name)} | decoder(bundle)
    try:
        with CONTEXT.open("rb") as context:
            image, _ = client.images.build(
                fileobj=context,
                custom_context=True,
                tag=name,
                target="batch" if batch else "server",
                labels=_labels(provenance, name, environ),
                buildargs=arguments,
                rm=True,
                forcerm=True,
            )
    except (BuildError, APIError) as error:
        raise InputError(f"{name} cannot be built: {_last_words(error)}; the whole log is in {LOG}.") from None
    return name, int(image.attrs["Size"])


def decoder(bundle: Path) -> dict[str, str]:
    """Return the build argument that installs Pillow in the image, or {} if no column of the bundle is an image."""
    columns = load_bundle(bundle).schema.columns
    return {"IMAGES": "1"} if any(column.type == "image" for column in columns) else {}


def push(name: str) -> str:
    """Push an image to the registry in its name. Return the digest of the image in this registry.

    Raises InputError if the registry rejects the image, or does not have it after the push.
    """
    digest = None
    try:
        for event in connect().images.push(name, stream=True, decode=True):
            if "error" in event:
                raise InputError(f"{name} cannot be pushed: {_sentence(event['error'])}; log in with `docker login`.")
            # Docker and Podman print "sha-0: digest: sha256:... size: 422". This digest identifies the image in the
            # registry. The image has another digest on this machine, because its layers are not compressed there.
            if found := PUSHED.search(event.get("status", "")):
                digest = found[1]
    except APIError as error:
        raise InputError(f"{name} cannot be pushed: {first_line(error)}; log in with `docker login`.") from None
    except KeyError as error:  # the docker package expects `message` in errors, which Podman 5 omits
        response: Any = error.__context__
        reason = _sentence(response.response.json()["error"])
        raise InputError(f"{name} cannot be pushed: {reason}; log in with `docker login`.") from None
    if digest is None:
        raise InputError(f"{name} was pushed, but the engine does not report its digest; push it again.")
    pull(f"{parse_repository_tag(name)[0]}@{digest}")
    return digest


def pull(name: str) -> Any:
    """Pull the image NAME@DIGEST from its registry, and return it. Raise InputError if the pull fails.

    `images.pull` of docker-py is not used. If the pull fails, that function returns a local image with the same name.
    """
    client = connect()
    repository, _, digest = name.partition("@")
    try:
        for event in client.api.pull(repository, tag=digest, stream=True, decode=True):
            if "error" in event:
                raise InputError(f"{name} cannot be pulled: {_sentence(event['error'])}; {PULLABLE}.")
        return client.images.get(name)
    except APIError as error:
        raise InputError(f"{name} cannot be pulled: {first_line(error)}; {PULLABLE}.") from None


def connect(seconds: int = 600) -> Any:
    """Return a client of the container engine at DOCKER_HOST. Raise InputError if the engine does not answer."""
    try:
        client = docker.from_env(timeout=seconds)
        client.ping()
    except DockerException as error:
        where = docker.utils.kwargs_from_env().get("base_url") or "Docker's own socket"
        raise InputError(
            f"No container engine answers at {where} ({first_line(error)}); start Docker or `podman system service`, "
            "and name its socket in DOCKER_HOST."
        ) from None
    return client


def provenance_of(bundle: Path) -> Provenance:
    """Return the provenance of a bundle for an image that is built from the last commit.

    Raise CheckFailed if a file of the image differs from the last commit.
    """
    identity = load_bundle(bundle).hash
    sources = [*SOURCES, *BATCH_SOURCES, str(artifacts.LOCK)]
    if bundle == artifacts.CHAMPION:
        _check_champion(identity)
        sources.append(str(artifacts.CHAMPION_DVC))
    return provenance_at_head(identity, _data_behind(identity), sources)


def provenance_at_head(bundle: str, data: str | None, sources: Sequence[str]) -> Provenance:
    """Return a provenance with the given bundle and data, and with the last commit.

    Raises CheckFailed if a file in `sources` differs from the last commit.
    """
    changed = process.run("git", "status", "--porcelain", "--untracked-files=all", "--", *sources).splitlines()
    if changed:
        raise CheckFailed(
            f"{changed[0].split(maxsplit=1)[1]} differs from the last commit, which the image would name as its "
            "source; commit it, or restore it."
        )
    commit, created = process.run("git", "show", "--no-patch", "--format=%H %cI", "HEAD").split()
    return Provenance(bundle=bundle, data=data, commit=commit, created=created)


def lock_hashes(lock: bytes, kind: Literal["deps", "outs"]) -> dict[str, str]:
    """Return the hash of each dependency or output in dvc.lock, by path. Raise InputError if the file is damaged."""
    try:
        stages = YAML(typ="safe").load(lock.decode())["stages"].values()
        return {each["path"]: each["md5"].removesuffix(".dir") for stage in stages for each in stage.get(kind, ())}
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{artifacts.LOCK} is damaged; restore it with `git checkout {artifacts.LOCK}`.") from None


def _check_champion(actual: str) -> None:
    tracked = artifacts.CHAMPION_DVC
    expected = artifacts.stated_hash(_read(tracked))
    if actual != expected:
        raise CheckFailed(
            f"{artifacts.CHAMPION}/ is {actual}, but {tracked} names {expected}; run `dvc checkout --force {tracked}`."
        )


def _data_behind(bundle: str) -> str | None:
    """Return the hash of the data that a bundle was trained on. Return None if dvc.lock has another bundle."""
    lock = _read(artifacts.LOCK)
    made_here = lock_hashes(lock, "outs").get(str(artifacts.BUNDLE)) == bundle
    return lock_hashes(lock, "deps").get(str(artifacts.DATA)) if made_here else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it with `git checkout {path}`.") from None


def _write_context(bundle: Path, provenance: Provenance, bases: Sequence[str | None], sources: Sequence[str]) -> None:
    """Write the build context: the files that the Dockerfile copies.

    All files have the same time and owner, so that the same files give the same layers.
    """
    CONTEXT.parent.mkdir(exist_ok=True)
    process.run("git", "-c", "tar.umask=0022", "archive", "--format=tar", f"--output={CONTEXT}", "HEAD", *sources)
    with tarfile.open(CONTEXT, "a") as tar:
        for file in sorted(bundle.iterdir()):
            _add(tar, f"bundle/{file.name}", file.read_bytes())
        _add(tar, "provenance.json", provenance.model_dump_json(indent=2).encode() + b"\n")
        _add(tar, CARD, _card(bundle, provenance).encode())
        if any(bases):
            _add(tar, "Dockerfile", _with_bases(bases).encode())  # replaces the earlier entry with this name


def _card(bundle: Path, provenance: Provenance) -> str:
    """Return the model card of a bundle. Use the card next to the bundle if `slipway candidate` has written one."""
    loaded, file = load_bundle(bundle), bundle.parent / CARD
    card = file.read_text(encoding="utf-8") if file.is_file() else ""
    return card if f"- Bundle: `{loaded.hash}`" in card.splitlines() else model_card(loaded, provenance)


def _with_bases(bases: Sequence[str | None]) -> str:
    """Return the Dockerfile of the last commit, with `bases` as the images in its first FROM lines."""
    wanted = iter(bases)
    text = process.run("git", "show", "HEAD:Dockerfile")
    return FROM.sub(lambda found: found[1] + (next(wanted, None) or found[2]), text) + "\n"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # by default owned by root, dated 1970 and readable by all
    entry.size = len(content)
    tar.addfile(entry, BytesIO(content))


def _labels(provenance: Provenance, name: str, environ: Mapping[str, str]) -> dict[str, str]:
    title = name.rpartition(":")[0].rpartition("/")[2]
    labels = {"org.opencontainers.image.title": title, **provenance.labels()}
    if environ.get("GITHUB_REPOSITORY"):
        labels["org.opencontainers.image.source"] = actions.repository_url(environ)
    return labels


def _last_words(error: BuildError | APIError) -> str:
    """Write the log of a failed build to a file. Return its last error, its last line, or the error of the engine.

    pip's errors and its other output can be in any order, because they come from two streams.
    """
    chunks = error.build_log if isinstance(error, BuildError) else []
    lines = "".join(chunk.get("stream") or "" for chunk in chunks).strip().splitlines()
    LOG.write_text("\n".join([*lines, str(error)]) + "\n", encoding="utf-8")
    if errors := [line for line in lines if line.startswith("ERROR: ")]:
        return errors[-1].rstrip(".")
    return first_line(error) if not lines or lines[-1].lower().startswith("step") else lines[-1].rstrip(".")


def first_line(error: Exception) -> str:
    """Return the first line of an error of the container engine, without a full stop at its end."""
    return _sentence(str(error).strip() or type(error).__name__)


def _sentence(text: str) -> str:
    return str(text).splitlines()[0].rstrip(".")
