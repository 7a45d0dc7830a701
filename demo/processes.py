"""Start programs in a `with` block, and end programs with their descendants."""

import contextlib
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

GRACE_SECONDS = 5
"""Time between SIGTERM and SIGKILL."""


@contextmanager
def started(
    command: Sequence[str], at: Path, environment: Mapping[str, str], **streams: Any
) -> Generator["subprocess.Popen[str]", None, None]:
    """Start a program, and wait for it at the end of the block.

    The program runs in a new session, so that Ctrl-C does not reach it. If the block raises an error, the program and
    its descendants are ended.
    """
    with subprocess.Popen(command, cwd=at, env=environment, text=True, start_new_session=True, **streams) as program:
        try:
            yield program
        except BaseException:
            end(program.pid)
            raise


def end(identity: int) -> None:
    """End a program and its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(identity)
        _end([first, *first.children(recursive=True)])


def end_all() -> None:
    """End every descendant of this process."""
    _end(psutil.Process().children(recursive=True))


def _end(family: list[psutil.Process]) -> None:
    for each in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()
    for each in psutil.wait_procs(family, timeout=GRACE_SECONDS)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
