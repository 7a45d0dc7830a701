"""What an overlay deploys: the image and where the model in it comes from, in files that people edit too."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

from slipway.errors import InputError
from slipway.yaml_in_place import Document, Path

NAME = "model"
"""What kustomize/base calls the image."""
IMAGES: Path = ("images",)
ANNOTATIONS: Path = ("spec", "template", "metadata", "annotations")

# Each key, and what holds where it says nothing.
IMAGE_KEYS = {"newName": NAME, "newTag": "", "digest": ""}
ANNOTATION_KEYS = {
    "slipway/bundle": "none",
    "slipway/data": "none",
    "slipway/commit": "none",
    "slipway/registry-version": "none",
    "slipway/verdict": "none",
}

# https://github.com/distribution/reference/blob/main/reference.go
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
IMAGE_NAME = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*")
IMAGE_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """What takes the place of the image `model`. The tag is empty where an overlay states only a digest."""

    name: str
    tag: str
    digest: str | None

    def __post_init__(self) -> None:
        if len(self.name) > 255 or not IMAGE_NAME.fullmatch(self.name):
            raise InputError(f"{self.name!r} is not the name of an image; write it like `ghcr.io/team/model`.")
        if not IMAGE_TAG.fullmatch(self.tag) and (self.tag or self.digest is None):
            raise InputError(f"{self.tag!r} is not the tag of an image; write it like `sha-0123456789ab`.")
        if self.digest is not None and not IMAGE_DIGEST.fullmatch(self.digest):
            raise InputError(
                f"{self.digest!r} is not the digest of an image; write `sha256:` and 64 hexadecimal digits."
            )


@dataclass(frozen=True)
class Origin:
    """Where the model in an image comes from, in the order of ANNOTATION_KEYS; None stands for `none`."""

    bundle: str | None
    data: str | None
    commit: str | None
    version: str | None
    verdict: str | None

    def __post_init__(self) -> None:
        for value in astuple(self):
            if value is not None and (value in ("", "none") or value != value.strip() or not value.isprintable()):
                raise InputError(f"{value!r} cannot be an annotation; write one line of text other than `none`.")


def read_image(content: bytes, where: str) -> Image | None:
    """The image that a kustomization.yaml puts in place of `model`; None where it states neither a tag nor a digest.

    Raises InputError where the file, whose path is `where`, is broken.
    """
    document = Document(content, where)
    entry = _model(document)
    if entry is None:
        return None
    name, tag, digest = _values(document, entry, IMAGE_KEYS)
    try:
        return Image(name, tag, digest or None) if tag or digest else None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def set_image(content: bytes, image: Image, where: str) -> bytes:
    """The kustomization.yaml that puts this image in place of `model`.

    Raises InputError where the file, whose path is `where`, is broken or cannot be edited safely.
    """
    document = Document(content, where)
    entry = _model(document)
    if entry is None:
        entry = (*IMAGES, document.count(IMAGES))
        document.append(IMAGES, "name", NAME)
    return _with_values(document, entry, IMAGE_KEYS, (image.name, image.tag, image.digest or ""))


def read_origin(content: bytes, where: str) -> Origin:
    """Read the provenance annotations of a release.yaml; raise InputError with the path `where` if it is broken."""
    values = _values(Document(content, where), ANNOTATIONS, ANNOTATION_KEYS)
    try:
        return Origin(*(None if value == "none" else value for value in values))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def set_origin(content: bytes, origin: Origin, where: str) -> bytes:
    """The release.yaml that annotates the pods with this.

    Raises InputError where the file, whose path is `where`, is broken or cannot be edited safely.
    """
    wanted = (value or "none" for value in astuple(origin))
    return _with_values(Document(content, where), ANNOTATIONS, ANNOTATION_KEYS, wanted)


def _model(document: Document) -> Path | None:
    """Which entry of `images` is that of the model."""
    entries: list[Path] = [(*IMAGES, index) for index in range(document.count(IMAGES))]
    names = [document.text((*entry, "name")) for entry in entries]
    if "" in names:
        line = document.line(entries[names.index("")])
        raise InputError(f"{line}: an entry of `images` has no `name`; give it one or remove it.")
    found = [entry for entry, name in zip(entries, names, strict=True) if name == NAME]
    if len(found) > 1:
        raise InputError(f"{document.line(found[1])}: `images` has a second entry for `{NAME}`; remove one of them.")
    return found[0] if found else None


def _values(document: Document, path: Path, defaults: Mapping[str, str]) -> list[str]:
    return [document.text((*path, key), default) for key, default in defaults.items()]


def _with_values(document: Document, path: Path, defaults: Mapping[str, str], wanted: Iterable[str]) -> bytes:
    for (key, default), value in zip(defaults.items(), wanted, strict=True):
        document.set_text((*path, key), value, default)
    return document.content
