"""The verbs `slipway image ...`: build, push and test the image of a bundle and its server, and pin its base images."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.cli import terminal
from slipway.cli.terminal import EXIT_CODES, from_start, output, say

app = typer.Typer(help="Build, push and test the image of a bundle and its server.", no_args_is_help=True)
terminal.app.add_typer(app, name="image")


@app.command(epilog=EXIT_CODES)
def build(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", help=f"Directory of a bundle. Default: {artifacts.CHAMPION}.", callback=from_start
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the image, without a tag. Default: slipway, or release.image for the candidate."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Tag. Default: `sha-` followed by the first 12 digits of the commit.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            envvar="SLIPWAY_RUN_BASE", help="Base image. Default: the base of the stage `server` in the Dockerfile."
        ),
    ] = None,
    build_base: Annotated[
        str | None,
        typer.Option(
            envvar="SLIPWAY_BUILD_BASE", help="Image to build with. Default: the first FROM of the Dockerfile."
        ),
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="Build the image that scores files. Its tag ends in -batch.")
    ] = False,
) -> None:
    """Build the image of a bundle, with Docker or Podman.

    Reads the bundle, the last commit, champion.dvc, dvc.lock, DOCKER_HOST, and the PIP_* variables that name a mirror.
    Writes the image to the container engine, with labels for its provenance. Writes the build context to
    build/image.tar, and the image's name and NAME:TAG to GITHUB_OUTPUT. Exits 1 if a file of the image differs from the
    last commit.
    """
    from slipway.release import candidate as candidates
    from slipway.release import image as release

    bundle = bundle or artifacts.CHAMPION
    of_candidate = bundle.resolve() == candidates.BUNDLE.resolve()
    if of_candidate:
        candidate = candidates.read()
        provenance = candidates.image_provenance(candidate)
        name = name or candidates.image_name(candidate, terminal.read_params())[0]
    else:
        provenance = release.provenance_of(bundle)
    built, size = release.build(bundle, provenance, name or "slipway", tag, (build_base, base), os.environ, batch=batch)
    output({"name": built.rpartition(":")[0], "tagged": built})
    say("image", f"{built} built: {size / 1e6:,.0f} MB with its base, bundle {provenance.bundle:.12}")


@app.command(epilog=EXIT_CODES)
def push(
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="NAME:TAG of an image in the container engine.")],
) -> None:
    """Push an image to the registry that its name contains, and print its digest.

    Reads the image from the container engine in DOCKER_HOST, and uses the engine's logins. Writes the digest to
    GITHUB_OUTPUT. Exits 2 if the registry does not have the image afterwards.
    """
    from slipway.release import image as release

    digest = release.push(name)
    output({"digest": digest})
    say("push", f"{name} is {digest}")


@app.command(epilog=EXIT_CODES)
def pin() -> None:
    """Pin the base images of the Dockerfile by digest, or renew their digests.

    Reads the Dockerfile, and requests the digest of each base image from its registry, with Docker's logins. Writes
    NAME:TAG@DIGEST to the Dockerfile. If a registry does not answer, writes nothing and exits 2.
    """
    from slipway.release import base_images

    for base in base_images.pin():
        say("pin", f"{base.name} is {base.digest}")


@app.command(epilog=EXIT_CODES)
def smoke(
    name: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="NAME:TAG of an image in the container engine, or NAME@DIGEST to pull it."
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the bundle that the image must contain. Default: any bundle.", callback=from_start
        ),
    ] = None,
) -> None:
    """Test an image under the conditions of the cluster.

    Reads the image from the container engine in DOCKER_HOST, or pulls it by its digest. Runs it read-only, without
    capabilities, as an arbitrary user. Checks its start, its user, its provenance, its predictions for the golden rows
    and its memory, and that no request is dropped when it stops. Writes nothing. Exits 1 at the first check that fails.
    """
    from slipway.release.smoke import smoke as checks

    for passed in checks(name, bundle):
        say("smoke", escape(passed))
