"""What the benchmarks share: an entry point, scratch clones of the last commit, and requirements in words."""

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
    """Exit with the code of a benchmark; an error that a person can cause ends it with one sentence."""
    try:
        sys.exit(main())
    except SlipwayError as error:
        sentence = str(error)
    except FileNotFoundError as error:
        sentence = f"{error.filename} is missing; bring the data here with `.venv/bin/dvc pull`."
    print(f"benchmark: {sentence}", file=sys.stderr)
    sys.exit(2)


def clone(to: Path, *tracked: str, of: Path = REPOSITORY) -> Path:
    """Clone the last commit of a repository, and bring what the .dvc files `tracked` name."""
    process.run("git", "clone", "--quiet", "--no-hardlinks", str(of), str(to))
    process.run("dvc", "pull", "--quiet", *tracked, at=to)
    return to


def environment(repository: Path, *first_on_path: Path) -> dict[str, str]:
    """Programs are those of the running Python unless `first_on_path` has them; the code is that of `repository`."""
    path = os.pathsep.join([*map(str, first_on_path), str(BIN), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "PYTHONPATH": str(repository / "src"), "DVC_NO_ANALYTICS": "1"}


def require(requirements: dict[str, bool]) -> int:
    """Print each requirement and whether it holds; returns the exit code."""
    console.print()
    for requirement, holds in requirements.items():
        console.print(f"[green]holds[/]   {requirement}" if holds else f"[red]MISSED[/]  {requirement}")
    return 0 if all(requirements.values()) else 1
