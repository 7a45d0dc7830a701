"""Programs that end with the block that started them, with whatever they have started themselves."""

import contextlib
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 5
"""Seconds between asking a program to end and ending it."""


@contextmanager
def started(
    command: Sequence[str], at: Path, environment: Mapping[str, str], **streams: Any
) -> Generator["subprocess.Popen[str]", None, None]:
    """Run a program in a session of its own, where Ctrl-C does not reach it, until it ends or the block does.

    Where the block is left by an error, or while it runs still, it is ended, and all that it started.
    """
    with subprocess.Popen(command, cwd=at, env=environment, text=True, start_new_session=True, **streams) as program:
        try:
            yield program
        except BaseException:
            end(program.pid)
            raise


def end(identity: int) -> None:
    """End a program and its descendants; those which do not are killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(identity)
        _end([first, *first.children(recursive=True)])


def end_all() -> None:
    """End whatever this process has started, directly or not."""
    _end(psutil.Process().children(recursive=True))


def _end(family: list[psutil.Process]) -> None:
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    for each in psutil.wait_procs(family, timeout=PATIENCE)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
