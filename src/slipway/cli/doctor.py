"""The verb that checks the configuration of a fork."""

import os

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """List the missing settings of this fork. For each setting, print a command to run or a place to edit.

    Reads the installed programs, params.yaml, kustomize/, the DVC remote, the source of deliveries, MLflow, the image
    registry, and GitHub. Logs in to GitHub with GITHUB_TOKEN, GH_TOKEN or the token of `gh`. Writes nothing, and never
    prints secrets. Exits 1 if a required setting is missing. Exits 0 if only optional settings are missing, or if a
    check could not run.
    """
    from slipway.doctor.runner import doctor as examine

    if not examine(out, os.environ):
        raise typer.Exit(1)
