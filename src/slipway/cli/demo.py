"""The verb that shows it all."""

from typing import Annotated

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def demo(
    deliveries: Annotated[int | None, typer.Option(min=1, help="How many arrive. Default: all of the sample.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Run models in this context of kubectl, or `1` for the current one; local ones only."),
    ] = None,
    cold: Annotated[bool, typer.Option(help="Start each program anew, which takes twice as long.")] = False,
) -> None:
    """Play the whole loop on this machine, under load: deliveries, pull requests, releases, a rollback.

    Reads this repository's last commit and its sample. Writes build/demo/ only: index.html is what was played. In a
    cluster, two namespaces are made, and deleted at the end. Exits 1 if a request failed, or a workflow did.
    """
    from slipway.demo.play import demo as play

    play(out, deliveries, cold, cluster)
