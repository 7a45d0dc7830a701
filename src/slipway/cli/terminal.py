"""What every verb shares: the application it belongs to, the terminal, and what each starts from."""

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime

import typer
from rich.console import Console

from slipway import artifacts
from slipway.config import Params, load_params
from slipway.integrations.actions import write_outputs

EXIT_CODES = "Exit codes: 0 done, 1 a check or verdict said no, 2 bad input."

app = typer.Typer(
    help=f"Ship machine-learning models by merging pull requests. Run it at the top of the repository.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def read_params() -> Params:
    """params.yaml of this repository."""
    return load_params(artifacts.PARAMS)


def today() -> date:
    """In UTC, so that it is the same day for everybody."""
    return datetime.now(UTC).date()


def say(step: str, text: str) -> None:
    """A line on what a step has done; `text` is markup."""
    out.print(f"[bold]{step:>9}[/]  {text}")


def output(values: Mapping[str, str]) -> None:
    """Set outputs of the current step in a GitHub workflow. Elsewhere, do nothing."""
    write_outputs(values, os.environ)
