"""Write files and directories completely or not at all: write them next to their target, and then rename them."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
REPLACED = "replaced"
"""Name of the old directory in the temporary directory."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path. At the end of the `with` block, the file or directory at this path replaces `path`.

    If the block fails or the process is killed, `path` stays unchanged. There is one exception: replacing a directory
    takes two renames. If the process is killed between the renames, `path` is missing. The old directory is then next
    to `path`, in a directory whose name ends in `.partial`. `remove_leftovers` restores it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    workspace, lock = _locked_workspace(path)
    fresh, replaced = workspace / path.name, workspace / REPLACED
    try:
        yield fresh
        if path.is_dir():
            # A directory cannot be renamed to the name of a directory with files, so the old directory is moved first.
            path.replace(replaced)
        fresh.replace(path)
    except BaseException:
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        os.close(lock)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary directories of killed processes next to `path`. The directories of running processes stay.

    If a process was killed between the two renames of a directory, the old directory is restored.
    """
    for workspace in path.parent.glob(f".{path.name}.*{PARTIAL}"):
        if workspace.is_symlink() or (lock := _lock(workspace)) is None:
            continue
        replaced = workspace / REPLACED
        if replaced.exists() and not path.exists():
            replaced.replace(path)
        shutil.rmtree(workspace, ignore_errors=True)
        os.close(lock)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Lock a directory during the `with` block. Yield False if another process has locked it.

    On a file system without locks, the directory is used without a lock.
    """
    try:
        lock = _lock(folder)
        is_free = lock is not None
    except OSError:
        lock, is_free = None, True
    try:
        yield is_free
    finally:
        if lock is not None:
            os.close(lock)


def _locked_workspace(path: Path) -> tuple[Path, int]:
    """Make a directory next to `path`, and lock it until this process ends. Return the directory and its descriptor."""
    while True:
        workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
        if (lock := _lock(workspace)) is not None:
            return workspace, lock


def _lock(folder: Path) -> int | None:
    """Lock a directory, and return its file descriptor. Return None if another process has locked or removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == folder.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, completely or not at all."""
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
