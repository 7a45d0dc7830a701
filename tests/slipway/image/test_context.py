"""What goes into an image is what its lineage says. No engine is needed to find that out."""

import shutil
from pathlib import Path

import pytest

from slipway.bundle import GOLDEN
from slipway.release.image import read_lineage
from tests.slipway.conftest import Repository


@pytest.fixture(scope="module")
def pulled(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = origin.clone(tmp_path_factory.mktemp("pulled") / "repository")
    repository.must("dvc", "pull", "--quiet", "champion")
    return repository


@pytest.fixture
def repository(pulled: Repository, tmp_path: Path) -> Repository:
    """A clone with the champion, and no engine."""
    repository = Repository(shutil.copytree(pulled.path, tmp_path / "repository", symlinks=True))
    repository.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
    return repository


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        *(
            (file, f"{file} is not as in the last commit")
            for file in (
                "src/slipway/serving/settings.py",
                "src/slipway/serving/new.py",
                "src/slipway/bundle.py",
                "requirements/serve.txt",
                "Dockerfile",
                "dvc.lock",
            )
        ),
        (f"champion/{GOLDEN}", "and champion.dvc says"),
    ],
)
def test_a_lineage_that_would_not_be_true_is_refused(repository: Repository, file: str, sentence: str) -> None:
    change(repository.path / file)
    result = repository.run("slipway", "image", "build")
    assert result.code == 1
    assert sentence in result.err


def test_a_champion_that_is_not_committed_is_refused(repository: Repository) -> None:
    change(repository.path / "champion" / GOLDEN)
    repository.must("dvc", "add", "--quiet", "champion")
    result = repository.run("slipway", "image", "build")
    assert result.code == 1
    assert "champion.dvc is not as in the last commit" in result.err


def test_a_champion_that_is_not_here_is_named(repository: Repository) -> None:
    shutil.rmtree(repository.path / "champion")
    result = repository.run("slipway", "image", "build")
    assert result.code == 2
    assert "champion/schema.json is missing" in result.err


def test_what_the_image_does_not_have_may_change(repository: Repository) -> None:
    change(repository.path / "README.md")
    change(repository.path / "src/slipway/cli/image.py")
    result = repository.run("slipway", "image", "build")
    assert result.code == 2
    assert "No container engine answers at unix:///nowhere.sock" in result.err


def test_no_data_is_named_for_a_bundle_that_the_pipeline_did_not_make(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.path)
    lineage = read_lineage(Path("champion"))
    assert f"{lineage.data}.dir" in Path("data.dvc").read_text()
    shutil.copytree("champion", "other")
    change(Path("other", GOLDEN))
    other = read_lineage(Path("other"))
    assert other.data is None
    assert other.bundle != lineage.bundle


def change(file: Path) -> None:
    """Same meaning, other bytes."""
    with file.open("a") as text:
        text.write("\n")
