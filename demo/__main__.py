"""Define the command `python -m demo`, which `make demo` runs."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from demo.command import demo
from slipway.errors import SlipwayError

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def command(
    deliveries: Annotated[
        int | None, typer.Option(min=1, help="Number of deliveries. Default: all deliveries of the sample.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="CONTEXT", help="Local kubectl context to run the models in. `1` means the current context."
        ),
    ] = None,
    cold: Annotated[
        bool, typer.Option(help="Start each program as a new process. The demo then takes twice as long.")
    ] = False,
) -> None:
    """Run the whole loop locally, under load: deliveries, pull requests, releases and a rollback.

    Reads the last commit of this repository and its sample. Writes only to build/demo/. Open index.html there for the
    result. With --cluster, creates two namespaces and deletes them at the end. Exits 1 if a request or a workflow
    fails.
    """
    demo(console, deliveries, cold, cluster)


def main() -> None:
    """Run the command. Print one sentence instead of a traceback for an error that a user can cause."""
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(command)
    try:
        application()
    except SlipwayError as error:
        errors.print(f"[red]demo:[/] {escape(str(error))}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
