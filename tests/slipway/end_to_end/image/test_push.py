"""`slipway image push` and `slipway image smoke NAME@DIGEST` with a real engine and a real registry."""

from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.slipway.conftest import Result
from tests.slipway.end_to_end.image import fake_bases
from tests.slipway.end_to_end.image.conftest import Built, Engine

Run = Callable[..., Result]


@pytest.fixture
def named(
    podman: Engine, built: Built, images: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """The image of the champion, built under its name in the registry as the workflow `Ship` builds it."""
    monkeypatch.setenv("DOCKER_HOST", podman.host)
    name = f"{images}/team/{request.node.name.replace('_', '-')}"
    fake_bases.build(podman.client, f"{name}:sha-0", [f"FROM {built.name}", f"LABEL test={request.node.name}"])
    return name


def local_digest(podman: Engine, name: str) -> str:
    """Return the digest of an image in the engine, which is of its uncompressed manifest."""
    known = [each.partition("@") for each in podman.client.images.get(f"{name}:sha-0").attrs["RepoDigests"]]
    (digest,) = [digest for repository, _, digest in known if repository == name]
    return str(digest)


def registry_has(name: str, digest: str) -> bool:
    host, _, repository = name.partition("/")
    return requests.head(f"http://{host}/v2/{repository}/manifests/{digest}", timeout=10).status_code == 200


def test_push_returns_the_digest_that_the_registry_has(
    named: str, podman: Engine, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    of_the_engine = local_digest(podman, named)
    result = slipway("image", "push", f"{named}:sha-0")
    assert result.code == 0, result.err
    digest = (tmp_path / "output").read_text().strip().removeprefix("digest=")
    assert digest in result.out
    assert registry_has(named, digest)
    assert not registry_has(named, of_the_engine)
    smoked = slipway("image", "smoke", f"{named}@{digest}")
    assert smoked.code == 0, smoked.err


def test_smoke_refuses_a_digest_that_only_the_engine_has(named: str, podman: Engine, slipway: Run) -> None:
    podman.client.images.push(f"{named}:sha-0")
    result = slipway("image", "smoke", f"{named}@{local_digest(podman, named)}")
    assert result.code == 2
    assert "cannot be pulled" in result.err
    assert "manifest unknown" in result.err.lower()


def test_smoke_refuses_a_digest_that_does_not_exist(named: str, slipway: Run) -> None:
    result = slipway("image", "smoke", f"{named}@sha256:{'0' * 64}")
    assert (result.code, "cannot be pulled" in result.err) == (2, True)


def test_push_names_a_registry_that_does_not_answer(named: str, podman: Engine, slipway: Run) -> None:
    podman.client.images.get(f"{named}:sha-0").tag("localhost:1/team/houses", "sha-0")
    result = slipway("image", "push", "localhost:1/team/houses:sha-0")
    assert result.code == 2
    assert "localhost:1/team/houses:sha-0 cannot be pushed" in result.err


@pytest.mark.usefixtures("named")
def test_push_names_an_image_that_was_not_built(slipway: Run) -> None:
    result = slipway("image", "push", "localhost:1/team/nothing:sha-0")
    assert (result.code, "cannot be pushed" in result.err) == (2, True)
