"""Pin the base images of the Dockerfile by digest, so that each build of a commit uses the same base images."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slipway import atomic
from slipway.errors import InputError
from slipway.integrations.image_registry import digest_of

DOCKERFILE = Path("Dockerfile")
FROM = re.compile(r"^(FROM +(?:--\S+ +)*)(\S+)(?=(?: +AS +(\S+))?)", re.MULTILINE | re.IGNORECASE)
"""Matches a FROM line. Group 2 is the base image or an earlier stage. Group 3 is the name of the new stage."""


@dataclass(frozen=True)
class Base:
    """A base image in the Dockerfile: NAME:TAG, and the digest if the image is pinned."""

    name: str
    digest: str


def base_images() -> list[Base]:
    """Return the base images in the Dockerfile. Leave out `scratch`, earlier stages, and names with a variable."""
    return list(dict.fromkeys(base for _, base in _bases(_read())))


def pin() -> list[Base]:
    """Pin each base image in the Dockerfile to its current digest in the registry. Return the pinned images.

    Raises InputError if a registry does not answer. In this case, the Dockerfile stays unchanged.
    """
    text = _read()
    names = dict.fromkeys(base.name for _, base in _bases(text))
    pinned = {name: Base(name, digest_of(name)) for name in names}
    parts, end = [], 0
    for found, base in _bases(text):
        parts += [text[end : found.start(2)], f"{base.name}@{pinned[base.name].digest}"]
        end = found.end(2)
    atomic.write_text(DOCKERFILE, "".join([*parts, text[end:]]))
    return list(pinned.values())


def _read() -> str:
    try:
        return DOCKERFILE.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{DOCKERFILE} is missing; restore it with `git checkout {DOCKERFILE}`.") from None


def _bases(text: str) -> Iterator[tuple[re.Match[str], Base]]:
    stages = {"scratch"}
    for found in FROM.finditer(text):
        name, _, digest = found[2].partition("@")
        if name not in stages and "$" not in name:
            yield found, Base(name, digest)
        if found[3]:
            stages.add(found[3])
