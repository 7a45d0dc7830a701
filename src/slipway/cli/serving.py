"""The verb that serves predictions over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from slipway import artifacts
from slipway.cli.terminal import EXIT_CODES, app, from_start


@app.command(epilog=EXIT_CODES)
def serve(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", help=f"Directory of the bundle. Default: {artifacts.CHAMPION}.", callback=from_start
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: SLIPWAY_HOST, or 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port to listen on. Default: SLIPWAY_PORT, or 8080.")
    ] = None,
) -> None:
    """Serve a bundle (the directory of one trained model) over HTTP. The image of the bundle starts the same server.

    Reads the bundle and the environment variables SLIPWAY_*. Writes logs as JSON lines to the standard output. After
    SIGTERM, answers all open requests and exits 0. Exits 2 if the bundle or a setting is invalid.
    """
    from slipway.serving.server import serve as run
    from slipway.serving.settings import read_settings

    given = {"SLIPWAY_HOST": host, "SLIPWAY_PORT": port}
    settings = read_settings({**os.environ, **{name: str(value) for name, value in given.items() if value is not None}})
    bundle = bundle or artifacts.champion_path(
        "merge a pull request to release one, or run `slipway serve build/bundle` for the bundle of the pipeline"
    )
    run(bundle, settings)
