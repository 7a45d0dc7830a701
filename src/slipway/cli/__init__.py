"""The command `slipway`: one verb per step. People, the Makefile and the workflows call only these verbs."""

import sys
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli import doctor, image, init, monitoring, pipeline, release, review, serving
from slipway.cli.terminal import app, err
from slipway.errors import SlipwayError

PACKAGES = (pipeline, review, release, image, serving, monitoring, init, doctor)
app.registered_commands.sort(
    key=lambda verb: [package.__name__ for package in PACKAGES].index(verb.callback.__module__)
)


@app.callback()
def options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Options of every verb come before it."""
    # `main` reads --debug from the command line, because it has to work for errors raised here too.


def main() -> None:
    """Run a verb; an error that a person can cause ends it with one sentence."""
    try:
        app(standalone_mode=True)
    except SlipwayError as error:
        if "--debug" in sys.argv:
            raise
        err.print(f"[red]slipway:[/] {escape(str(error))}")
        sys.exit(error.exit_code)
    except Exception as error:  # a mistake of ours; even so, exit code 1 must mean that a check said no
        if "--debug" in sys.argv:
            raise
        words = f"{type(error).__name__}: {error}".splitlines()[0]
        err.print(f"[red]slipway:[/] unexpected {escape(words)}; `slipway --debug` shows where, please report it.")
        sys.exit(2)
