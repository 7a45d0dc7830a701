"""The verb that checks the configuration of a fork."""

import os

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """List what a fork lacks, and how to fix it: a command to paste, or the place to edit. Secrets are never printed.

    Reads the installed programs, params.yaml, kustomize/, the DVC remote, the source of deliveries, MLflow, the image
    registry, and GitHub with the token in GITHUB_TOKEN or GH_TOKEN, or that of `gh`. Writes nothing. Exits 1 if
    something is missing, but not for optional settings and for checks that could not run.
    """
    from slipway.doctor.runner import doctor as examine

    if not examine(out, os.environ):
        raise typer.Exit(1)
