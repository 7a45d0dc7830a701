"""A repository on the fake of GitHub for each test, with this working tree as its `main`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.fakes.github_repo import GitHubRepo
from demo.fakes.github_server import GitHub, State
from tests.slipway.conftest import Repository
from tests.slipway.end_to_end.image.conftest import bases, images, podman  # noqa: F401 (fixtures)
from tests.slipway.review.conftest import report  # noqa: F401 (a fixture)


@pytest.fixture(scope="session")
def start(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return a clone whose test suite passes at once, because these tests are part of it."""
    repository = origin.clone(tmp_path_factory.mktemp("start") / "repository")
    (repository.path / ".ci/run").write_text("echo 'All tests pass.'\n")
    repository.commit("Test nothing")
    return repository


@contextmanager
def serving(start: Repository, warm_environment: Path, folder: Path) -> Iterator[GitHubRepo]:
    with GitHub(State(), folder).serving() as github:
        yield GitHubRepo(folder, start.path, github, settings={"FAKE_VENV": str(warm_environment)})


@pytest.fixture
def repo(start: Repository, warm_environment: Path, tmp_path: Path) -> Iterator[GitHubRepo]:
    with serving(start, warm_environment, tmp_path) as repo:
        yield repo
