"""The verbs `slipway image ...`: a bundle with its server, for a cluster."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.cli import terminal
from slipway.cli.terminal import EXIT_CODES, output, say

app = typer.Typer(help="The image: a bundle with its server, for a cluster.", no_args_is_help=True)
terminal.app.add_typer(app, name="image")


@app.command(epilog=EXIT_CODES)
def build(
    bundle: Annotated[Path, typer.Argument(help="The folder of a bundle.")] = artifacts.CHAMPION,
    name: Annotated[str, typer.Option(envvar="SLIPWAY_IMAGE", help="Where it would be pushed to.")] = "slipway",
    tag: Annotated[
        str | None, typer.Option(envvar="SLIPWAY_TAG", help="Default: sha- and 12 digits of the commit.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(envvar="SLIPWAY_RUN_BASE", help="Default: BASE in the Dockerfile.")
    ] = None,
    build_base: Annotated[
        str | None, typer.Option(envvar="SLIPWAY_BUILD_BASE", help="Default: BUILD_BASE in the Dockerfile.")
    ] = None,
) -> None:
    """Build the image of a bundle, with Docker or Podman.

    Reads the bundle, the last commit, champion.dvc, dvc.lock; DOCKER_HOST, and the PIP_* variables that name a mirror.
    Writes the image into the engine, labelled with its lineage, and build/image.tar, which it is made from. Exits 1 if
    what goes into it is not as in the last commit.
    """
    from slipway.release import candidate as candidates
    from slipway.release import image as release

    bases = {name: value for name, value in {"BASE": base, "BUILD_BASE": build_base}.items() if value}
    of_candidate = bundle.resolve() == candidates.BUNDLE.resolve()
    lineage = candidates.lineage(candidates.read()) if of_candidate else release.read_lineage(bundle)
    built = release.build(bundle, lineage, name, tag, bases)
    say("image", f"{built.name} built: {built.bytes / 1e6:,.0f} MB with its base, bundle {built.lineage.bundle:.12}")


@app.command(epilog=EXIT_CODES)
def push(name: Annotated[str, typer.Argument(metavar="IMAGE", help="As `slipway image build` names it.")]) -> None:
    """Push an image to the registry that its name says.

    Reads the engine that DOCKER_HOST names, and its logins. Writes the digest to GITHUB_OUTPUT, if there is one.
    """
    from slipway.release import image as release

    digest = release.push(name)
    output({"digest": digest})
    say("push", f"{name} is {digest}")


@app.command(epilog=EXIT_CODES)
def smoke(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="As `slipway image build` names it.")],
    bundle: Annotated[Path | None, typer.Option(help="Demand this bundle. Default: what the image has.")] = None,
) -> None:
    """Try an image as the cluster will run it.

    Reads the image from the engine that DOCKER_HOST names; runs it read-only, without capabilities, as some user.
    Writes nothing. Exits 1 at the first check that fails: start, user, lineage, golden rows, no dropped request.
    """
    from slipway.release.smoke import smoke as checks

    for passed in checks(name, bundle):
        say("smoke", escape(passed))
