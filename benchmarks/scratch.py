"""Run a benchmark, create scratch clones of the last commit, and print the requirements of a benchmark."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from slipway.errors import SlipwayError
from slipway.integrations import process

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
console = Console(highlight=False, width=120)


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark and exit with its exit code. Print one sentence for an error that a user can cause."""
    try:
        sys.exit(main())
    except SlipwayError as error:
        sentence = str(error)
    except FileNotFoundError as error:
        sentence = f"{error.filename} is missing; download the data with `.venv/bin/dvc pull`."
    print(f"benchmark: {sentence}", file=sys.stderr)
    sys.exit(2)


def clone(to: Path, *tracked: str, of: Path = REPOSITORY) -> Path:
    """Clone the last commit of a repository, and pull the data that the .dvc files `tracked` describe."""
    process.run("git", "clone", "--quiet", "--no-hardlinks", str(of), str(to))
    process.run("dvc", "pull", "--quiet", *tracked, at=to)
    return to


def environment(repository: Path, *first_on_path: Path) -> dict[str, str]:
    """Return environment variables for running `slipway` with the code of `repository`.

    Programs are found in `first_on_path` first, then next to the running Python.
    """
    path = os.pathsep.join([*map(str, first_on_path), str(BIN), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(repository / "src"), "DVC_NO_ANALYTICS": "1"}


@dataclass(frozen=True)
class Usage:
    """The time, the peak memory in bytes, and the output of a finished process."""

    seconds: float
    cpu_seconds: float
    memory: float
    output: str


def run_measured(
    repository: Path, *command: str | os.PathLike[str], in_child: Callable[[], None] | None = None
) -> Usage:
    """Run a command in a scratch clone, and measure it.

    `in_child` is called in the new process before the command starts.

    Raises SlipwayError with the output of the command if it fails.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            command,
            cwd=repository,
            env=environment(repository),
            stdout=printed,
            stderr=printed,
            preexec_fn=in_child,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        output = printed.read()
    if process.returncode:
        words = " ".join([Path(command[0]).name, *map(str, command[1:])])
        raise SlipwayError(f"`{words}` failed:\n{output}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Usage(time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, output)


def require(requirements: dict[str, bool]) -> int:
    """Print for each requirement whether it holds. Return the exit code."""
    console.print()
    for requirement, holds in requirements.items():
        console.print(f"[green]holds[/]   {requirement}" if holds else f"[red]MISSED[/]  {requirement}")
    return 0 if all(requirements.values()) else 1
