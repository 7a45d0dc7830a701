"""The verbs that make, deploy, roll back and list releases."""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, output, read_params, say

if TYPE_CHECKING:
    from slipway.config import Params
    from slipway.release.component import Image

Environment = Annotated[str, typer.Argument(help="Name of the environment: staging or production.")]
ImageName = Annotated[
    str | None, typer.Option("--image", help="Name of the image, without a tag. Default: release.image in params.yaml.")
]
ImageTag = Annotated[
    str | None,
    typer.Option(
        "--tag", help="Tag of the image. Default: `sha-` followed by the first 12 digits of the candidate's commit."
    ),
]
ImageDigest = Annotated[
    str,
    typer.Option(
        "--digest", envvar="SLIPWAY_DIGEST", help="Digest of the pushed image, as `slipway image push` printed it."
    ),
]


@app.command(epilog=EXIT_CODES)
def record() -> None:
    """Record the bundle in build/bundle/ and its verdict in MLflow.

    Reads build/bundle/, metrics/ and build/*.json. Writes one MLflow run to the server at MLFLOW_TRACKING_URI (default:
    the file mlflow.db in the repository). Writes nothing if the bundle already has an MLflow run. Exits 1 if
    metrics/verdict.json is the verdict on another bundle, and 2 if MLflow does not answer.
    """
    from slipway.release import registry

    recorded = registry.record(read_params())
    say("record", f"run {recorded.run_id} {'has this bundle already' if recorded.already else 'written'}")


@app.command(epilog=EXIT_CODES)
def candidate(
    again: Annotated[
        bool,
        typer.Option(
            envvar="SLIPWAY_AGAIN",
            help="Release a model even if it was rolled back before. Default: exit 1 for such a model.",
        ),
    ] = False,
) -> None:
    """Evaluate the model of the last commit against the current champion, and make the release candidate.

    Reads git and the DVC remote. In a workflow, also reads the report of the pull request. Writes build/release/,
    champion/, champion.dvc, dvc.lock, metrics/, the DVC remote and, if one is configured, the model registry. In a
    workflow, writes `release` (true if there is a candidate) and `commit` to GITHUB_OUTPUT. Exits 1 if the model is
    held, if it differs from the reviewed model, or if it was rolled back before. Exits 0 without a candidate if there
    is nothing to release. Also exits 0, and keeps the champion, if the rules allowed the merge of a held model, for
    example with ingest.when_held set to `land`.
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

    Reads build/release/. Writes the version to the model registry at MLFLOW_TRACKING_URI (default: the file mlflow.db
    in the repository). If the bundle already has a version, writes only the tags of this version. Exits 1 if the bundle
    was never recorded in MLflow, and 2 if the registry does not answer.
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
        typer.Option(
            envvar="SLIPWAY_BATCH_DIGEST",
            help="Digest of the batch image, whose tag ends in -batch. Default: release no batch image.",
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            envvar="SLIPWAY_AGAIN",
            help="Release a model even if production was rolled back from it. Default: exit 1 for such a model.",
        ),
    ] = False,
) -> None:
    """Release the candidate to an environment: push a commit to `main` of origin.

    Reads build/release/, origin and, if one is configured, the model registry. The commit changes the file in
    kustomize/ that sets the image of the environment. For production, the commit also changes champion.dvc, dvc.lock
    and metrics/. Exits 1 if another model was released after the candidate was made, if production was rolled back from
    this model, or if origin rejects the push. Exits 0 without a commit if this image is already live in the
    environment. In a workflow, writes `released` (true or false) to GITHUB_OUTPUT: whether it made a commit.
    """
    from slipway.release.component import BATCH, Image
    from slipway.release.promote import promote as release

    params = read_params()
    image = _image(params, name, tag, digest)
    batch = Image(image.name, image.tag + BATCH, batch_digest) if batch_digest else None
    commit = release(environment, image, params, os.environ, batch, again)
    output({"released": str(commit is not None).lower()})
    say("promote", f"{image.tag} is live in {environment}: {commit or 'nothing to do'}")


def _image(params: "Params", name: str | None, tag: str | None, digest: str) -> "Image":
    """Return the image that the options name. The default name and tag belong to the candidate's image."""
    from slipway.release import candidate
    from slipway.release.component import Image

    if name is None or tag is None:
        default = candidate.image_name(candidate.read(), params)
        name, tag = name or default[0], tag or default[1]
    return Image(name, tag, digest)


@app.command(epilog=EXIT_CODES)
def deploy(environment: Environment) -> None:
    """Wait until an environment serves its newest release, and update the environment's alias in the model registry.

    Reads `main` of origin and the section `release` of params.yaml. If release.deploy is `kubectl`, first applies the
    overlay to the cluster. Writes no files. Does not wait for the model if release.urls has no address for the
    environment. Exits 1 if the new model does not answer within release.timeout_seconds.
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
            metavar="COMMIT",
            help="Restore the release that was live at this commit. "
            "Default: the newest earlier release that was not rolled back.",
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(envvar="SLIPWAY_DIGEST", help="Roll back only if the live image has this digest. Default: any."),
    ] = None,
) -> None:
    """Restore an earlier release: push a commit to `main` of origin.

    By default, restores the newest release of another image that was not rolled back or removed by hand. Reads `main`
    of origin. The commit changes the image of the environment and, for production, the champion. Exits 1 if there is no
    earlier release. Exits 0 without a commit if the release to restore is already live, or if the live image does not
    have the digest of --digest.
    """
    from slipway.release.promote import roll_back

    commit, release = roll_back(environment, to or None, os.environ, digest or None)
    say("rollback", f"{release.deployed.image.tag} is live in {environment}: {commit or 'nothing to do'}")


@app.command(epilog=EXIT_CODES)
def report_failure(environment: Environment) -> None:
    """Open a GitHub issue about a failed release. The workflow `Ship` uses this verb.

    Reads GITHUB_TOKEN, `main` of origin, and the address of the current workflow run. If an issue about this failure is
    open already, writes a comment on that issue. Exits 2 if GitHub refuses the issue or the comment.
    """
    from slipway.release import failure_issue as step

    say("report-failure", step.report(environment, os.environ))


@app.command(epilog=EXIT_CODES)
def releases(environment: Environment = "production") -> None:
    """List the releases to an environment, newest first.

    Reads the last fetched `main` of origin, or the last commit if `main` was never fetched. Writes nothing. Exits 2 if
    the environment does not exist.
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
            help="Address of a running server. Compare the server, its image, the registry and git with the release. "
            "Default: compare nothing.",
        ),
    ] = None,
) -> None:
    """Print the release that each environment runs.

    Reads the last fetched `main` of origin. In a workflow, writes `champion` to GITHUB_OUTPUT: true if there is a
    champion, otherwise false. With --live, compares the environment's release with the commit, dvc.lock, the bundle,
    the model registry, the image and the server. Exits 1 if one of them differs from the release, or if the server or
    the registry does not answer. An image that cannot be pulled is not compared.
    """
    from slipway.artifacts import RELEASE, Release
    from slipway.cli import release_tables

    out.print(release_tables.status_table())
    output({"champion": str(Release.read(RELEASE).champion is not None).lower()})
    if live and not release_tables.print_chain(out, environment, live, read_params(), os.environ):
        raise typer.Exit(1)
