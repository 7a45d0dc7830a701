"""The Typer application of all verbs, and functions that the verbs share, for example to print to the terminal."""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from slipway import artifacts
from slipway.config import Params, load_params
from slipway.errors import InputError
from slipway.integrations import process
from slipway.integrations.actions import write_outputs
from slipway.integrations.compute import Engine

EXIT_CODES = "Exit codes: 0 success, 1 a check failed or the verdict is hold, 2 invalid input or another error."
WITHOUT_REPOSITORY = {"serve", "image", "ship-log", "erase-log"}
"""Verbs that also work outside of a git repository."""
Given = TypeVar("Given", Path | None, list[Path] | None)
Address = TypeVar("Address", str, str | None)

app = typer.Typer(
    help=f"Ship machine-learning models by merging pull requests.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def enter_repository(verb: str | None) -> Path:
    """Change to the top of the git repository, and return the directory where the user started.

    All paths in the code of Slipway are relative to the top of the repository. Raises InputError outside of a git
    repository, except for the verbs in `WITHOUT_REPOSITORY`.
    """
    start = Path.cwd()
    if artifacts.PARAMS.is_file():
        return start
    try:
        os.chdir(process.run("git", "rev-parse", "--show-toplevel"))
    except InputError as error:  # not a repository, or an image without git
        if verb not in WITHOUT_REPOSITORY and "--help" not in sys.argv:
            reason = getattr(error, "message", str(error))
            raise InputError(f"{start} is not in a git repository ({reason}); change to your clone.") from None
    return start


def from_start(context: typer.Context, given: Given) -> Given:
    """Convert paths relative to the user's directory to paths relative to the top of the repository."""
    start = context.find_root().obj
    if isinstance(given, list):
        return [_relative(start, path) for path in given]
    return _relative(start, given) if given else None


def address_from_start(context: typer.Context, given: Address) -> Address:
    """Convert a path as `from_start` does. Return a URL unchanged."""
    return given if not given or "://" in given else str(_relative(context.find_root().obj, Path(given)))


def _relative(start: Path, path: Path) -> Path:
    return path if path.is_absolute() or start == Path.cwd() else Path(os.path.relpath(start / path))


def read_params() -> Params:
    """Read params.yaml of this repository."""
    return load_params(artifacts.PARAMS)


def engine_of(params: Params) -> Engine:
    """Return the engine that runs independent parts of the work, as the section `compute` of params.yaml defines."""
    return Engine(params.compute.processes, params.compute.address)


def today() -> date:
    """Return today's date in UTC, so that it does not depend on the time zone of the machine."""
    return datetime.now(UTC).date()


def say(step: str, text: str) -> None:
    """Print one line about a step of a verb. `text` is Rich markup."""
    out.print(f"[bold]{step:>9}[/]  {text}")


def say_reasons(reasons: Mapping[str, int], noun: str = "row") -> None:
    """Print the number of quarantined rows for each reason."""
    for reason, rows in reasons.items():
        say("", f"[dim]{rows:,} {noun}{'s' * (rows != 1)}: {escape(reason)}[/]")


def output(values: Mapping[str, str]) -> None:
    """Set outputs of the current step in a GitHub workflow. Outside of a workflow, do nothing."""
    write_outputs(values, os.environ)
