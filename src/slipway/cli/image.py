"""The verbs `slipway image ...`. They build, push and test images, and pin the base images in the Dockerfile."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from slipway import artifacts
from slipway.cli import terminal
from slipway.cli.terminal import EXIT_CODES, from_start, output, say

app = typer.Typer(help="Build, push and test the image that serves a bundle.", no_args_is_help=True)
terminal.app.add_typer(app, name="image")


@app.command(epilog=EXIT_CODES)
def build(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", help=f"Directory of the bundle. Default: {artifacts.CHAMPION}.", callback=from_start
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the image, without a tag. Default for build/release/bundle: release.image in params.yaml. "
            "Default for any other bundle: slipway."
        ),
    ] = None,
    tag: Annotated[
        str | None,
        typer.Option(help="Tag of the image. Default: `sha-` followed by the first 12 digits of the commit."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            envvar="SLIPWAY_RUN_BASE",
            help="Base image of the server. Default: the image that the Dockerfile names for its stage `server`.",
        ),
    ] = None,
    build_base: Annotated[
        str | None,
        typer.Option(
            envvar="SLIPWAY_BUILD_BASE",
            help="Base image of the stage that installs the packages. Default: the image that the Dockerfile names for "
            "its stage `build`.",
        ),
    ] = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Build the batch image, which scores files, instead of the server's image. The tag ends in -batch.",
        ),
    ] = False,
) -> None:
    """Build the image that serves a bundle, with Docker or Podman.

    Reads the bundle, the last commit, champion.dvc and dvc.lock. Also reads the environment variables DOCKER_HOST and
    PIP_*, such as PIP_INDEX_URL. Writes the image to the container engine. The labels of the image contain its
    provenance. Writes the build context to build/image.tar. In a workflow, writes `name` and `tagged` (NAME:TAG) to
    GITHUB_OUTPUT. Exits 1 if a file that the image contains differs from the last commit. Exits 2 if the build fails.
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
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="NAME:TAG of an image that was built on this machine.")],
) -> None:
    """Push an image to the registry that the image's name contains, and print the digest.

    Reads the image from the container engine at DOCKER_HOST. Uses the credentials of `docker login`. In a workflow,
    writes `digest` to GITHUB_OUTPUT. Exits 2 if the registry rejects the image, or does not have it after the push.
    """
    from slipway.release import image as release

    digest = release.push(name)
    output({"digest": digest})
    say("push", f"{name} is {digest}")


@app.command(epilog=EXIT_CODES)
def pin() -> None:
    """Pin each base image in the Dockerfile to its current digest.

    Reads the Dockerfile, and requests the digest of each base image from its registry. Uses the credentials of
    `docker login`. Writes NAME:TAG@DIGEST to the Dockerfile. If a registry does not answer, writes nothing and exits 2.
    """
    from slipway.release import base_images

    for base in base_images.pin():
        say("pin", f"{base.name} is {base.digest}")


@app.command(epilog=EXIT_CODES)
def smoke(
    name: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="NAME:TAG of an image on this machine, or NAME@DIGEST of an image to pull."
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the bundle that the image must contain. Default: accept any bundle.", callback=from_start
        ),
    ] = None,
) -> None:
    """Start an image with the restrictions of the cluster, and test it.

    Reads the image from the container engine at DOCKER_HOST, or pulls it by its digest. Starts it with a read-only file
    system, without capabilities, as an arbitrary user. Checks the start, the user, the provenance, the memory, and the
    predictions for the golden rows. Checks that no request fails while the server stops. Writes no files. Exits 1 at
    the first check that fails.
    """
    from slipway.release.smoke import smoke as checks

    for passed in checks(name, bundle):
        say("smoke", escape(passed))
