"""Running git and DVC. Programs that are given a token are started by `slipway.integrations.isolated_subprocess`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from slipway.errors import InputError


class Failed(InputError):
    """A program ended with an error; `printed` is all that it said."""

    def __init__(self, sentence: str, printed: str) -> None:
        super().__init__(sentence)
        self.printed = printed


def run(*command: str, at: Path = Path(), variables: Mapping[str, str] | None = None) -> str:
    """Run a program in the folder `at`, quietly, with more variables, and return what it printed.

    Raises Failed with the program's own last words if it fails, and InputError where there is no such program.
    """
    environment = {**_environment(at), **(variables or {})}
    resolved = _resolved(command)
    if shutil.which(resolved[0], path=environment["PATH"]) is None:
        raise InputError(f"There is no program {resolved[0]} on the path; install it.")
    done = subprocess.run(resolved, cwd=at, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise Failed(f"`{' '.join(command)}` failed: {words}", done.stdout + done.stderr)
    return done.stdout.strip()


def show(*command: str, at: Path = Path()) -> int:
    """Run a program that prints to the terminal as it goes; returns its exit code."""
    return subprocess.run(_resolved(command), cwd=at, env=_environment(at), check=False).returncode


def tee(*command: str) -> tuple[int, str]:
    """Run a program that prints to the terminal as it goes; returns its exit code and what it printed."""
    printed = []
    with subprocess.Popen(
        _resolved(command), env=_environment(Path()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            printed.append(line)
    return process.returncode, "".join(printed)


def _resolved(command: tuple[str, ...]) -> list[str]:
    """DVC and slipway are those of the running Python, whether or not its environment is active."""
    program = Path(sys.executable).parent / command[0]
    return [str(program) if program.exists() else command[0], *command[1:]]


def _environment(at: Path) -> dict[str, str]:
    """The stages find `slipway` on the path, and the code of the repository at `at` before any that is installed."""
    return os.environ | {
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str((at / "src").resolve()),
    }
