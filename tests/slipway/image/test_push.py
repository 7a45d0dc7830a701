"""An image is pushed to a real registry, and tried there by its digest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slipway.conftest import Result
from tests.slipway.image.conftest import Built, Engine

Run = Callable[..., Result]


@pytest.fixture
def tagged(podman: Engine, built: Built, images: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The image of the champion under a name in the registry."""
    monkeypatch.setenv("DOCKER_HOST", podman.host)
    name = f"{images}/team/houses"
    podman.client.images.get(built.name).tag(name, "sha-0")
    return name


def test_what_was_pushed_is_known_by_its_digest(
    tagged: str, slipway: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    result = slipway("image", "push", f"{tagged}:sha-0")
    assert result.code == 0, result.err
    digest = (tmp_path / "output").read_text().strip().removeprefix("digest=")
    assert digest in result.out
    assert len(digest) == len("sha256:") + 64
    tried = slipway("image", "smoke", f"{tagged}@{digest}")
    assert tried.code == 0, tried.err


def test_a_registry_that_is_not_there(tagged: str, podman: Engine, slipway: Run) -> None:
    podman.client.images.get(f"{tagged}:sha-0").tag("localhost:1/team/houses", "sha-0")
    result = slipway("image", "push", "localhost:1/team/houses:sha-0")
    assert result.code == 2
    assert "localhost:1/team/houses:sha-0 cannot be pushed" in result.err


@pytest.mark.usefixtures("tagged")
def test_what_is_not_built_is_not_pushed(slipway: Run) -> None:
    result = slipway("image", "push", "localhost:1/team/nothing:sha-0")
    assert (result.code, "cannot be pushed" in result.err) == (2, True)


@pytest.mark.usefixtures("tagged")
def test_another_digest_is_not_tried(images: str, slipway: Run) -> None:
    result = slipway("image", "smoke", f"{images}/team/houses@sha256:{'0' * 64}")
    assert (result.code, "The engine has no image" in result.err) == (2, True)
