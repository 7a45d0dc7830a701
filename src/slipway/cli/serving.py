"""The verb that answers over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from slipway import artifacts
from slipway.cli.terminal import EXIT_CODES, app


@app.command(epilog=EXIT_CODES)
def serve(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")] = artifacts.CHAMPION,
    host: Annotated[str | None, typer.Option(help="Default: SLIPWAY_HOST, or this machine only.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: SLIPWAY_PORT, or 8080.")] = None,
) -> None:
    """Answer over HTTP with a bundle, as the image does.

    Reads the bundle and the variables SLIPWAY_* of the environment (`slipway.serving.settings`). Writes JSON lines to
    the standard output. SIGTERM drains it; it exits 0.
    """
    from slipway.serving.server import serve as run
    from slipway.serving.settings import read_settings

    settings = read_settings(os.environ)
    given = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    run(bundle, settings.model_copy(update=given))
