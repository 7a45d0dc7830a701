"""A forge of its own for each test, with this working tree as its `main`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.fakes.github_server import GitHub, State
from tests.slipway.conftest import Repository
from tests.slipway.image.conftest import bases, images, podman  # noqa: F401 (fixtures)
from tests.slipway.review.conftest import report  # noqa: F401 (a fixture)
from tests.slipway.workflows.forge import Forge


@pytest.fixture(scope="session")
def start(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The repository without its tests."""
    repository = origin.clone(tmp_path_factory.mktemp("start") / "repository")
    (repository.path / ".ci/run").write_text("echo 'All tests pass.'\n")
    repository.commit("Test nothing")
    return repository


@pytest.fixture
def forge(start: Repository, warm_environment: Path, tmp_path: Path) -> Iterator[Forge]:
    with GitHub(State(), tmp_path).serving() as github:
        yield Forge(tmp_path, start.path, github, FORGE_VENV=str(warm_environment))
