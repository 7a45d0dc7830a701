"""The verb that checks the configuration of a fork."""

import os

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """List the missing settings of a fork, each with a command to paste or a place to edit. Never prints secrets.

    Reads the installed programs, params.yaml, kustomize/, the DVC remote, the source of deliveries, MLflow, the image
    registry, and GitHub. The token for GitHub is GITHUB_TOKEN, GH_TOKEN or the token of `gh`. Writes nothing. Exits 1
    if a required setting is missing. Optional settings and checks that could not run do not count as missing.
    """
    from slipway.doctor.runner import doctor as examine

    if not examine(out, os.environ):
        raise typer.Exit(1)
