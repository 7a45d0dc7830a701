"""Files and directories are replaced whole or not at all."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

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


STOPPED = """\
import sys, time
from pathlib import Path
from typing import Any
from slipway import atomic
with atomic.replacing(Path(sys.argv[1])) as fresh:
    fresh.mkdir()
    (fresh / "file").write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


def test_leftovers_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    place = tmp_path / "place"
    make(place, "old", folder=True)
    writers = [
        subprocess.Popen([sys.executable, "-c", STOPPED, str(place)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert [writer.stdout.readline() for writer in writers if writer.stdout] == ["ready\n"] * 2
        writers[0].kill()
        writers[0].wait()
        assert len([*tmp_path.glob(".place.*")]) == 2
        atomic.remove_leftovers(place)
        (workspace,) = tmp_path.glob(".place.*")
        assert (workspace / "place/file").read_text() == "half"
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    atomic.remove_leftovers(place)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_directory_is_restored_if_the_process_was_killed_between_both_renames(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (tmp_path / ".place.0.partial").mkdir()
    make(tmp_path / ".place.0.partial/replaced", "old", folder=True)
    atomic.remove_leftovers(place)
    assert read(place) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_directory_that_is_removed_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, remove = tempfile.mkdtemp, [True]

    def removed(**options: Any) -> str:
        workspace: str = made(**options)
        if remove:
            remove.clear()
            Path(workspace).rmdir()
        return workspace

    monkeypatch.setattr(tempfile, "mkdtemp", removed)
    atomic.write_text(tmp_path / "place", "new")
    assert (tmp_path / "place").read_text() == "new"
