"""The verb that checks the configuration of a fork."""

import os

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """List what a fork lacks, each with the command that fixes it. Secrets are never printed.

    Reads the installed programs, params.yaml, kustomize/, the DVC remote, the source of deliveries, MLflow, the image
    registry, and GitHub with the token in GITHUB_TOKEN or GH_TOKEN, or that of `gh`. Writes nothing. Exits 1 if
    something is missing. Optional settings, and checks that could not run, are listed as unknown.
    """
    from slipway.doctor.runner import doctor as examine

    if not examine(out, os.environ):
        raise typer.Exit(1)
