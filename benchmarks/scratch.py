"""Run a benchmark, create scratch clones of the last commit, and print the requirements of a benchmark."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from slipway.errors import SlipwayError
from slipway.integrations import process

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
console = Console(highlight=False, width=120)


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark and exit with its code. Print one sentence for an error that a person can cause."""
    try:
        sys.exit(main())
    except SlipwayError as error:
        sentence = str(error)
    except FileNotFoundError as error:
        sentence = f"{error.filename} is missing; download the data with `.venv/bin/dvc pull`."
    print(f"benchmark: {sentence}", file=sys.stderr)
    sys.exit(2)


def clone(to: Path, *tracked: str, of: Path = REPOSITORY) -> Path:
    """Clone the last commit of a repository, and pull the data of the .dvc files `tracked`."""
    process.run("git", "clone", "--quiet", "--no-hardlinks", str(of), str(to))
    process.run("dvc", "pull", "--quiet", *tracked, at=to)
    return to


def environment(repository: Path, *first_on_path: Path) -> dict[str, str]:
    """Return environment variables for running `slipway` with the code of `repository`.

    Programs are found in `first_on_path` first, then next to the running Python.
    """
    path = os.pathsep.join([*map(str, first_on_path), str(BIN), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(repository / "src"), "DVC_NO_ANALYTICS": "1"}


def require(requirements: dict[str, bool]) -> int:
    """Print for each requirement whether it holds. Return the exit code."""
    console.print()
    for requirement, holds in requirements.items():
        console.print(f"[green]holds[/]   {requirement}" if holds else f"[red]MISSED[/]  {requirement}")
    return 0 if all(requirements.values()) else 1
