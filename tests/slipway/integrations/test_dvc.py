"""The default remote of DVC is embedded if it is a folder of this repository."""

from pathlib import Path

import pytest

from slipway.errors import InputError
from slipway.integrations.dvc import CONFIG, embedded_remote


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CONFIG.parent.mkdir()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("../sample/remote", Path("sample/remote")),
        ("../../elsewhere", None),
        ("s3://deliveries/houses", None),
    ],
)
def test_a_folder_of_the_repository_is_an_embedded_remote(url: str, found: Path | None) -> None:
    CONFIG.write_text(f"[core]\n    remote = Sample\n['remote \"Sample\"']\n    url = {url}\n")
    assert embedded_remote() == found


def test_the_local_configuration_comes_first() -> None:
    CONFIG.write_text("[core]\n    remote = sample\n['remote \"sample\"']\n    url = ../sample/remote\n")
    CONFIG.with_suffix(".local").write_text("[core]\n    remote = ours\n['remote \"ours\"']\n    url = s3://ours\n")
    assert embedded_remote() is None


@pytest.mark.parametrize("text", ["", "[core]\n    remote = sample\n", "[core\n"])
def test_no_default_remote_is_an_error(text: str) -> None:
    CONFIG.write_text(text)
    with pytest.raises(InputError, match="name one with `dvc remote default NAME`"):
        embedded_remote()
