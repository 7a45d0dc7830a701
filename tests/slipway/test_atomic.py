"""Files and directories are replaced whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slipway import atomic


@pytest.mark.parametrize("folder", [False, True])
def test_a_failing_block_changes_nothing(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "place"
    make(place, "old", folder)

    def fail() -> None:
        with atomic.replacing(place) as fresh:
            make(fresh, "new", folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize("folder", [False, True])
def test_a_successful_block_replaces_everything(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "deep" / "place"
    place.parent.mkdir()
    make(place, "old", folder)
    if folder:
        (place / "stale").write_text("x")
    with atomic.replacing(place) as fresh:
        make(fresh, "new", folder)
        assert read(place) == "old"
    assert read(place) == "new"
    assert not (place / "stale").exists()
    assert [path.name for path in place.parent.iterdir()] == ["place"]


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    make(place, "old", folder=True)
    with pytest.raises(FileNotFoundError), atomic.replacing(place):
        pass
    assert read(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("old")
    script = (
        "import os, signal, sys; from pathlib import Path; from slipway import atomic\n"
        "with atomic.replacing(Path(sys.argv[1])) as fresh:\n"
        "    fresh.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert place.read_text() == "old"


def make(path: Path, text: str, folder: bool) -> None:
    if folder:
        path.mkdir(exist_ok=True)
        path = path / "file"
    path.write_text(text)


def read(path: Path) -> str:
    return (path / "file" if path.is_dir() else path).read_text()
