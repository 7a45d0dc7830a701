"""The provenance of an image is true: it is built from the last commit. No engine is needed here."""

import shutil
from pathlib import Path

import pytest

from slipway.bundle import GOLDEN
from slipway.release.image import provenance_of
from tests.slipway.conftest import Repository


@pytest.fixture(scope="module")
def pulled(origin: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = origin.clone(tmp_path_factory.mktemp("pulled") / "repository")
    repository.must("dvc", "pull", "--quiet", "champion")
    return repository


@pytest.fixture
def repository(pulled: Repository, tmp_path: Path) -> Repository:
    """A clone with the champion, without a container engine."""
    repository = Repository(shutil.copytree(pulled.path, tmp_path / "repository", symlinks=True))
    repository.environment["DOCKER_HOST"] = "unix:///nowhere.sock"
    return repository


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        *(
            (file, f"{file} differs from the last commit")
            for file in (
                "src/slipway/serving/settings.py",
                "src/slipway/serving/new.py",
                "src/slipway/bundle.py",
                "src/slipway/provenance.py",
                "requirements/serve.txt",
                "Dockerfile",
                "dvc.lock",
            )
        ),
        (f"champion/{GOLDEN}", "but champion.dvc names"),
    ],
)
def test_build_refuses_a_file_that_is_not_committed(repository: Repository, file: str, sentence: str) -> None:
    change(repository.path / file)
    result = repository.run("slipway", "image", "build")
    assert result.code == 1
    assert sentence in result.err


def test_build_refuses_a_champion_that_is_not_committed(repository: Repository) -> None:
    change(repository.path / "champion" / GOLDEN)
    repository.must("dvc", "add", "--quiet", "champion")
    result = repository.run("slipway", "image", "build")
    assert result.code == 1
    assert "champion.dvc differs from the last commit" in result.err


def test_build_names_a_missing_champion(repository: Repository) -> None:
    shutil.rmtree(repository.path / "champion")
    result = repository.run("slipway", "image", "build")
    assert result.code == 2
    assert "champion/schema.json is missing" in result.err


def test_build_ignores_changes_outside_of_the_image(repository: Repository) -> None:
    change(repository.path / "README.md")
    change(repository.path / "src/slipway/cli/image.py")
    result = repository.run("slipway", "image", "build")
    assert result.code == 2
    assert "No container engine answers at unix:///nowhere.sock" in result.err


def test_data_is_unknown_for_a_bundle_that_the_last_run_did_not_make(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.path)
    provenance = provenance_of(Path("champion"))
    assert f"{provenance.data}.dir" in Path("data.dvc").read_text()
    shutil.copytree("champion", "other")
    change(Path("other", GOLDEN))
    other = provenance_of(Path("other"))
    assert other.data is None
    assert other.bundle != provenance.bundle


def change(file: Path) -> None:
    """Append an empty line: the same meaning, other bytes."""
    with file.open("a") as text:
        text.write("\n")
