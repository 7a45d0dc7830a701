"""The verb that looks at a fork as a whole."""

import os

import typer

from slipway.cli.terminal import EXIT_CODES, app, out


@app.command(epilog=EXIT_CODES)
def doctor() -> None:
    """Say what a fork still needs, and for each the command that mends it; no secret is ever printed.

    Reads this machine's programs, params.yaml, kustomize/, the DVC remote, the source, MLflow, the registry, and GitHub
    where GITHUB_TOKEN, GH_TOKEN or `gh` has a token. Writes nothing. Exits 1 if something is missing; what could not be
    looked at, and what is optional, is told as unknown.
    """
    from slipway.doctor.runner import doctor as examine

    if not examine(out, os.environ):
        raise typer.Exit(1)
