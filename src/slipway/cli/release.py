"""The verbs of a release."""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, output, read_params, say

if TYPE_CHECKING:
    from slipway.config import Params
    from slipway.release.component import Image

Environment = Annotated[str, typer.Argument(help="Name of an overlay: staging or production.")]
ImageName = Annotated[
    str | None, typer.Option("--image", help="Name of the image, without a tag. Default: release.image of params.yaml.")
]
ImageTag = Annotated[
    str | None,
    typer.Option(
        "--tag", help="Tag of the image. Default: `sha-` followed by the first 12 digits of the candidate's commit."
    ),
]
ImageDigest = Annotated[
    str,
    typer.Option("--digest", envvar="SLIPWAY_DIGEST", help="Digest that `slipway image push` printed."),
]


@app.command(epilog=EXIT_CODES)
def record() -> None:
    """Record the bundle of the pipeline and its verdict in MLflow.

    Reads build/bundle/, metrics/ and build/*.json. Writes one MLflow run to MLFLOW_TRACKING_URI (default: mlflow.db in
    the repository). Writes nothing if the bundle already has an MLflow run.
    """
    from slipway.release import registry

    recorded = registry.record(read_params())
    say("record", f"run {recorded.run_id} {'has this bundle already' if recorded.already else 'written'}")


@app.command(epilog=EXIT_CODES)
def candidate(
    again: Annotated[
        bool, typer.Option(envvar="SLIPWAY_AGAIN", help="Release a model even if it was rolled back before.")
    ] = False,
) -> None:
    """Evaluate the last commit again, against the current champion, and make the release candidate.

    Reads git, the DVC remote and, in a workflow, the report of the pull request. Writes build/release/, champion/,
    champion.dvc, dvc.lock, metrics/, the DVC remote, the registry if one is configured, and GITHUB_OUTPUT. Exits 1 if
    the model is held, differs from the reviewed model, or was rolled back. Exits 0 without a candidate if there is
    nothing to release, or if the model of the last change is held and only its data was merged.
    """
    from slipway.release import candidate as step

    params = read_params()
    outcome = step.make(params, os.environ, again)
    made = outcome.candidate
    say("candidate", escape(outcome.words))
    output({"release": str(made is not None).lower()})
    if made:
        output({"commit": str(made.provenance.commit)})


@app.command(epilog=EXIT_CODES)
def register(digest: ImageDigest, name: ImageName = None, tag: ImageTag = None) -> None:
    """Create a registered model version for the candidate, with its provenance and its image.

    Reads build/release/. Writes a version to the registry at MLFLOW_TRACKING_URI (default: mlflow.db in the
    repository). If the bundle already has a version, writes only its tags. Exits 2 if the registry does not answer.
    """
    from slipway.release import candidate as candidates
    from slipway.release import registry

    params = read_params()
    version = registry.register(params, candidates.read().provenance, _image(params, name, tag, digest))
    say("register", f"version {version} of {params.record.experiment}")


@app.command(epilog=EXIT_CODES)
def promote(
    environment: Environment,
    digest: ImageDigest,
    name: ImageName = None,
    tag: ImageTag = None,
    batch_digest: Annotated[
        str | None,
        typer.Option(envvar="SLIPWAY_BATCH_DIGEST", help="Digest of the batch image, whose tag ends in -batch."),
    ] = None,
) -> None:
    """Release the candidate to an environment, by a commit on `main` of origin.

    Reads build/release/, origin and, if one is configured, the registry. The commit changes the release component of
    the overlay and, for production, the files that name the champion. Exits 1 if another model was released meanwhile,
    or if origin rejects the push. Exits 0 without a commit if this image is already live in the environment.
    """
    from slipway.release.component import BATCH, Image
    from slipway.release.promote import promote as release

    params = read_params()
    image = _image(params, name, tag, digest)
    batch = Image(image.name, image.tag + BATCH, batch_digest) if batch_digest else None
    commit = release(environment, image, params, os.environ, batch)
    say("promote", f"{image.tag} is live in {environment}: {commit or 'nothing to do'}")


def _image(params: "Params", name: str | None, tag: str | None, digest: str) -> "Image":
    """Return the image that the options name. The default is the candidate's image."""
    from slipway.release import candidate
    from slipway.release.component import Image

    if name is None or tag is None:
        default = candidate.image_name(candidate.read(), params)
        name, tag = name or default[0], tag or default[1]
    return Image(name, tag, digest)


@app.command(epilog=EXIT_CODES)
def deploy(environment: Environment) -> None:
    """Wait until an environment serves the model released on `main`. Then update the alias in the registry.

    Reads `main` of origin and the section `release` of params.yaml. If release.deploy is `kubectl`, applies the overlay
    to the cluster first. Exits 1 if the new model does not answer within release.timeout_seconds.
    """
    from slipway.release.rollout import deploy as run

    for done in run(environment, read_params(), os.environ):
        say("deploy", escape(done))


@app.command(epilog=EXIT_CODES)
def rollback(
    environment: Environment,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT", help="Restore the release that was live at this commit. Default: the previous release."
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(envvar="SLIPWAY_DIGEST", help="Do nothing unless the live image has this digest."),
    ] = None,
) -> None:
    """Restore an earlier release, by a commit on `main` of origin.

    By default, restores the newest release that differs from the live release and was not rolled back. Reads `main` of
    origin. The commit changes the release component and, for production, the champion. Exits 1 if there is no earlier
    release. Exits 0 without a commit if the release to restore is already live. With --digest, a failed release is not
    rolled back a second time if a person has already done so.
    """
    from slipway.release.promote import roll_back

    commit, release = roll_back(environment, to or None, os.environ, digest or None)
    say("rollback", f"{release.deployed.image.tag} is live in {environment}: {commit or 'nothing to do'}")


@app.command(epilog=EXIT_CODES)
def report_failure(environment: Environment) -> None:
    """Open an issue about a release that failed.

    Reads GITHUB_TOKEN, `main` of origin, and the address of the current workflow run. If the issue is already open,
    writes a comment on it.
    """
    from slipway.release import failure_issue as step

    say("report-failure", step.report(environment, os.environ))


@app.command(epilog=EXIT_CODES)
def releases(environment: Environment = "production") -> None:
    """List the releases to an environment, newest first.

    Reads the last fetched `main` of origin, or the last commit if `main` was never fetched. Writes nothing.
    """
    from slipway.cli.release_tables import releases_table

    out.print(releases_table(environment))


@app.command(epilog=EXIT_CODES)
def status(
    environment: Environment = "production",
    live: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of a running server. Also check that commit, registry, image and server match the release.",
        ),
    ] = None,
) -> None:
    """Show what is live in each environment.

    Reads git. Writes to GITHUB_OUTPUT whether there is a champion. With --live, also reads the server, the registry and
    the image, if they can be reached. Exits 1 if the commit, registry, image or server does not match the release.
    """
    from slipway.artifacts import RELEASE, Release
    from slipway.cli import release_tables

    out.print(release_tables.status_table())
    output({"champion": str(Release.read(RELEASE).champion is not None).lower()})
    if live and not release_tables.print_chain(out, environment, live, read_params(), os.environ):
        raise typer.Exit(1)
