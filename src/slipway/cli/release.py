"""The verbs of a release."""

import os
from typing import Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, out, output, read_params, say

Environment = Annotated[str, typer.Argument(help="An overlay: staging, production.")]
ImageName = Annotated[
    str, typer.Option("--image", envvar="SLIPWAY_IMAGE", help="Where it was pushed to, without a tag.")
]
ImageTag = Annotated[str, typer.Option("--tag", envvar="SLIPWAY_TAG")]
ImageDigest = Annotated[str, typer.Option("--digest", envvar="SLIPWAY_DIGEST", help="sha256:...")]


@app.command(epilog=EXIT_CODES)
def record() -> None:
    """Record the judged bundle in MLflow.

    Reads build/bundle/, metrics/, build/*.json. Writes one run to MLFLOW_TRACKING_URI (default: mlflow.db here);
    a bundle that has a run is not recorded again.
    """
    from slipway.release import registry

    recorded = registry.record(read_params())
    say("record", f"run {recorded.run_id} {'has this bundle already' if recorded.already else 'written'}")


@app.command(epilog=EXIT_CODES)
def candidate(
    again: Annotated[bool, typer.Option(envvar="SLIPWAY_AGAIN", help="Also what was rolled back.")] = False,
) -> None:
    """Make the release candidate: judge the last commit again, against the champion of this moment.

    Reads git, the DVC remote; in a workflow, the report below the pull request. Writes build/release/, champion/,
    champion.dvc, dvc.lock, metrics/, the DVC remote, the registry where one is named, and GITHUB_OUTPUT. Exits 1 if the
    model is held, is not what was reviewed, or was rolled back; 0 with nothing made if all of it is live.
    """
    from slipway.release import candidate as step

    params = read_params()
    outcome = step.make(params, os.environ, again)
    made = outcome.candidate
    say("candidate", escape(outcome.words))
    output({"release": str(made is not None).lower()})
    if made and params.release.image:
        output({"commit": made.commit, "image": params.release.image, "tag": f"sha-{made.commit:.12}"})


@app.command(epilog=EXIT_CODES)
def register(name: ImageName, tag: ImageTag, digest: ImageDigest) -> None:
    """Have a version of the registered model for the candidate, with its lineage and its image.

    Reads build/release/, MLFLOW_TRACKING_URI (default: mlflow.db here). Writes the version; one that is there is kept,
    and told its image. Exits 2 if the registry does not answer.
    """
    from slipway.release import candidate as candidates
    from slipway.release import registry
    from slipway.release.overlay import Image

    version = registry.register(read_params(), candidates.read().tags(Image(name, tag, digest)))
    say("register", f"version {version} of {read_params().record.experiment}")


@app.command(epilog=EXIT_CODES)
def promote(environment: Environment, name: ImageName, tag: ImageTag, digest: ImageDigest) -> None:
    """Release the candidate to an environment, by a commit on `main` of origin.

    Reads build/release/, origin, the registry where one is named. Writes the commit: the overlay, and for production
    what says which model is live. Exits 1 if another model was released meanwhile, or if origin refuses the push; 0
    with nothing written if this image is live there.
    """
    from slipway.release.overlay import Image
    from slipway.release.promote import promote as release

    commit = release(environment, Image(name, tag, digest), read_params(), os.environ)
    say("promote", f"{tag} is live in {environment}: {commit or 'nothing to do'}")


@app.command(epilog=EXIT_CODES)
def deploy(environment: Environment) -> None:
    """Wait until an environment answers with what `main` says, and tell the registry.

    Reads origin, release.* of params.yaml. Writes to the cluster first if release.deploy is `kubectl`, and the alias of
    the registry. Exits 1 if it does not answer with that in time.
    """
    from slipway.release.rollout import deploy as run

    for done in run(environment, read_params(), os.environ):
        say("deploy", escape(done))


@app.command(epilog=EXIT_CODES)
def rollback(
    environment: Environment,
    to: Annotated[str | None, typer.Option(help="A commit: what was live then. Default: the release before.")] = None,
) -> None:
    """Bring back an earlier release, by a commit on `main` of origin.

    Reads origin. Writes the commit: image, annotations, and for production the champion. Exits 1 if there is no earlier
    release; 0 with nothing written if it is live.
    """
    from slipway.release.promote import roll_back

    commit, release = roll_back(environment, to or None, os.environ)
    say("rollback", f"{release.live.image.tag} is live in {environment}: {commit or 'nothing to do'}")


@app.command(epilog=EXIT_CODES)
def report_failure(environment: Environment) -> None:
    """Open an issue on a release that failed and was taken back.

    Reads GITHUB_TOKEN, the run of the workflow. Writes the issue, or a comment on it where it is open.
    """
    from slipway.release import failure_issue as step

    say("report-failure", step.report(environment, os.environ))


@app.command(epilog=EXIT_CODES)
def releases(environment: Environment = "production") -> None:
    """List what was released to an environment, the newest first.

    Reads git: what this clone has of `main` of origin, or else the last commit. Writes nothing.
    """
    from slipway.cli.release_tables import releases_table

    out.print(releases_table(environment))


@app.command(epilog=EXIT_CODES)
def status(
    environment: Environment = "production",
    live: Annotated[str | None, typer.Option(metavar="URL", help="Prove it: ask the service there.")] = None,
) -> None:
    """Say what is live where; with --live, whether each link from the commit to the answer holds.

    Reads git; with --live the service, the registry and the image, as far as they can be reached. Writes to
    GITHUB_OUTPUT whether there is a champion. Exits 1 if a link is broken, and names it.
    """
    from slipway.artifacts import RELEASE, Release
    from slipway.cli import release_tables

    out.print(release_tables.status_table())
    output({"champion": str(Release.read(RELEASE).champion is not None).lower()})
    if live and not release_tables.print_chain(out, environment, live, read_params(), os.environ):
        raise typer.Exit(1)
