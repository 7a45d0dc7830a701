"""The verbs of a pull request, such as `slipway reproduce`, `slipway report` and `slipway merge-check`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from slipway.cli.terminal import EXIT_CODES, app, from_start, output, say
from slipway.review.report import REPORT

if TYPE_CHECKING:
    from slipway.review.comment import PostResult

Base = Annotated[
    str | None,
    typer.Option(
        envvar="SLIPWAY_BASE",
        help="Commit or branch to compare with. Default: origin/main if it exists, otherwise main.",
    ),
]
ReportFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="Directory with the report of a workflow run. Its content is not trusted.",
        callback=from_start,
    ),
]


@app.command(epilog=EXIT_CODES)
def changes(base: Base = None) -> None:
    """List which jobs of the workflow `Pull request` have to run for the changed files.

    Reads git and dvc.yaml. In a workflow, writes `test`, `model` and `image` to GITHUB_OUTPUT. Each
    output is `true` if the job with this name has to run, otherwise `false`. Exits 1 if HEAD changes the image of an
    environment, which only a release may do.
    """
    from slipway.review.changes import JOBS, find_changes

    found = find_changes(base)
    work = {job: bool(getattr(found, job)) for job in JOBS}
    output({job: str(has_work).lower() for job, has_work in work.items()})
    for job, has_work in work.items():
        say(job, "has work" if has_work else "no work: nothing that it depends on has changed")


@app.command(epilog=EXIT_CODES)
def reproduce(base: Base = None) -> None:
    """Run the pipeline again from the base branch's dvc.lock, and ignore results committed in the pull request.

    Reads git and the DVC remote. Writes dvc.lock and the outputs of the pipeline. If a stage fails, writes
    build/stopped.json. In a workflow, writes `upload` to GITHUB_OUTPUT. `upload` is true if the bundle cannot be pushed
    to the DVC remote, so that the workflow must store it as an artifact. Exits 0 for every verdict. Exits 1 if a stage
    fails, or if the pull request changes champion.dvc or metrics/release.json.
    """
    from slipway.integrations.dvc import embedded_remote
    from slipway.review.reproduce import reproduce as run

    run(base)
    output({"upload": str(embedded_remote() is not None).lower()})


@app.command(epilog=EXIT_CODES)
def report(base: Base = None) -> None:
    """Write the report on the model of a pull request, for its reviewers.

    Reads the outputs of the pipeline, git and DVC. Writes report.json, report.md, report.html and the charts to
    build/report/. In a workflow, also reads the GitHub event, and writes the summary of the job.
    """
    from slipway.review.build_report import build_report
    from slipway.review.render import render

    folder = render(build_report(base, os.environ, lambda text: say("report", text)), os.environ)
    say("report", f"written to {folder}/report.html and report.md")


@app.command(epilog=EXIT_CODES)
def push_charts(folder: ReportFolder) -> None:
    """Push the charts of a report to the branch `reports`. The comment on the pull request loads them from there.

    Reads the file report.json in FOLDER, GITHUB_TOKEN, and the GitHub event, which names the workflow run that wrote
    the report. In a workflow, writes the address of the charts to GITHUB_OUTPUT as `charts`. Exits 1 if the report does
    not belong to the pull request that it names.
    """
    from slipway.review import comment

    pushed = comment.push_charts(folder, os.environ)
    output({"charts": pushed.address or ""})
    _say_posted("charts", pushed)


@app.command(epilog=EXIT_CODES)
def comment(
    folder: ReportFolder,
    charts: Annotated[
        str | None,
        typer.Option(
            envvar="SLIPWAY_CHARTS", help="URL of the charts, as `slipway push-charts` prints it. Default: no charts."
        ),
    ] = None,
) -> None:
    """Post the report of a workflow run as a comment on its pull request, or update the comment.

    Reads the file report.json in FOLDER, GITHUB_TOKEN, and the GitHub event, which names the workflow run that wrote
    the report. Writes the comment with CML, or with GitHub's API if CML fails. Exits 1 if the report does not belong to
    the pull request that it names, or if the comment cannot be posted.
    """
    from slipway.review.comment import post

    _say_posted("comment", post(folder, os.environ, charts or None))


def _say_posted(step: str, posted: "PostResult") -> None:
    for warning in posted.warnings:
        say("warning", escape(warning))
    say(step, escape(" ".join(filter(None, (posted.sentence, posted.address)))))


@app.command(epilog=EXIT_CODES)
def rerun_checks() -> None:
    """Run the checks of a pull request again after the label `ship-anyway` was added or removed.

    Reads the GitHub event `pull_request` and GITHUB_TOKEN. Starts the newest run of the workflow `Pull request` again.
    If this run has not ended, cancels it first. Exits 1 if GitHub refuses a request, for example for a pull request
    from a fork.
    """
    from slipway.review.rerun_checks import rerun

    say("rerun", escape(rerun(os.environ)))


@app.command(epilog=EXIT_CODES)
def merge_check(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="REPORT", help=f"Path of the report to check. Default: {REPORT}.", callback=from_start),
    ] = None,
) -> None:
    """Check whether a pull request may be merged. The rules of the branch `main` require this check.

    Reads the report and the GitHub event. Also reads the variable NEEDS, which contains the results of the workflow's
    other jobs. Exits 1 if a job failed, if the report has no verdict on the last commit, or if the model is held. A
    held model passes if a maintainer added the label `ship-anyway` after the last push. A held model also passes if the
    pull request is a delivery and ingest.when_held is `land`, or if the pipeline reads none of the changed files.
    """
    from slipway.review.merge_check import check_merge

    say("pass", escape(check_merge(os.environ, path or REPORT)))
